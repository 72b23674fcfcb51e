//! The reserved words. Numbers and texts are those of the C program, because modules are compiled
//! with the numbers. The table is data (`ffi/tokens.tsv`) and cannot grow; the words of newer
//! directives are strings, matched by their text.

#![allow(non_upper_case_globals)]

use std::fmt;
use std::sync::OnceLock;

/// A token number. Strings are [`S_string`], the end of input is [`S_eof`].
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u32);

include!(concat!(env!("OUT_DIR"), "/tokens.rs"));

impl Code {
    /// The text of the word.
    pub fn text(self) -> &'static str {
        TEXT.get(self.0 as usize).copied().unwrap_or("<unknown>")
    }

    /// The word as a yes or no, if it is one.
    pub fn boolean(self) -> Option<bool> {
        match self {
            S_yes | S_true | S_permit => Some(true),
            S_no | S_false | S_deny => Some(false),
            _ => None,
        }
    }

    /// The number of a word, [`S_string`] if it is not reserved. Case matters.
    pub fn of(word: &[u8]) -> Code {
        static SORTED: OnceLock<Vec<(&'static [u8], Code)>> = OnceLock::new();
        let sorted = SORTED.get_or_init(|| {
            // The first entry stands for "unknown" and is not a word. Neither is the last, which
            // has no text.
            let words = TEXT.iter().enumerate().skip(1).filter(|(_, text)| !text.is_empty());
            let mut sorted: Vec<_> =
                words.map(|(number, text)| (text.as_bytes(), Code(number as u32))).collect();
            sorted.sort_unstable();
            sorted
        });
        match sorted.binary_search_by_key(&word, |&(text, _)| text) {
            Ok(index) => sorted[index].1,
            Err(_) => S_string,
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}[{}]", self.text(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_but_the_first_has_its_own_number() {
        assert_eq!(TEXT.len(), 542);
        assert_eq!(Code::of(b"<unknown>"), S_string);
        assert_eq!(Code::of(b""), S_string);
        for (number, text) in TEXT.iter().enumerate().take(541).skip(1) {
            assert_eq!(Code::of(text.as_bytes()).0 as usize, number, "{text}");
        }
        assert_eq!(Code::of(b"Remote"), S_string);
    }
}
