//! System V shared memory (shmget(2)): lets a broker hand its configuration to workers that may not
//! read the file (`ipc key`).

use super::check;
use std::io;

// sys/ipc.h; not in the libc crate for these systems.
#[cfg(any(target_os = "solaris", target_os = "illumos"))]
const IPC_STAT: libc::c_int = 12;
#[cfg(not(any(target_os = "solaris", target_os = "illumos")))]
use libc::IPC_STAT;

// sys/shm.h; not in the libc crate for these systems.
#[cfg(any(target_os = "netbsd", target_os = "openbsd"))]
const SHM_RDONLY: libc::c_int = 0o10000;
#[cfg(not(any(target_os = "netbsd", target_os = "openbsd")))]
use libc::SHM_RDONLY;

/// shmget(2) with the `ipc key` of the configuration; key_t is wider than i32 on some systems.
fn get(key: i32, size: usize, flags: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: shmget(2) takes plain numbers.
    check(unsafe { libc::shmget(key as libc::key_t, size, flags) })
}

/// A segment that this process created. It is removed when this value is dropped.
#[derive(Debug)]
pub struct Segment {
    id: libc::c_int,
    owner: i32,
}

impl Segment {
    /// Creates a segment under `key` that holds a copy of `data`, with mode 0600, owned by the
    /// given user and group if any. An existing segment under that key is removed first.
    pub fn create(
        key: i32,
        data: &[u8],
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> io::Result<Segment> {
        if let Ok(old) = get(key, 0, 0) {
            // SAFETY: shmctl(IPC_RMID) takes plain numbers.
            check(unsafe { libc::shmctl(old, libc::IPC_RMID, std::ptr::null_mut()) })?;
        }
        let flags = libc::IPC_CREAT | libc::IPC_EXCL | 0o600;
        let id = get(key, data.len().max(1), flags)?;
        let segment = Segment { id, owner: super::process::id() };
        // SAFETY: the kernel maps at least data.len() bytes at the address it returns, which
        // nothing else knows; it is unmapped after the copy.
        unsafe {
            let address = libc::shmat(id, std::ptr::null(), 0);
            if address as isize == -1 {
                return Err(io::Error::last_os_error());
            }
            std::ptr::copy_nonoverlapping(data.as_ptr(), address.cast::<u8>(), data.len());
            libc::shmdt(address);
        }
        // SAFETY: shmid_ds is plain data; IPC_STAT fills it and IPC_SET reads it.
        unsafe {
            let mut info: libc::shmid_ds = std::mem::zeroed();
            check(libc::shmctl(id, IPC_STAT, &mut info))?;
            if let Some(uid) = uid {
                info.shm_perm.uid = uid as _;
            }
            if let Some(gid) = gid {
                info.shm_perm.gid = gid as _;
            }
            check(libc::shmctl(id, libc::IPC_SET, &mut info))?;
        }
        Ok(segment)
    }
}

impl Segment {
    /// Takes over a segment that an earlier image of this process created.
    pub fn adopt(id: libc::c_int) -> Segment {
        Segment { id, owner: super::process::id() }
    }

    /// Its identifier, as shmget(2) returned it.
    pub fn id(&self) -> libc::c_int {
        self.id
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // A forked child has a copy of this value, but the segment is its parent's.
        if self.owner == super::process::id() {
            // SAFETY: shmctl(IPC_RMID) takes plain numbers.
            unsafe { libc::shmctl(self.id, libc::IPC_RMID, std::ptr::null_mut()) };
        }
    }
}

/// Reads `length` bytes of the segment under `key`.
pub fn read(key: i32, length: usize) -> io::Result<Vec<u8>> {
    let id = get(key, length, 0)?;
    // SAFETY: shmget(2) has checked that the segment is not smaller than asked for. The kernel
    // maps at least `length` bytes at the address it returns, for reading; they are copied before
    // the mapping goes.
    unsafe {
        let address = libc::shmat(id, std::ptr::null(), SHM_RDONLY);
        if address as isize == -1 {
            return Err(io::Error::last_os_error());
        }
        // Copied bytewise through raw pointers: there must be no reference to memory that others
        // may write.
        let mut data = vec![0; length];
        std::ptr::copy_nonoverlapping(address.cast::<u8>(), data.as_mut_ptr(), length);
        libc::shmdt(address);
        Ok(data)
    }
}
