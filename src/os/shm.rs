//! System V shared memory (shmget(2)), by which a broker can hand its configuration to workers
//! that may not read the file (`ipc key`).

use super::check;
use std::io;
use std::slice;

/// A segment that this process made, and removes when it is dropped.
#[derive(Debug)]
pub struct Segment {
    id: libc::c_int,
    owner: i32,
}

impl Segment {
    /// Makes a segment under `key` that holds a copy of `data`, mode 0600, owned by the given
    /// user and group if there are any. One that exists under that key is removed first.
    pub fn create(
        key: i32,
        data: &[u8],
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> io::Result<Segment> {
        // SAFETY: shmget(2) and shmctl(IPC_RMID) take plain numbers here.
        unsafe {
            let old = libc::shmget(key, 0, 0);
            if old >= 0 {
                check(libc::shmctl(old, libc::IPC_RMID, std::ptr::null_mut()))?;
            }
        }
        let flags = libc::IPC_CREAT | libc::IPC_EXCL | 0o600;
        // SAFETY: shmget(2) takes plain numbers.
        let id = check(unsafe { libc::shmget(key, data.len().max(1), flags) })?;
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
            check(libc::shmctl(id, libc::IPC_STAT, &mut info))?;
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
    // SAFETY: shmget(2) takes plain numbers; it fails if the segment is smaller than asked for.
    let id = check(unsafe { libc::shmget(key, length, 0) })?;
    // SAFETY: the kernel maps at least `length` bytes at the address it returns, for reading;
    // they are copied before the mapping goes.
    unsafe {
        let address = libc::shmat(id, std::ptr::null(), libc::SHM_RDONLY);
        if address as isize == -1 {
            return Err(io::Error::last_os_error());
        }
        let data = slice::from_raw_parts(address.cast::<u8>(), length).to_vec();
        libc::shmdt(address);
        Ok(data)
    }
}
