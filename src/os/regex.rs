//! Regular expressions: PCRE2 and POSIX.
//!
//! PCRE2 is called directly, because scripts need its numeric flags, and modules rely on the
//! library being loaded.

use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::ptr::{self, NonNull};

/// PCRE2_CASELESS | PCRE2_UTF
pub const PCRE_CASELESS_UTF: u32 = 0x0008_0008;
/// PCRE2_MULTILINE
const MULTILINE: u32 = 0x400;

#[link(name = "pcre2-8")]
extern "C" {
    fn pcre2_compile_8(
        pattern: *const u8,
        length: usize,
        options: u32,
        error: *mut c_int,
        offset: *mut usize,
        context: *mut c_void,
    ) -> *mut c_void;
    fn pcre2_code_free_8(code: *mut c_void);
    fn pcre2_get_error_message_8(error: c_int, buffer: *mut u8, length: usize) -> c_int;
    fn pcre2_match_data_create_from_pattern_8(
        code: *const c_void,
        context: *mut c_void,
    ) -> *mut c_void;
    fn pcre2_match_data_free_8(data: *mut c_void);
    fn pcre2_match_8(
        code: *const c_void,
        subject: *const u8,
        length: usize,
        start: usize,
        options: u32,
        data: *mut c_void,
        context: *mut c_void,
    ) -> c_int;
    fn pcre2_get_ovector_pointer_8(data: *mut c_void) -> *mut usize;
    fn pcre2_get_ovector_count_8(data: *mut c_void) -> u32;
}

/// The groups of a match: the whole match at 0, then one per pair of parentheses. `None` for a
/// group that took no part.
pub type Groups = Vec<Option<Vec<u8>>>;

/// A compiled PCRE2 expression.
#[derive(Debug)]
pub struct Pcre(NonNull<c_void>);

impl Pcre {
    /// Compiles `pattern` with `flags` and PCRE2_MULTILINE. The error is a message for the log.
    pub fn new(pattern: &[u8], flags: u32) -> Result<Pcre, String> {
        let (mut error, mut offset) = (0, 0);
        // SAFETY: pattern and length belong together; the two results outlive the call.
        let code = unsafe {
            pcre2_compile_8(
                pattern.as_ptr(),
                pattern.len(),
                flags | MULTILINE,
                &mut error,
                &mut offset,
                ptr::null_mut(),
            )
        };
        NonNull::new(code).map(Pcre).ok_or_else(|| {
            let text = String::from_utf8_lossy(pattern);
            format!("In PCRE2 expression /{text}/ at offset {offset}: {}", message(error))
        })
    }

    /// The groups of the first match in `subject`; `None` if nothing matches. A subject that is not
    /// valid UTF-8 never matches.
    pub fn find(&self, subject: &[u8]) -> Option<Groups> {
        // SAFETY: the code is compiled and lives; the match data is made for it and given back;
        // the vector has pairs of offsets into the subject, or two PCRE2_UNSET.
        unsafe {
            let data = NonNull::new(pcre2_match_data_create_from_pattern_8(
                self.0.as_ptr(),
                ptr::null_mut(),
            ))?
            .as_ptr();
            let (start, length) = (subject.as_ptr(), subject.len());
            let found =
                pcre2_match_8(self.0.as_ptr(), start, length, 0, 0, data, ptr::null_mut()) > 0;
            let groups = found.then(|| {
                let vector = pcre2_get_ovector_pointer_8(data);
                let count = pcre2_get_ovector_count_8(data) as usize;
                let pair = |index: usize| (*vector.add(2 * index), *vector.add(2 * index + 1));
                (0..count)
                    .map(pair)
                    .map(|(from, to)| Some(subject.get(from..to)?.to_vec()))
                    .collect()
            });
            pcre2_match_data_free_8(data);
            groups
        }
    }

    /// Hands the compiled expression over to C code, which frees it with pcre2_code_free(3).
    pub fn into_raw(self) -> *mut c_void {
        std::mem::ManuallyDrop::new(self).0.as_ptr()
    }
}

impl Drop for Pcre {
    fn drop(&mut self) {
        // SAFETY: the code is ours, and not used after this.
        unsafe { pcre2_code_free_8(self.0.as_ptr()) };
    }
}

fn message(error: c_int) -> String {
    let mut buffer = [0u8; 256];
    // SAFETY: the buffer is that long; the text in it ends with a NUL.
    unsafe { pcre2_get_error_message_8(error, buffer.as_mut_ptr(), buffer.len()) };
    let length = buffer.iter().position(|&byte| byte == 0).unwrap_or(buffer.len());
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

extern "C" {
    fn compat_regex_ignore_case() -> c_int;
    fn compat_regex_new(
        pattern: *const c_char,
        flags: c_int,
        error: *mut c_char,
        size: usize,
    ) -> *mut c_void;
    fn compat_regex_matches(regex: *const c_void, text: *const c_char) -> c_int;
    fn compat_regex_free(regex: *mut c_void);
}

/// REG_ICASE
pub fn posix_ignore_case() -> c_int {
    // SAFETY: the function returns a constant.
    unsafe { compat_regex_ignore_case() }
}

/// A compiled POSIX extended expression (regex(7)), on malloc(3)'s heap, because C code may take it
/// over.
#[derive(Debug)]
pub struct Posix(NonNull<c_void>);

impl Posix {
    /// Compiles `pattern` with `flags`, REG_EXTENDED, REG_NOSUB and REG_NEWLINE. The error is a
    /// message for the log.
    pub fn new(pattern: &[u8], flags: c_int) -> Result<Posix, String> {
        let text = CString::new(pattern).unwrap_or_default();
        let mut reason = [0; 256];
        // SAFETY: the pattern ends with a NUL; the buffer for the reason is that long, and zeroed.
        let (regex, reason) = unsafe {
            let regex = compat_regex_new(text.as_ptr(), flags, reason.as_mut_ptr(), reason.len());
            (regex, CStr::from_ptr(reason.as_ptr()))
        };
        NonNull::new(regex).map(Posix).ok_or_else(|| {
            let pattern = String::from_utf8_lossy(pattern);
            format!("In regular expression '{pattern}': {}", reason.to_string_lossy())
        })
    }

    /// True if the expression matches somewhere in `subject`.
    pub fn matches(&self, subject: &[u8]) -> bool {
        let Ok(text) = CString::new(subject) else {
            return false;
        };
        // SAFETY: the expression is compiled, and the text ends with a NUL.
        unsafe { compat_regex_matches(self.0.as_ptr(), text.as_ptr()) != 0 }
    }

    /// Hands the compiled expression over to C code, which frees it with regfree(3) and free(3).
    pub fn into_raw(self) -> *mut c_void {
        std::mem::ManuallyDrop::new(self).0.as_ptr()
    }
}

impl Drop for Posix {
    fn drop(&mut self) {
        // SAFETY: the expression is compiled and ours.
        unsafe { compat_regex_free(self.0.as_ptr()) };
    }
}
