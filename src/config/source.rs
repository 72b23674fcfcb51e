//! A configuration text with its name.

use std::ffi::CString;

/// A configuration text with its name.
#[derive(Debug)]
pub struct Source {
    /// The name as given on the command line or produced by an include.
    pub name: String,
    /// The name for C readers.
    pub(super) c_name: CString,
    /// The bytes.
    pub text: Vec<u8>,
}

impl Source {
    /// A source from text in memory. Drops the byte order mark that some editors write.
    pub fn new(name: &str, mut text: Vec<u8>) -> Source {
        if text.starts_with(b"\xef\xbb\xbf") {
            text.drain(..3);
        }
        Source { name: name.to_owned(), c_name: CString::new(name).unwrap_or_default(), text }
    }
}
