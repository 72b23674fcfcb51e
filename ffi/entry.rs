//! The macro that defines entry points of the C ABI, and the types that their arguments can have.
//!
//! ```text
//! entry! {
//!     /// `char *av_get(av_ctx *, int)`: the value, good until the attribute changes; NULL if unset.
//!     #[otherwise(ptr::null_mut())]
//!     pub fn av_get(pairs: &mut Attributes, attribute: c_int) -> *mut c_char { … }
//! }
//! ```
//!
//! defines `av_get(av_ctx *, int)` as C code calls it. The type of an argument says what C passes,
//! and what is checked before the body runs ([`Argument`]): the body never sees a null pointer
//! where it asks for `&T`, `&mut T`, `&CStr` and the like. The entry returns `otherwise` if a check
//! fails, or if the body panics, as no panic may unwind into C. Without `otherwise` the entry
//! returns nothing.
//!
//! `pub fn` is exported under its name. `pub(in crate::ffi) fn` and `fn` are called by C code too,
//! but only through a pointer: from the table of the library's C half (`interface.rs`), or as a
//! callback.

use std::ffi::{c_char, CStr};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr::NonNull;

/// Runs an entry. A panic is a bug in this library and must not unwind into C: it is logged, and
/// the caller gets `otherwise`.
pub(crate) fn guard<T>(otherwise: T, entry: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(entry)).unwrap_or_else(|_| {
        let text = || "libmavis: internal error, please report it".to_owned();
        crate::os::log::braked(crate::os::log::Kind::Module, text);
        otherwise
    })
}

/// A type that an entry can take. C passes [`Raw`](Self::Raw).
pub trait Argument: Sized {
    /// As C passes it.
    type Raw;

    /// Converts the argument; `None` for a null pointer where the entry must not get one.
    ///
    /// # Safety
    /// The argument is as the C declaration of the entry says: a pointer is null, or valid for its
    /// target until the entry returns. Text ends with NUL. Nothing else uses memory that the entry
    /// changes until it returns.
    unsafe fn take(raw: Self::Raw) -> Option<Self>;
}

/// Passed to the body unchanged: numbers, and raw pointers, which the body checks itself.
macro_rules! as_they_are {
    ($([$($generic:ident)*] $type:ty;)*) => {$(
        impl<$($generic),*> Argument for $type {
            type Raw = $type;
            unsafe fn take(raw: $type) -> Option<$type> {
                Some(raw)
            }
        }
    )*};
}

as_they_are! {
    [] u8; [] u16; [] u32; [] u64; [] usize; [] i32; [] i64;
    [T] *const T; [T] *mut T;
}

/// A callback that must not be null.
macro_rules! functions {
    ($([$($argument:ident)*])*) => {$(
        impl<Result, $($argument),*> Argument for unsafe extern "C" fn($($argument),*) -> Result {
            type Raw = Option<Self>;
            unsafe fn take(raw: Option<Self>) -> Option<Self> {
                raw
            }
        }
    )*};
}

functions! { [A] [A B] [A B C] [A B C D] }

impl<T> Argument for &T {
    type Raw = *const T;
    unsafe fn take(raw: *const T) -> Option<Self> {
        // SAFETY: as the caller promises.
        unsafe { raw.as_ref() }
    }
}

impl<T> Argument for &mut T {
    type Raw = *mut T;
    unsafe fn take(raw: *mut T) -> Option<Self> {
        // SAFETY: as the caller promises.
        unsafe { raw.as_mut() }
    }
}

/// Not null; only the body dereferences it.
impl<T> Argument for NonNull<T> {
    type Raw = *mut T;
    unsafe fn take(raw: *mut T) -> Option<Self> {
        NonNull::new(raw)
    }
}

/// A text.
impl Argument for &CStr {
    type Raw = *const c_char;
    unsafe fn take(raw: *const c_char) -> Option<Self> {
        // SAFETY: as the caller promises.
        (!raw.is_null()).then(|| unsafe { CStr::from_ptr(raw) })
    }
}

/// A string without its NUL.
impl Argument for &[u8] {
    type Raw = *const c_char;
    unsafe fn take(raw: *const c_char) -> Option<Self> {
        // SAFETY: as the caller promises.
        unsafe { <&CStr>::take(raw) }.map(CStr::to_bytes)
    }
}

/// A string to be shown or logged: bytes that are not UTF-8 are replaced.
impl Argument for String {
    type Raw = *const c_char;
    unsafe fn take(raw: *const c_char) -> Option<Self> {
        // SAFETY: as the caller promises.
        unsafe { <&CStr>::take(raw) }.map(|text| text.to_string_lossy().into_owned())
    }
}

/// An optional argument: a null pointer is `None` in the body.
impl<T: Argument> Argument for Option<T> {
    type Raw = T::Raw;
    unsafe fn take(raw: T::Raw) -> Option<Self> {
        // SAFETY: as the caller promises.
        Some(unsafe { T::take(raw) })
    }
}

/// A value that is copied before the body runs, so that the result may be written to the same
/// place.
pub struct Copied<T>(pub T);

