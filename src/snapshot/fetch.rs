//! Reading one source: a file, a URL, or a broker's shared memory.

use crate::os::{files, shm};
use std::io;
use std::path::Path;

/// Reads a source by its name:
/// * `ipc://KEY/LENGTH`: a System V shared memory segment that the broker has made;
/// * anything else with `://`: a URL, through libcurl where it is built in. Redirects are not
///   followed; a status outside 200 to 299 is an error;
/// * otherwise a regular file.
pub(super) fn fetch(name: &str) -> io::Result<Vec<u8>> {
    if let Some(rest) = name.strip_prefix("ipc://") {
        let (key, length) = rest.split_once('/').unwrap_or((rest, ""));
        let missing = || io::Error::from_raw_os_error(libc::ENOENT);
        let key = key.parse().map_err(|_| missing())?;
        let length = length.parse().map_err(|_| missing())?;
        shm::read(key, length)
    } else if name.contains("://") {
        download(name)
    } else {
        files::read_regular(Path::new(name))
    }
}

#[cfg(feature = "curl")]
fn download(url: &str) -> io::Result<Vec<u8>> {
    // The C program reports every failure here as ENOENT, and scripts look for that text; the real
    // reason follows it.
    let fail = |why: String| io::Error::other(format!("No such file or directory ({why})"));
    let (status, body) = crate::os::fetch::get(url).map_err(fail)?;
    // 0: a scheme without status codes, such as file.
    match status {
        0 | 200..=299 => Ok(body),
        _ => Err(fail(format!("status {status}"))),
    }
}

#[cfg(not(feature = "curl"))]
fn download(_url: &str) -> io::Result<Vec<u8>> {
    Err(io::Error::other("No such file or directory (built without libcurl)"))
}
