//! Attribute-value pairs: the contents of queries and answers.
//!
//! The layout is that of `av_ctx`, which modules read and write. The wire format has a line per
//! attribute, `INDEX VALUE`; a line feed in a value is sent as a carriage return.

use crate::config::token::Code;
use crate::library::blowfish::{encrypted_length, Key};
use crate::library::md::Md5;
use crate::os::malloc::Text;
use std::ffi::c_void;
use std::ptr;

include!(concat!(env!("OUT_DIR"), "/attributes.rs"));

/// How many attributes there are.
pub const COUNT: usize = NAMES.len();

/// Values of TYPE, TACTYPE and RESULT.
pub mod value {
    /// TYPE of queries of the TACACS+ family.
    pub const TACPLUS: &[u8] = b"TACPLUS";
    /// TYPE of FTP log-ins.
    pub const FTP: &[u8] = b"FTP";
    /// TYPE of the request to log statistics.
    pub const LOGSTATS: &[u8] = b"PRIV_LOGSTATS";
    /// TACTYPE of the question whether an address may connect.
    pub const HOST: &[u8] = b"HOST";
    /// RESULT: yes.
    pub const ACK: &[u8] = b"ACK";
    /// RESULT: no.
    pub const NAK: &[u8] = b"NAK";
    /// RESULT: the backend has failed.
    pub const ERR: &[u8] = b"ERR";
    /// RESULT: not found.
    pub const NFD: &[u8] = b"NFD";
}

/// The attributes that stay in answers that are kept: see [`Attributes::clear_private`].
const PUBLIC: [usize; 20] = [
    PATH,
    UID,
    GID,
    HOME,
    ROOT,
    SHELL,
    GIDS,
    MEMBEROF,
    DN,
    IDENTITY_SOURCE,
    SSHKEYHASH,
    SSHKEY,
    SSHKEYID,
    ARGS,
    RARGS,
    VERDICT,
    CUSTOM_0,
    CUSTOM_1,
    CUSTOM_2,
    CUSTOM_3,
];

/// `av_ctx`: the values by attribute, and a callback for when there is an answer.
#[repr(C)]
#[derive(Debug)]
pub struct Attributes {
    values: [Option<Text>; COUNT],
    /// Called with [`context`](Self::context) when a deferred answer can be fetched.
    pub callback: *mut c_void,
    /// The query's name, chosen by its owner.
    pub context: *mut c_void,
}

impl Default for Attributes {
    fn default() -> Attributes {
        Attributes {
            values: [const { None }; COUNT],
            callback: ptr::null_mut(),
            context: ptr::null_mut(),
        }
    }
}

impl Attributes {
    /// The value of an attribute; `None` if it is unset or there is no such attribute.
    pub fn get(&self, attribute: usize) -> Option<&[u8]> {
        self.text(attribute).map(Text::bytes)
    }

    /// As [`get`](Self::get), but as the [`Text`] itself, which C code can keep a pointer to.
    pub fn text(&self, attribute: usize) -> Option<&Text> {
        self.values.get(attribute)?.as_ref()
    }

    /// The value of an attribute, to be changed in place.
    pub fn get_mut(&mut self, attribute: usize) -> Option<&mut [u8]> {
        self.values.get_mut(attribute)?.as_mut().map(Text::bytes_mut)
    }

    /// Sets an attribute; an unknown one is ignored.
    pub fn set(&mut self, attribute: usize, value: &[u8]) {
        if let Some(slot) = self.values.get_mut(attribute) {
            // Copy first: the value may be part of the old one, which is dropped below.
            let new = Text::new(value);
            *slot = Some(new);
        }
    }

    /// Unsets an attribute.
    pub fn unset(&mut self, attribute: usize) {
        if let Some(slot) = self.values.get_mut(attribute) {
            *slot = None;
        }
    }

    /// Appends to an attribute, after `separator` if it was set.
    pub fn add(&mut self, attribute: usize, separator: &[u8], value: &[u8]) {
        match self.get(attribute) {
            Some(old) => self.set(attribute, &[old, separator, value].concat()),
            None => self.set(attribute, value),
        }
    }

    /// True if an attribute has this value.
    pub fn is(&self, attribute: usize, value: &[u8]) -> bool {
        self.get(attribute) == Some(value)
    }

    /// Unsets all attributes.
    pub fn clear(&mut self) {
        self.values = [const { None }; COUNT];
    }

    /// Unsets the attributes that must not outlive their query; those of a user's profile stay.
    pub fn clear_private(&mut self) {
        for (attribute, slot) in self.values.iter_mut().enumerate() {
            if !PUBLIC.contains(&attribute) {
                *slot = None;
            }
        }
    }