impl<T: Copy> Argument for Copied<T> {
    type Raw = *const T;
    unsafe fn take(raw: *const T) -> Option<Self> {
        // SAFETY: as the caller promises.
        unsafe { raw.as_ref() }.copied().map(Copied)
    }
}

/// A place for a result; nothing is written if C code passes a null pointer.
pub struct Out<T>(*mut T);

impl<T> Argument for Out<T> {
    type Raw = *mut T;
    unsafe fn take(raw: *mut T) -> Option<Self> {
        Some(Out(raw))
    }
}

impl<T> Out<T> {
    /// Writes the result.
    pub fn put(&self, value: T) {
        if !self.0.is_null() {
            // SAFETY: `take` was promised room for a value until the entry returns, and the body of
            // an entry does not keep its arguments.
            unsafe { self.0.write(value) };
        }
    }

    /// False if the caller passed a null pointer and does not want the result.
    pub fn is_wanted(&self) -> bool {
        !self.0.is_null()
    }
}

/// Defines entries: see the head of this file.
macro_rules! entry {
    () => {};
    (
        $(#[doc = $doc:expr])*
        $(#[otherwise($otherwise:expr)])?
        pub fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block
        $($rest:tt)*
    ) => {
        $(#[doc = $doc])*
        ///
        /// # Safety
        /// The arguments are as the C declaration says.
        #[no_mangle]
        pub unsafe extern "C" fn $name(
            $($argument: <$type as $crate::ffi::entry::Argument>::Raw),*
        ) $(-> $result)? {
            entry!(@body [$($otherwise)?] [$($argument: $type),*] $body)
        }
        entry! { $($rest)* }
    };
    (
        $(#[doc = $doc:expr])*
        $(#[otherwise($otherwise:expr)])?
        pub(in crate::ffi) fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block
        $($rest:tt)*
    ) => {
        $(#[doc = $doc])*
        ///
        /// # Safety
        /// The arguments are as the C declaration says.
        pub(in crate::ffi) unsafe extern "C" fn $name(
            $($argument: <$type as $crate::ffi::entry::Argument>::Raw),*
        ) $(-> $result)? {
            entry!(@body [$($otherwise)?] [$($argument: $type),*] $body)
        }
        entry! { $($rest)* }
    };
    (
        $(#[doc = $doc:expr])*
        $(#[otherwise($otherwise:expr)])?
        fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block
        $($rest:tt)*
    ) => {
        $(#[doc = $doc])*
        unsafe extern "C" fn $name(
            $($argument: <$type as $crate::ffi::entry::Argument>::Raw),*
        ) $(-> $result)? {
            entry!(@body [$($otherwise)?] [$($argument: $type),*] $body)
        }
        entry! { $($rest)* }
    };
    (@body [] $arguments:tt $body:block) => { entry!(@body [()] $arguments $body) };
    (@body [$otherwise:expr] [$($argument:ident: $type:ty),*] $body:block) => {
        $crate::ffi::entry::guard($otherwise, || {
            $(
                #[allow(unused_mut, reason = "only some bodies change theirs")]
                let Some(mut $argument) =
                    // SAFETY: the caller promises that arguments are as the C declaration says.
                    (unsafe { <$type as $crate::ffi::entry::Argument>::take($argument) })
                else {
                    return $otherwise;
                };
            )*
            $body
        })
    };
}
pub(crate) use entry;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::{Path, PathBuf};

    entry! {
        #[otherwise(-1)]
        fn length(text: &CStr, most: i32, result: Out<usize>) -> i32 {
            assert!(most > 0, "a bug of the library");
            result.put(text.to_bytes().len());
            0
        }

        fn count(number: &mut u32) {
            *number = number.checked_add(1).expect("a bug of the library");
        }
    }

    #[test]
    fn null_pointers_and_panics_are_answered() {
        let mut result = 7;
        let mut number = u32::MAX;
        // SAFETY: the pointers are null or to values of their type.
        unsafe {
            assert_eq!(length(std::ptr::null(), 1, &mut result), -1);
            assert_eq!(length(c"text".as_ptr(), 0, &mut result), -1);
            assert_eq!(result, 7);
            assert_eq!(length(c"text".as_ptr(), 1, std::ptr::null_mut()), 0);
            assert_eq!(length(c"text".as_ptr(), 1, &mut result), 0);
            assert_eq!(result, 4);
            count(std::ptr::null_mut());
            count(&mut number);
            assert_eq!(number, u32::MAX);
        }
    }

    fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    /// The exceptions, jumps to C functions and variables, have no body that could panic.
    #[test]
    fn functions_for_c_are_defined_with_the_macro() {
        let mut files = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("ffi"), &mut files);
        assert!(files.len() > 30);
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap();
            // A function type has a parenthesis here instead of a name.
            let defined = text
                .match_indices("extern \"C\" fn ")
                .filter(|(at, start)| !text[at + start.len()..].starts_with('('))
                .count();
            let exported = text.lines().filter(|line| line.trim() == "#[no_mangle]").count();
            let expected = match file.file_name().unwrap().to_str().unwrap() {
                "entry.rs" => (3, 1),
                "trampolines.rs" => (1, 1),
                "data.rs" => (0, 5),
                _ => (0, 0),
            };
            assert_eq!((defined, exported), expected, "{}", file.display());
        }
    }
}
