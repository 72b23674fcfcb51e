//! misc/pid_write.h: the pid file.
//!
//! # Safety
//! A path is null or NUL-terminated; a handle is null or what `pid_write` has returned, and used
//! once.
#![allow(clippy::missing_safety_doc, reason = "said at the head of the file")]

use super::{bytes, guard};
use crate::os::pidfile::PidFile;
use std::ffi::{c_char, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// `struct pidfile *pid_write(char *path)`: locks the file and writes the process id, without a
/// newline. Null if that fails; a file that another process has locked stays as it is.
#[no_mangle]
pub unsafe extern "C" fn pid_write(path: *const c_char) -> *mut PidFile {
    guard(ptr::null_mut(), || {
        // SAFETY: as the caller promises.
        let path = unsafe { bytes(path) }.filter(|path| !path.is_empty());
        let file = path.map(|path| Path::new(OsStr::from_bytes(path))).and_then(|path| {
            let file = PidFile::acquire(path).ok()?;
            file.publish();
            Some(file)
        });
        file.map_or(ptr::null_mut(), |file| Box::into_raw(Box::new(file)))
    })
}

/// `void pid_unlink(struct pidfile **p)`: removes the file, if the path still is this file and this
/// process has written it, gives the lock back, and clears the handle.
#[no_mangle]
pub unsafe extern "C" fn pid_unlink(handle: *mut *mut PidFile) {
    // SAFETY: as the caller promises; the handle came from `Box::into_raw` above.
    guard((), || unsafe {
        if let Some(handle) = handle.as_mut().filter(|handle| !handle.is_null()) {
            drop(Box::from_raw(std::mem::take(handle)));
        }
    });
}
