//! The pid file: locked first, then written, and removed only by its owner.

use super::entry::{self, Entry, FileId};
use super::{check, reason};
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A pid file that this process holds, and removes when this value is dropped. The lock is a POSIX
/// record lock (fcntl(2)): it ends with the process and survives exec.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    /// `None` once `drop` has taken it.
    file: Option<File>,
    /// Forked children have a copy of this value, but the file is their parent's.
    owner: i32,
}

/// Why the pid file could not be taken.
#[derive(Debug)]
pub enum PidFileError {
    /// Another process holds the lock; its id, if the system reports it.
    Locked(Option<i32>),
    /// The file could not be opened or written.
    Io(io::Error),
}

impl fmt::Display for PidFileError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PidFileError::Locked(Some(pid)) => write!(out, "locked by process {pid}"),
            PidFileError::Locked(None) => out.write_str("locked by another process"),
            PidFileError::Io(error) => out.write_str(&reason(error)),
        }
    }
}

impl PidFile {
    /// Opens, locks and writes the file. Refuses anything but a regular file with one name. A file
    /// that another process has locked is left alone.
    pub fn acquire(path: &Path) -> Result<PidFile, PidFileError> {
        let file = entry::open_to_write(path, 0o644).map_err(PidFileError::Io)?;
        lock(&file)?;
        let write = |file: &File| {
            file.set_len(0)?;
            (&*file).write_all(std::process::id().to_string().as_bytes())
        };
        write(&file).map_err(PidFileError::Io)?;
        Ok(PidFile::of(path, file))
    }

    /// Keeps `former` if it has this path; otherwise removes it, and acquires the file.
    pub fn keep_or_acquire(path: &Path, former: Option<PidFile>) -> Result<PidFile, PidFileError> {
        match former.filter(|former| former.path() == path) {
            Some(former) => Ok(former),
            None => PidFile::acquire(path),
        }
    }

    /// Takes over the descriptor from an earlier image of this process, which already holds the
    /// lock.
    pub fn adopt(path: &Path, fd: OwnedFd) -> PidFile {
        PidFile::of(path, File::from(fd))
    }

    fn of(path: &Path, file: File) -> PidFile {
        PidFile { path: path.to_owned(), file: Some(file), owner: super::process::id() }
    }

    /// The path, as configured.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file readable for everybody, whatever the umask is.
    pub fn publish(&self) {
        if let Some(file) = &self.file {
            let _ = file.set_permissions(std::fs::Permissions::from_mode(0o644));
        }
    }

    /// The locked descriptor. Pass it to the next image of this process, which then holds the lock.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(File::as_fd)
    }
}

impl Drop for PidFile {
    /// Removes the file, if the path still leads to it.
    fn drop(&mut self) {
        let Some(file) = self.file.take().filter(|_| self.owner == super::process::id()) else {
            return;
        };
        let remove = || {
            let metadata = file.metadata()?;
            let file = FileId { device: metadata.dev(), inode: metadata.ino() };
            Entry::of(&self.path)?.remove(file)
        };
        // The name may be gone, or belong to another file by now.
        let _: io::Result<()> = remove();
    }
}

fn lock(file: &File) -> Result<(), PidFileError> {
    // SAFETY: struct flock is plain data, for which all zeroes is a valid value: the lock
    // covers the whole file.
    let mut lock: libc::flock = unsafe { mem::zeroed() };
    lock.l_type = libc::F_WRLCK as _;
    lock.l_whence = libc::SEEK_SET as _;
    let fd = file.as_raw_fd();
    // SAFETY: F_SETLK reads `lock`, which outlives the call.
    let Err(error) = check(unsafe { libc::fcntl(fd, libc::F_SETLK, &lock) }) else {
        return Ok(());
    };
    if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) {
        return Err(PidFileError::Io(error));
    }
    // SAFETY: F_GETLK reads and writes `lock`, which outlives the call.
    let result = unsafe { libc::fcntl(fd, libc::F_GETLK, &mut lock) };
    let is_held = lock.l_type != libc::F_UNLCK as libc::c_short;
    let known = result == 0 && is_held;
    Err(PidFileError::Locked(known.then_some(lock.l_pid)))
}
