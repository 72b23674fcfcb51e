//! misc/pid_write.h: the pid file.

use super::entry::entry;
use crate::os::pidfile::PidFile;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

entry! {
    /// `struct pidfile *pid_write(char *path)`: locks the file and writes the process id, without a
    /// newline. Null if that fails; a file that another process has locked is left unchanged.
    #[otherwise(ptr::null_mut())]
    pub fn pid_write(path: &[u8]) -> *mut PidFile {
        let Ok(file) = PidFile::acquire(Path::new(OsStr::from_bytes(path))) else {
            return ptr::null_mut();
        };
        file.publish();
        Box::into_raw(Box::new(file))
    }

    /// `void pid_unlink(struct pidfile **p)`: removes the file, if the path still names this file
    /// and this process wrote it; then releases the lock and sets the handle to null.
    pub fn pid_unlink(handle: &mut *mut PidFile) {
        if !handle.is_null() {
            // SAFETY: the handle came from `pid_write`, and is set to null.
            drop(unsafe { Box::from_raw(std::mem::take(handle)) });
        }
    }
}
