//! Values on malloc(3)'s heap: allocated by C code and freed by Rust, or the other way round.

use super::process::exit;
use std::ffi::{c_char, c_void, CStr};
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Zeroed memory. If there is none the process ends: callers at the C ABI could not continue.
pub fn allocate(size: usize, what: &str) -> NonNull<u8> {
    // SAFETY: calloc(3) takes any size.
    let memory = unsafe { libc::calloc(1, size.max(1)) };
    NonNull::new(memory.cast()).unwrap_or_else(|| {
        super::log::message(&format!("{what}: out of memory ({size} bytes)"));
        std::process::exit(exit::OS_ERROR)
    })
}

/// Like [`allocate`], filled with these bytes.
pub fn copy(bytes: &[u8]) -> NonNull<u8> {
    let memory = allocate(bytes.len(), "malloc");
    // SAFETY: the memory is new, and has room for the bytes.
    unsafe { memory.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    memory
}

/// Checks memory that a malloc(3) function returned. If it is null the process ends; `what` is the
/// call and its place, for the message.
pub fn granted(memory: *mut c_void, what: impl FnOnce() -> String) -> *mut c_void {
    if memory.is_null() {
        let reason = super::reason(&std::io::Error::last_os_error());
        super::log::message(&format!("{}: {reason}", what()));
        std::process::exit(exit::OS_ERROR);
    }
    memory
}

/// The bytes of a C string that `text` points at, none for a null pointer.
///
/// # Safety
/// The string is NUL-terminated, and nobody changes it while the result lives.
pub unsafe fn c_bytes<T>(text: &*mut T) -> &[u8] {
    if text.is_null() {
        return b"";
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text.cast()) }.to_bytes()
}

/// A NUL-terminated string that we own. `Option<Text>` is laid out as a `char *`.
#[repr(transparent)]
pub struct Text(NonNull<c_char>);

impl Text {
    /// A copy of `bytes`, up to the first NUL in it.
    pub fn new(bytes: &[u8]) -> Text {
        let length = memchr::memchr(0, bytes).unwrap_or(bytes.len());
        let memory = allocate(length + 1, "strdup");
        // SAFETY: the memory has room for the bytes and a NUL, which is there already.
        unsafe { memory.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), length) };
        Text(memory.cast())
    }

    /// The text without its NUL.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the string is NUL-terminated and ours, and C code that writes to it keeps it so.
        unsafe { CStr::from_ptr(self.0.as_ptr()) }.to_bytes()
    }

    /// The text for messages, with invalid UTF-8 replaced.
    pub fn lossy(&self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    /// The text without its NUL, for changes in place. No byte may become NUL.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let length = self.bytes().len();
        // SAFETY: as above, and the reference is the only one.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr().cast(), length) }
    }

    /// The pointer, for C code that reads the text or changes it in place.
    pub fn as_ptr(&self) -> *mut c_char {
        self.0.as_ptr()
    }

    /// Hands the string over to C code, which frees it.
    pub fn into_raw(self) -> *mut c_char {
        ManuallyDrop::new(self).0.as_ptr()
    }
}

impl Clone for Text {
    fn clone(&self) -> Text {
        Text::new(self.bytes())
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        // SAFETY: the string is ours, on the heap of malloc(3), and not used after this.
        unsafe { libc::free(self.0.as_ptr().cast()) };
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:?}", self.lossy())
    }
}

/// A value that we own. `Option<Owned<T>>` is laid out as a `T *`.
#[repr(transparent)]
pub struct Owned<T>(NonNull<T>);

impl<T> Owned<T> {
    /// Moves a value to the heap.
    pub fn new(value: T) -> Owned<T> {
        const { assert!(align_of::<T>() <= 16, "malloc(3) aligns to 16") };
        let memory = allocate(size_of::<T>(), "calloc").cast::<T>();
        // SAFETY: the memory has the size of a T, and malloc's alignment suffices.
        unsafe { memory.write(value) };
        Owned(memory)
    }

    /// The pointer, for C code that uses the value.
    pub fn as_ptr(&self) -> *mut T {
        self.0.as_ptr()
    }

    /// Hands the value over to C code.
    pub fn into_raw(self) -> *mut T {
        ManuallyDrop::new(self).0.as_ptr()
    }

    /// Takes over a value from C code; `None` for a null pointer.
    ///
    /// # Safety
    /// `raw` is null, or came from [`Self::into_raw`] or from malloc(3) with a valid value in it,
    /// and nobody else frees it.
    pub unsafe fn from_raw(raw: *mut T) -> Option<Owned<T>> {
        NonNull::new(raw).map(Owned)
    }
}

impl<T> Deref for Owned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the value is valid and ours.
        unsafe { self.0.as_ref() }
    }
}

impl<T> DerefMut for Owned<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the reference is the only one.
        unsafe { self.0.as_mut() }
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Owned<T> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(out)
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the value is ours, on the heap of malloc(3), and not used after this.
        unsafe {
            self.0.drop_in_place();
            libc::free(self.0.as_ptr().cast());
        }
    }
}