    /// Moves the values of `other` here, which leaves it empty. The callback stays.
    pub fn take_values(&mut self, other: &mut Attributes) {
        self.clear();
        std::mem::swap(&mut self.values, &mut other.values);
    }

    /// Copies the values of `other`. The callback stays.
    pub fn copy_values(&mut self, other: &Attributes) {
        self.values = other.values.clone();
    }

    /// Copies those values of `other` that are unset here.
    pub fn merge_values(&mut self, other: &Attributes) {
        for (slot, value) in self.values.iter_mut().zip(&other.values) {
            if slot.is_none() {
                slot.clone_from(value);
            }
        }
    }

    /// The attributes that are set, in order of their indices.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let set = self.values.iter().enumerate();
        set.filter_map(|(attribute, value)| Some((attribute, value.as_ref()?.bytes())))
    }

    /// The text of av_dump: a line for each attribute, with the name in twenty columns.
    pub fn dump(&self) -> Vec<u8> {
        let mut text = b"attribute-value-pairs:\n".to_vec();
        for (attribute, value) in self.iter() {
            text.extend_from_slice(format!("{:<20}", NAMES[attribute].0).as_bytes());
            text.extend_from_slice(value);
            text.push(b'\n');
        }
        text.push(b'\n');
        text
    }

    /// Sets SERIAL, which identifies a query in progress, to a digest of all values, unless it is
    /// set.
    pub fn add_serial(&mut self) {
        if self.get(SERIAL).is_none() {
            let mut digest = Md5::default();
            for (_, value) in self.iter() {
                digest.update(value);
            }
            let serial = crate::library::base64::encode(&digest.finish());
            self.set(SERIAL, &serial);
        }
    }

    /// The wire format as a datagram. If there is a key, a NUL is appended and it is encrypted.
    /// `None` if it is too long.
    pub fn datagram(&self, key: Option<&Key>) -> Option<Vec<u8>> {
        /// BUFSIZE_MAVIS
        const LONGEST: usize = 65535;
        let mut text = self.encode(|_| true);
        if text.len() >= LONGEST {
            return None;
        }
        if let Some(key) = key {
            text.push(0);
            text.resize(encrypted_length(text.len()), 0);
            key.encrypt(&mut text);
        }
        Some(text)
    }

    /// The wire format of the attributes that `wanted` selects.
    pub fn encode(&self, wanted: impl Fn(usize) -> bool) -> Vec<u8> {
        let mut text = Vec::new();
        for (attribute, value) in self.iter().filter(|&(attribute, _)| wanted(attribute)) {
            text.extend_from_slice(format!("{attribute} ").as_bytes());
            let start = text.len();
            text.extend_from_slice(value);
            replace(&mut text[start..], b'\n', b'\r');
            text.push(b'\n');
        }
        text
    }

    /// Sets the attributes in `text`, in wire format, that `wanted` selects. Later lines win;
    /// malformed lines and unknown attributes are ignored.
    pub fn decode(&mut self, text: &[u8], wanted: impl Fn(usize) -> bool) {
        let mut rest = text;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            rest = after;
            let Some(space) = memchr::memchr(b' ', line).filter(|&space| space > 0) else {
                continue;
            };
            if let Some(attribute) = leading_number(&line[..space]).filter(|&a| wanted(a)) {
                let mut value = line[space + 1..].to_vec();
                replace(&mut value, b'\r', b'\n');
                self.set(attribute, &value);
            }
        }
    }
}

fn replace(text: &mut [u8], from: u8, to: u8) {
    text.iter_mut().filter(|byte| **byte == from).for_each(|byte| *byte = to);
}

/// The attribute whose number a word begins with, read as by `%d` of scanf(3): white space and a
/// sign may precede the digits, and anything may follow them.
fn leading_number(word: &[u8]) -> Option<usize> {
    let blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'\x0b';
    let word = &word[word.iter().take_while(|byte| blank(byte)).count()..];
    let (negative, word) = match word {
        [b'+', rest @ ..] => (false, rest),
        [b'-', rest @ ..] => (true, rest),
        _ => (false, word),
    };
    let digits = &word[..word.iter().take_while(|byte| byte.is_ascii_digit()).count()];
    if digits.is_empty() {
        return None;
    }
    let number = digits.iter().fold(0usize, |number, digit| {
        number.saturating_mul(10).saturating_add(usize::from(digit - b'0'))
    });
    (number < COUNT && !(negative && number > 0)).then_some(number)
}

