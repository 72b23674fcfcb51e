//! Files without a name, which pass bytes to other processes as an inherited descriptor.

use super::descriptor;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

/// The descriptor of a file that has no name and does not change.
#[derive(Debug)]
pub struct Bytes(OwnedFd);

descriptor::owner!(Bytes);

impl Bytes {
    /// Another descriptor of the same file.
    pub fn try_clone(&self) -> io::Result<Bytes> {
        self.0.try_clone().map(Bytes)
    }

    /// Reads the whole file, whatever offset other processes have left it at.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let file = File::from(self.0.try_clone()?);
        let status = file.metadata()?;
        if !status.is_file() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut data = vec![0; usize::try_from(status.len()).unwrap_or(0)];
        file.read_exact_at(&mut data, 0)?;
        Ok(data)
    }
}

/// A file that holds `data` and that nobody can change: sealed memory where the system has it
/// (memfd_create(2)), an unlinked file elsewhere.
pub fn file(data: &[u8]) -> io::Result<Bytes> {
    #[cfg(any(target_os = "linux", target_os = "freebsd"))]
    if let Ok(file) = memory(data) {
        return Ok(file);
    }
    unlinked(data)
}

#[cfg(any(target_os = "linux", target_os = "freebsd"))]
fn memory(data: &[u8]) -> io::Result<Bytes> {
    use super::check;

    let name = c"tcprelay".as_ptr();
    let create = |flags: libc::c_uint| {
        // SAFETY: memfd_create(2) reads the name, a string that is there for ever.
        check(unsafe {
            libc::memfd_create(name, libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | flags)
        })
    };
    // The flag says that nobody will execute the file; newer Linux versions insist on being told.
    #[cfg(target_os = "linux")]
    let created = create(libc::MFD_NOEXEC_SEAL).or_else(|_| create(0))?;
    #[cfg(target_os = "freebsd")]
    let created = create(0)?;
    let fd = descriptor::own(created);
    let mut file = File::from(fd);
    file.write_all(data)?;
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: fcntl(F_ADD_SEALS) takes plain numbers.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
    Ok(Bytes(file.into()))
}

/// A file in the directory for temporary files, reopened read-only and unlinked.
fn unlinked(data: &[u8]) -> io::Result<Bytes> {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

    let directory = std::env::temp_dir();
    for number in 0u32.. {
        let path = directory.join(format!("tcprelay.{}.{number}", super::process::id()));
        let created = File::options().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = match created {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 100 => continue,
            created => created?,
        };
        let opened = file.write_all(data).and_then(|()| {
            let reader = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(&path)?;
            let (read, written) = (reader.metadata()?, file.metadata()?);
            match (read.dev(), read.ino()) == (written.dev(), written.ino()) {
                true => Ok(reader),
                false => Err(io::Error::from_raw_os_error(libc::ESTALE)),
            }
        });
        let _ = std::fs::remove_file(&path);
        return opened.map(|file| Bytes(file.into()));
    }
    Err(io::Error::from_raw_os_error(libc::EEXIST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_stays() {
        for make in [file, unlinked] {
            let made = make(b"some text").expect("a file");
            assert_eq!(made.read().expect("its text"), b"some text");
            // Read once more, as another process would.
            assert_eq!(made.read().expect("its text"), b"some text");
            assert!(File::from(OwnedFd::from(made)).write_all_at(b"other", 0).is_err());
        }
    }
}
