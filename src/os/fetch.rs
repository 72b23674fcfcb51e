//! Fetches a URL with libcurl.
//!
//! Calls libcurl's easy interface directly (curl_easy_init(3) and others): the crate on top of it
//! initialises OpenSSL as soon as a program loads this library, which is for the program to decide.

use curl_sys as curl;
use std::ffi::{c_char, c_long, c_void, CStr, CString};
use std::ptr::NonNull;

/// The time limit for connecting, in seconds.
const CONNECT_TIMEOUT: c_long = 30;
/// The time limit for the whole transfer, in seconds.
const TIMEOUT: c_long = 300;

/// The version of libcurl.
pub fn version() -> String {
    // SAFETY: the structure is a constant of the library, and so is the text in it.
    unsafe {
        let information = curl::curl_version_info(curl::CURLVERSION_FIRST);
        CStr::from_ptr((*information).version).to_string_lossy().into_owned()
    }
}

struct Easy(NonNull<curl::CURL>);

impl Drop for Easy {
    fn drop(&mut self) {
        // SAFETY: the handle is ours, and not used after this.
        unsafe { curl::curl_easy_cleanup(self.0.as_ptr()) };
    }
}

/// Appends received bytes to the vector that `body` points at.
extern "C" fn receive(data: *mut c_char, size: usize, count: usize, body: *mut c_void) -> usize {
    // SAFETY: libcurl passes that many bytes, and the pointer it was given, which is to a vector
    // that lives as long as the transfer.
    unsafe {
        let bytes = std::slice::from_raw_parts(data.cast::<u8>(), size * count);
        (*body.cast::<Vec<u8>>()).extend_from_slice(bytes);
    }
    size * count
}

/// Fetches `url`. Returns the status (0 for schemes without one) and the body. Does not follow
/// redirects. The error is libcurl's message.
pub fn get(url: &str) -> Result<(u32, Vec<u8>), String> {
    let describe = |code: curl::CURLcode| {
        // SAFETY: the text is a constant of the library.
        unsafe { CStr::from_ptr(curl::curl_easy_strerror(code)) }.to_string_lossy().into_owned()
    };
    let url = CString::new(url).map_err(|error| error.to_string())?;
    let agent = concat!("tcprelay/", env!("CARGO_PKG_VERSION"), "\0");
    // SAFETY: the function takes no arguments.
    let handle = NonNull::new(unsafe { curl::curl_easy_init() }).ok_or("out of memory")?;
    let easy = Easy(handle);
    let handle = easy.0.as_ptr();
    let mut body: Vec<u8> = Vec::new();
    let mut status: c_long = 0;
    // SAFETY: each option gets the type that curl_easy_setopt(3) asks for: longs, NUL-terminated
    // texts, which are copied, a function of the type of a write callback and its argument, which
    // outlive the transfer; CURLINFO_RESPONSE_CODE writes a long.
    let codes = unsafe {
        [
            curl::curl_easy_setopt(handle, curl::CURLOPT_URL, url.as_ptr()),
            curl::curl_easy_setopt(handle, curl::CURLOPT_NOSIGNAL, 1 as c_long),
            curl::curl_easy_setopt(handle, curl::CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT),
            curl::curl_easy_setopt(handle, curl::CURLOPT_TIMEOUT, TIMEOUT),
            curl::curl_easy_setopt(handle, curl::CURLOPT_USERAGENT, agent.as_ptr()),
            curl::curl_easy_setopt(
                handle,
                curl::CURLOPT_WRITEFUNCTION,
                receive as curl::curl_write_callback,
            ),
            curl::curl_easy_setopt(handle, curl::CURLOPT_WRITEDATA, &raw mut body),
            curl::curl_easy_perform(handle),
            curl::curl_easy_getinfo(handle, curl::CURLINFO_RESPONSE_CODE, &raw mut status),
        ]
    };
    match codes.into_iter().find(|&code| code != curl::CURLE_OK) {
        Some(code) => Err(describe(code)),
        None => Ok((status as u32, body)),
    }
}
