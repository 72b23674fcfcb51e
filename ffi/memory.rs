//! Slices over memory of C callers, and writing results into it.

use std::ffi::c_char;

/// `count` values; empty for a null pointer, or if `count` is larger than any slice can be.
///
/// # Safety
/// `start` is null or points at `count` values that nobody changes while the result lives.
pub(super) unsafe fn slice<'a, T>(start: *const T, count: usize) -> &'a [T] {
    if start.is_null() || !possible::<T>(count) {
        return &[];
    }
    // SAFETY: as the caller promises; the size is possible.
    unsafe { std::slice::from_raw_parts(start, count) }
}

/// As [`slice`], but mutable.
///
/// # Safety
/// As for [`slice`], and nobody else uses the values while the result lives.
pub(super) unsafe fn slice_mut<'a, T>(start: *mut T, count: usize) -> &'a mut [T] {
    if start.is_null() || !possible::<T>(count) {
        return &mut [];
    }
    // SAFETY: as the caller promises; the size is possible.
    unsafe { std::slice::from_raw_parts_mut(start, count) }
}

fn possible<T>(count: usize) -> bool {
    count.checked_mul(size_of::<T>()).is_some_and(|size| isize::try_from(size).is_ok())
}

/// Writes a text and its NUL. False, and nothing is written, if they do not fit or the pointer is
/// null.
///
/// # Safety
/// `out` is null or has room for `room` bytes, which nobody else uses during the call.
pub(super) unsafe fn put_text(out: *mut c_char, room: usize, text: &[u8]) -> bool {
    if out.is_null() || text.len() >= room {
        return false;
    }
    // SAFETY: text and NUL fit, as was checked; the text does not overlap the room, as it is Rust's
    // own.
    unsafe {
        out.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len());
        out.add(text.len()).write(0);
    }
    true
}
