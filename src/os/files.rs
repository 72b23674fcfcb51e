//! Files: reading regular files, glob(3), and reading what a pipe holds.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Reads a whole regular file. Anything else (a directory, a FIFO, a device) is ENOENT, as in the C
/// program, and never blocks.
pub fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(text)
}

/// Why a pattern matched nothing.
#[derive(Debug)]
pub struct GlobError {
    /// The path concerned: the pattern, or a directory that could not be read.
    pub path: PathBuf,
    /// The reason.
    pub error: io::Error,
}

/// GLOB_BRACE of glob.h, which the libc crate defines for glibc only; 0 where there is none (musl,
/// Solaris). illumos has it in a separate function whose glob_t is larger than the crate's.
const GLOB_BRACE: libc::c_int = if cfg!(all(target_os = "linux", target_env = "gnu")) {
    1 << 10
} else if cfg!(any(
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly",
    target_vendor = "apple"
)) {
    0x80 // the same in all of them, from 4.4BSD
} else {
    0
};

/// glob(3) with brace alternatives where the C library has them, without backslash escapes, in
/// sorted order. A pattern without magic characters is taken literally.
pub fn glob(pattern: &OsStr) -> Result<Vec<PathBuf>, GlobError> {
    let fail = |errno| GlobError {
        path: PathBuf::from(pattern),
        error: io::Error::from_raw_os_error(errno),
    };
    if !pattern.is_empty() && !pattern.as_bytes().iter().any(|b| b"*?[{".contains(b)) {
        return Ok(vec![PathBuf::from(pattern)]);
    }
    let Ok(text) = CString::new(pattern.as_bytes()) else {
        return Err(fail(libc::EINVAL));
    };
    const FLAGS: libc::c_int = libc::GLOB_NOESCAPE | GLOB_BRACE;
    // SAFETY: glob_t is plain data, for which all zeroes is a valid value.
    let mut found: libc::glob_t = unsafe { std::mem::zeroed() };
    // SAFETY: `text` is NUL-terminated and `found` is initialised; both outlive the call.
    let result = unsafe { libc::glob(text.as_ptr(), FLAGS, None, &mut found) };
    let mut paths = Vec::new();
    if result == 0 {
        for index in 0..found.gl_pathc as usize {
            // SAFETY: glob(3) filled gl_pathv with gl_pathc NUL-terminated strings.
            let path = unsafe { CStr::from_ptr(*found.gl_pathv.add(index)) };
            paths.push(PathBuf::from(OsString::from_vec(path.to_bytes().to_vec())));
        }
    }
    // SAFETY: `found` was filled by glob(3) and is released once.
    unsafe { libc::globfree(&mut found) };
    match result {
        0 => Ok(paths),
        libc::GLOB_NOMATCH => Err(fail(libc::ENOENT)),
        libc::GLOB_NOSPACE => Err(fail(libc::ENOMEM)),
        _ => Err(fail(libc::EACCES)),
    }
}

/// Reads what a non-blocking pipe holds. `Ok(None)`: nothing at the moment. An empty vector: its
/// end.
pub fn read_available(pipe: &PipeReader) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; 4096];
    let length = read_into(pipe, &mut buffer)?;
    Ok(length.map(|length| {
        buffer.truncate(length);
        buffer
    }))
}

/// Reads what a non-blocking pipe holds into `buffer`. `Ok(None)`: nothing at the moment. 0: its
/// end.
pub fn read_into(mut pipe: &PipeReader, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match pipe.read(buffer) {
        Ok(length) => Ok(Some(length)),
        Err(error) if super::would_block(&error) => Ok(None),
        Err(error) if super::interrupted(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// True if two paths lead to the same file, or would once it exists: the same name in the same
/// folder.
pub fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    };
    if let (Some(one), Some(other)) = (identity(one), identity(other)) {
        return one == other;
    }
    let place = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).canonicalize().ok()?;
        Some(folder.join(path.file_name()?))
    };
    one == other || place(one).is_some_and(|place_of_one| place(other) == Some(place_of_one))
}

/// True if the descriptor is open on a regular file.
pub fn is_regular(fd: RawFd) -> bool {
    // SAFETY: fstat(2) fills `status`, which is plain data, or fails for a number that is none.
    unsafe {
        let mut status: libc::stat = std::mem::zeroed();
        libc::fstat(fd, &mut status) == 0 && status.st_mode & libc::S_IFMT == libc::S_IFREG
    }
}
