//! Where a configuration comes from: a file, a URL, or shared memory of the broker.

use crate::os::{files, shm};
use crate::snapshot::texts as snapshot;
use std::ffi::CString;
use std::io;
use std::path::Path;

/// A configuration text with its name.
#[derive(Debug)]
pub struct Source {
    /// The name as given on the command line or produced by an include.
    pub name: String,
    /// The same for C readers.
    pub(super) c_name: CString,
    /// The bytes.
    pub text: Vec<u8>,
}

impl Source {
    /// A source that is already in memory. A byte order mark, as some editors put it, is no text.
    pub fn new(name: &str, mut text: Vec<u8>) -> Source {
        if text.starts_with(b"\xef\xbb\xbf") {
            text.drain(..3);
        }
        Source { name: name.to_owned(), c_name: CString::new(name).unwrap_or_default(), text }
    }

    /// Reads a source by its name:
    /// * `ipc://KEY/LENGTH`: a System V shared memory segment made by the broker;
    /// * anything else with `://`: a URL, through libcurl where it is built in. Redirects are
    ///   not followed; a status of 300 and above is an error;
    /// * otherwise a regular file.
    pub fn open(name: &str) -> io::Result<Source> {
        Ok(Source::new(name, snapshot::text(name, || read(name))?))
    }
}

fn read(name: &str) -> io::Result<Vec<u8>> {
    let text = if let Some(rest) = name.strip_prefix("ipc://") {
        let (key, length) = rest.split_once('/').unwrap_or((rest, ""));
        let missing = || io::Error::from_raw_os_error(libc::ENOENT);
        let key = key.parse().map_err(|_| missing())?;
        let length = length.parse().map_err(|_| missing())?;
        shm::read(key, length)?
    } else if name.contains("://") {
        fetch(name)?
    } else {
        files::read_regular(Path::new(name))?
    };
    if text.len() > i32::MAX as usize {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    Ok(text)
}

#[cfg(feature = "curl")]
fn fetch(url: &str) -> io::Result<Vec<u8>> {
    // ENOENT is what the C program says of whatever goes wrong here, and it is what scripts
    // look for; the real reason goes with it.
    let fail = |why: String| io::Error::other(format!("No such file or directory ({why})"));
    let (status, body) = crate::os::fetch::get(url).map_err(fail)?;
    // 0: a scheme without statuses, such as file.
    match status {
        0 | 200..=299 => Ok(body),
        _ => Err(fail(format!("status {status}"))),
    }
}

#[cfg(not(feature = "curl"))]
fn fetch(_url: &str) -> io::Result<Vec<u8>> {
    Err(io::Error::other("No such file or directory (built without libcurl)"))
}