/// The attribute with this name, in any case, or with this text as its token.
pub fn by_name(name: &[u8]) -> Option<usize> {
    let token = |number: u32| Code(number).text().as_bytes();
    NAMES.iter().position(|&(known, number)| {
        known.as_bytes().eq_ignore_ascii_case(name) || (number != 0 && token(number) == name)
    })
}

/// The attribute of a token: by its number, or by its text, which may begin with `$`.
pub fn by_token(code: Code, text: &[u8]) -> Option<usize> {
    let by_number = NAMES.iter().position(|&(_, number)| number != 0 && number == code.0);
    by_number.or_else(|| by_name(text.strip_prefix(b"$").unwrap_or(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(pairs: &[(usize, &str)]) -> Attributes {
        let mut attributes = Attributes::default();
        for (attribute, value) in pairs {
            attributes.set(*attribute, value.as_bytes());
        }
        attributes
    }

    #[test]
    fn layout_is_that_of_av_ctx() {
        assert_eq!(size_of::<Attributes>(), (COUNT + 2) * size_of::<usize>());
        assert_eq!(std::mem::offset_of!(Attributes, callback), COUNT * size_of::<usize>());
        assert_eq!(COUNT, 56);
    }

    #[test]
    fn names_and_tokens() {
        assert_eq!(by_name(b"user"), Some(USER));
        assert_eq!(by_name(b"ssh-key"), Some(12));
        assert_eq!(by_name(b"type"), Some(TYPE));
        assert_eq!(by_name(b"PASSWDNEW"), Some(50));
        assert_eq!(by_name(b"nonsense"), None);
        assert_eq!(by_token(Code(0), b"$user"), Some(USER));
    }

    #[test]
    fn serials_are_those_of_the_c_library() {
        let host = |user, realm: Option<&str>| {
            let mut query = pairs(&[(TYPE, "TACPLUS"), (USER, user), (TACTYPE, "HOST")]);
            if let Some(realm) = realm {
                query.set(REALM, realm.as_bytes());
            }
            query.add_serial();
            String::from_utf8(query.get(SERIAL).unwrap().to_vec()).unwrap()
        };
        assert_eq!(host("192.0.2.10", Some("default")), "tVTicCAiZKoBOkXDUP0ckg=");
        assert_eq!(host("198.51.100.7", Some("default")), "8YuKL+b+MOy3oHqJKl9Ncw=");
        assert_eq!(host("2001:db8::1", Some("default")), "X7HIe1IDVeyQq1GYfGouqA=");
        assert_eq!(host("joe", None), "hQVI+m6BYyXh95QmOHk2Zw=");
    }

    #[test]
    fn lines_that_are_none_are_ignored() {
        let mut got = Attributes::default();
        got.decode(b"0 A\nnonsense\n 4 x\n-1 x\n56 x\n7abc seven\n8 \n9 a\rb\n0 B\n4 cut", |_| {
            true
        });
        assert_eq!(got.get(TYPE), Some(&b"B"[..]));
        assert_eq!(got.get(7), Some(&b"seven"[..]));
        assert_eq!(got.get(8), Some(&b""[..]));
        assert_eq!(got.get(9), Some(&b"a\nb"[..]));
        assert_eq!(got.iter().count(), 4);
    }

    /// Text that a script prints by mistake must not become the query's TYPE, which is attribute 0.
    #[test]
    fn text_without_a_number_sets_no_attribute() {
        let mut got = pairs(&[(TYPE, "TACPLUS")]);
        let text = b"debug: got a query\n\n+ x\n- x\n\xff\xfe x\n-1 x\n18446744073709551616 x\n";
        got.decode(text, |_| true);
        assert!(got.iter().eq([(TYPE, value::TACPLUS)]));
        got.decode(b"\t\x0b+3 a\n-0 b\n", |_| true);
        assert!(got.iter().eq([(TYPE, &b"b"[..]), (3, &b"a"[..])]));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            values in prop::collection::btree_map(0..COUNT, "[^\0\r]{0,40}", 0..20)
        ) {
            let mut sent = Attributes::default();
            values.iter().for_each(|(attribute, value)| sent.set(*attribute, value.as_bytes()));
            let mut got = Attributes::default();
            got.decode(&sent.encode(|_| true), |_| true);
            prop_assert!(sent.iter().eq(got.iter()));
        }

        #[test]
        fn any_bytes_are_taken(text in prop::collection::vec(any::<u8>(), 0..200)) {
            Attributes::default().decode(&text, |_| true);
        }
    }
}
