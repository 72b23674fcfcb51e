//! Memory shared by several processes, through a descriptor that one passes to another.

use super::descriptor;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

/// The descriptor by which a process hands memory to another.
#[derive(Debug)]
pub struct Object(OwnedFd);

descriptor::owner!(Object);

/// A row of atomic words, all zero at first, either private to this process or in shared memory.
pub struct Words(Memory);

enum Memory {
    Own(Box<[AtomicU64]>),
    Mapped { start: NonNull<AtomicU64>, length: usize },
}

// SAFETY: atomics may be used from any thread, and the mapping goes with this value only.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// Words that only this process can see.
    pub fn own(length: usize) -> Words {
        Words(Memory::Own((0..length).map(|_| AtomicU64::new(0)).collect()))
    }

    /// Shared words; whoever gets the descriptor can map them. Only pages that are used take
    /// memory.
    pub fn create(length: usize) -> io::Result<(Words, Object)> {
        let file = File::from(object()?);
        file.set_len((length * size_of::<AtomicU64>()) as u64)?;
        let fd = OwnedFd::from(file);
        // Without the seals one process could truncate the memory under the others, and so crash
        // them.
        #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
        {
            let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
            // SAFETY: fcntl(F_ADD_SEALS) takes plain numbers.
            super::check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
        }
        let object = Object(fd);
        Ok((Words::map(&object, length)?, object))
    }

    /// Maps words that another process created. The descriptor may be closed afterwards.
    pub fn map(object: &Object, length: usize) -> io::Result<Words> {
        let bytes = length * size_of::<AtomicU64>();
        if length == 0 || File::from(object.0.try_clone()?).metadata()?.len() < bytes as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice; the object is that large.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), bytes, access, libc::MAP_SHARED, object.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Words(Memory::Mapped { start, length }))
    }

    /// `N` of these words, from `first` on, if there are so many.
    pub fn window<const N: usize>(self, first: usize) -> Option<Window<N>> {
        let part = self.get(first..)?.first_chunk::<N>()?;
        let part = NonNull::from(part);
        Some(Window { part, first, all: self })
    }
}

/// Some words next to each other, which are written often: finding them takes no checks.
pub struct Window<const N: usize> {
    part: NonNull<[AtomicU64; N]>,
    first: usize,
    all: Words,
}

// SAFETY: atomics may be used from any thread, and the words go with this value only.
unsafe impl<const N: usize> Send for Window<N> {}
// SAFETY: as above.
unsafe impl<const N: usize> Sync for Window<N> {}

impl<const N: usize> Window<N> {
    /// All words, and the number of the first of these.
    pub fn all(&self) -> (&Words, usize) {
        (&self.all, self.first)
    }
}

impl<const N: usize> Deref for Window<N> {
    type Target = [AtomicU64; N];
    #[inline]
    fn deref(&self) -> &[AtomicU64; N] {
        // SAFETY: `window` has found them among the words of `all`, whose memory stays where it is
        // until `all` is dropped.
        unsafe { self.part.as_ref() }
    }
}

/// Creates a memory object without a name, close-on-exec.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn object() -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is NUL-terminated.
    let fd = super::check(unsafe { libc::memfd_create(c"tcprelay".as_ptr(), flags) })?;
    // SAFETY: the descriptor has just been made, and nothing else owns it.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) })
}

/// Creates a named memory object, and removes the name at once.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn object() -> io::Result<OwnedFd> {
    use std::ffi::CString;
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
    let mode: libc::c_uint = 0o600;
    for number in 0..100 {
        // macOS limits names to 31 bytes.
        let name = CString::new(format!("/tcprelay-{}-{number}", super::process::id()))?;
        // SAFETY: the name is NUL-terminated, and the mode is what the call expects third.
        match super::check(unsafe { libc::shm_open(name.as_ptr(), flags, mode) }) {
            Ok(fd) => {
                // SAFETY: the name is NUL-terminated; the descriptor has just been made, and
                // nothing else owns it. It is close-on-exec by itself (POSIX).
                return Ok(unsafe {
                    libc::shm_unlink(name.as_ptr());
                    std::os::fd::FromRawFd::from_raw_fd(fd)
                });
            }
            // A process that was killed between the two calls left the name behind.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

impl Deref for Words {
    type Target = [AtomicU64];
    fn deref(&self) -> &[AtomicU64] {
        match &self.0 {
            Memory::Own(words) => words,
            // SAFETY: so many words are mapped from `start` on as long as this value lives, aligned
            // to a page; the object cannot shrink, or is in the hands of our own processes. Others
            // write them, which atomics are for.
            Memory::Mapped { start, length } => unsafe {
                std::slice::from_raw_parts(start.as_ptr(), *length)
            },
        }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        if let Memory::Mapped { start, length } = self.0 {
            // SAFETY: the mapping that `map` made, which nothing refers to any more.
            unsafe { libc::munmap(start.as_ptr().cast(), length * size_of::<AtomicU64>()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn what_one_writes_the_other_reads() {
        let (ours, fd) = Words::create(1000).expect("memory");
        let theirs = Words::map(&fd, 1000).expect("the same memory");
        drop(fd);
        ours[999].store(7, Ordering::SeqCst);
        assert_eq!(theirs[999].load(Ordering::SeqCst), 7);
        assert_eq!(theirs.len(), 1000);
    }

    #[test]
    fn a_window_shows_some_of_the_words() {
        let (ours, fd) = Words::create(1000).expect("memory");
        let theirs = Words::map(&fd, 1000).expect("the same memory");
        assert!(Words::own(7).window::<8>(0).is_none());
        assert!(Words::own(7).window::<4>(8).is_none());
        let window = theirs.window::<10>(990).expect("so many words");
        ours[999].store(7, Ordering::SeqCst);
        assert_eq!(window[9].load(Ordering::SeqCst), 7);
        window[0].store(8, Ordering::SeqCst);
        assert_eq!(ours[990].load(Ordering::SeqCst), 8);
        assert_eq!((window.all().0.len(), window.all().1), (1000, 990));
        let own = Words::own(3).window::<2>(1).expect("so many words");
        own[1].store(1, Ordering::SeqCst);
        assert_eq!(own.all().0[2].load(Ordering::SeqCst), 1);
    }

    #[test]
    fn what_is_too_short_is_not_mapped() {
        let (_, fd) = Words::create(1).expect("memory");
        assert!(Words::map(&fd, 1 << 20).is_err());
        let (pipe, _) = io::pipe().expect("a pipe");
        assert!(Words::map(&Object(pipe.into()), 1).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn nobody_can_make_it_shorter() {
        let (_words, fd) = Words::create(1000).expect("memory");
        assert!(File::from(fd.0).set_len(0).is_err());
    }
}
