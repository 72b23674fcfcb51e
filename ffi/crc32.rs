//! misc/crc32.h: the checksum of cksum(1).

use super::entry::entry;
use super::memory::slice;
use crate::library::crc32;

entry! {
    /// `uint32_t crc32_update(uint32_t crc, u_char *cp, off_t len)`: continues the checksum over
    /// `len` bytes; over none if `len` is negative.
    #[otherwise(crc)]
    pub fn crc32_update(crc: u32, data: *const u8, length: libc::off_t) -> u32 {
        // SAFETY: the data has that many bytes.
        crc32::update(crc, unsafe { slice(data, length.try_into().unwrap_or(0)) })
    }

    /// `uint32_t crc32_final(uint32_t crc, off_t len)`: the checksum as cksum(1) prints it.
    #[otherwise(crc)]
    pub fn crc32_final(crc: u32, length: libc::off_t) -> u32 {
        crc32::finish(crc, length.try_into().unwrap_or(0))
    }
}
