//! misc/crc32.h: the check of cksum(1).
//!
//! # Safety
//! A pointer is null or points at as many bytes as the length says.
#![allow(clippy::missing_safety_doc, reason = "said at the head of the file")]

use super::guard;
use super::memory::slice;
use crate::library::crc32;

/// `uint32_t crc32_update(uint32_t crc, u_char *cp, off_t len)`: the check continued over some
/// bytes; none if the length is negative.
#[no_mangle]
pub unsafe extern "C" fn crc32_update(crc: u32, data: *const u8, length: libc::off_t) -> u32 {
    // SAFETY: as the caller promises.
    guard(crc, || crc32::update(crc, unsafe { slice(data, length.try_into().unwrap_or(0)) }))
}

/// `uint32_t crc32_final(uint32_t crc, off_t len)`: the check as cksum(1) prints it.
#[no_mangle]
pub extern "C" fn crc32_final(crc: u32, length: libc::off_t) -> u32 {
    guard(crc, || crc32::finish(crc, length.try_into().unwrap_or(0)))
}
