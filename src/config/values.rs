//! Values: the right-hand side of a directive, with its checks.

use super::system::System;
use super::token::*;
use super::{ConfigError, Parser, Position};
use crate::os::log::Severity;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// Any 32-bit integer.
pub(super) const INT: RangeInclusive<i64> = i32::MIN as i64..=i32::MAX as i64;
/// A count, or seconds.
pub(super) const COUNT: RangeInclusive<i64> = 0..=i32::MAX as i64;

/// The words for true and false, in the order that messages list them.
pub(super) const BOOLEANS: [Code; 6] = [S_deny, S_false, S_no, S_permit, S_true, S_yes];

/// A value with its place, for errors found later.
#[derive(Clone, Debug)]
pub struct Value {
    /// The text of the token, whatever its class.
    pub text: String,
    /// Its place.
    pub position: Position,
}

impl Value {
    /// An error at this value.
    pub fn error(&self, message: impl Into<String>) -> ConfigError {
        ConfigError { position: self.position.clone(), message: message.into() }
    }
}

/// A user and group as configured: an id of 0 means "unchanged", as in the C program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// The user id.
    pub uid: Option<u32>,
    /// The group id: from `groupid`, or the primary group of a user given by name.
    pub gid: Option<u32>,
}

impl Parser<'_> {
    /// `Expected 'a', 'b' or 'c', but got 'x'`, the words in byte order.
    pub fn expected(&self, codes: &[Code]) -> ConfigError {
        self.expected_words(&codes.iter().map(|code| code.text()).collect::<Vec<_>>())
    }

    /// As [`Self::expected`], also for words that are not reserved.
    pub fn expected_words(&self, words: &[&str]) -> ConfigError {
        self.error(expected(words, self.text()))
    }

    /// Requires a token.
    pub fn check(&self, code: Code) -> Result<(), ConfigError> {
        if self.code() == code {
            return Ok(());
        }
        Err(self.expected(&[code]))
    }

    /// Requires a token and advances.
    pub fn expect(&mut self, code: Code) -> Result<(), ConfigError> {
        self.check(code)?;
        self.advance()
    }

    /// Skips the token `code` if it is current; true if it was.
    pub fn accept(&mut self, code: Code) -> Result<bool, ConfigError> {
        let there = self.code() == code;
        if there {
            self.advance()?;
        }
        Ok(there)
    }

    /// Takes any token as a value, by its text.
    pub fn value(&mut self) -> Result<Value, ConfigError> {
        let value = Value { text: self.text_lossy(), position: self.position() };
        self.advance()?;
        Ok(value)
    }

    /// `= VALUE`, with the keyword before it current.
    pub fn assigned(&mut self) -> Result<Value, ConfigError> {
        self.advance()?;
        self.expect(S_equal)?;
        self.value()
    }

    /// `= INTEGER` within bounds, with the keyword before it current.
    pub fn assigned_integer(&mut self, bounds: RangeInclusive<i64>) -> Result<i64, ConfigError> {
        self.advance()?;
        self.expect(S_equal)?;
        self.integer(bounds)
    }

    /// `= BOOLEAN`, with the keyword before it current.
    pub fn assigned_boolean(&mut self) -> Result<bool, ConfigError> {
        self.advance()?;
        self.expect(S_equal)?;
        self.boolean()
    }

    /// `yes true permit` or `no false deny`.
    pub fn boolean(&mut self) -> Result<bool, ConfigError> {
        let value = self.code().boolean().ok_or_else(|| self.expected(&BOOLEANS))?;
        self.advance()?;
        Ok(value)
    }

    /// A decimal or hexadecimal number, with an optional factor k, m or g, within bounds.
    pub fn integer(&mut self, bounds: RangeInclusive<i64>) -> Result<i64, ConfigError> {
        self.number("an integer", bounds)
    }

    /// As [`Self::integer`]; the message says "unsigned".
    pub fn unsigned(&mut self, bounds: RangeInclusive<i64>) -> Result<i64, ConfigError> {
        self.number("an unsigned integer", bounds)
    }

    fn number(&mut self, what: &str, bounds: RangeInclusive<i64>) -> Result<i64, ConfigError> {
        let text = self.text_lossy();
        let Some(number) = parse_integer(&text) else {
            return Err(self.error(format!("expected {what}, but got '{text}'")));
        };
        if !bounds.contains(&number) {
            let (low, high) = (bounds.start(), bounds.end());
            return Err(
                self.error(format!("expected {what} from {low} to {high}, but got '{text}'"))
            );
        }
        self.advance()?;
        Ok(number)
    }

    /// A number for other programs: 32 bits, which they may take as signed or unsigned. A larger
    /// number wraps, with a warning.
    pub fn wrapping_integer(&mut self, what: &str) -> Result<i32, ConfigError> {
        let text = self.text_lossy();
        let Some(number) = Number::scan(&text) else {
            return Err(self.error(format!("expected {what}, but got '{text}'")));
        };
        let wrapped = number.wrapped();
        let exact = number.exact();
        let fits = i128::from(i32::MIN)..=i128::from(u32::MAX);
        if exact.is_none_or(|exact| !fits.contains(&exact)) {
            let place = self.position();
            let text = format!("{place}: '{text}' has more than 32 bits, and counts as {wrapped}");
            self.message(Severity::WARNING, text);
        }
        self.advance()?;
        Ok(wrapped)
    }

    /// A number of seconds, with an optional s, m, h or d for seconds, minutes, hours and days.
    pub fn seconds(&mut self) -> Result<i32, ConfigError> {
        let text = self.text_lossy();
        let (digits, factor) = match text.as_bytes().last().map(u8::to_ascii_lowercase) {
            Some(b's') => (&text[..text.len() - 1], 1),
            Some(b'm') => (&text[..text.len() - 1], 60),
            Some(b'h') => (&text[..text.len() - 1], 3600),
            Some(b'd') => (&text[..text.len() - 1], 86400),
            _ => (&text[..], 1),
        };
        let seconds = digits.parse::<i32>().ok().and_then(|number| number.checked_mul(factor));
        let Some(seconds) = seconds else {
            return Err(self.error(format!("expected a time interval, but got '{text}'")));
        };
        self.advance()?;
        Ok(seconds)
    }

    /// An octal number.
    pub fn octal(&mut self) -> Result<u32, ConfigError> {
        let text = self.text_lossy();
        let Some(number) = u32::from_str_radix(&text, 8).ok().filter(|&mode| mode <= 0o7777) else {
            return Err(self.error(format!("expected an octal number, but got '{text}'")));
        };
        self.advance()?;
        Ok(number)
    }

    /// `userid = NAME | NUMBER`, with the keyword current. A name sets the group as well.
    pub fn user_id(&mut self, ids: &mut Ids) -> Result<(), ConfigError> {
        self.advance()?;
        self.expect(S_equal)?;
        if self.text().first().is_some_and(u8::is_ascii_digit) {
            ids.uid = nonzero(self.integer(0..=i64::from(u32::MAX))?);
            return Ok(());
        }
        let name = self.text_lossy();
        let Some((uid, gid)) = self.system().user(&name) else {
            return Err(self.error(format!("UNIX user '{name}' not found.")));
        };
        (ids.uid, ids.gid) = (nonzero(uid.into()), nonzero(gid.into()));
        self.advance()
    }

    /// `groupid = NAME | NUMBER`, with the keyword current.
    pub fn group_id(&mut self, ids: &mut Ids) -> Result<(), ConfigError> {
        self.advance()?;
        self.expect(S_equal)?;
        if self.text().first().is_some_and(u8::is_ascii_digit) {
            ids.gid = nonzero(self.integer(0..=i64::from(u32::MAX))?);
            return Ok(());
        }
        let name = self.text_lossy();
        let Some(gid) = self.system().group(&name) else {
            return Err(self.error(format!("UNIX group '{name}' not found.")));
        };
        ids.gid = nonzero(gid.into());
        self.advance()
    }
}

/// `Expected 'a', 'b' or 'c', but got 'x'`, the words in byte order.
pub(super) fn expected(words: &[&str], got: &[u8]) -> String {
    let words: BTreeSet<&str> = words.iter().copied().collect();
    let count = words.len();
    let mut list = String::new();
    for (index, word) in words.iter().enumerate() {
        let separator = match index {
            0 => "",
            _ if index + 1 == count => " or ",
            _ => ", ",
        };
        list += &format!("{separator}'{word}'");
    }
    format!("Expected {list}, but got '{}'", String::from_utf8_lossy(got))
}

fn nonzero(id: i64) -> Option<u32> {
    u32::try_from(id).ok().filter(|&id| id != 0)
}

/// The integers of the language: white space, sign, `0x` for hexadecimal (no octal), then
/// optionally k, m or g for 1024, 1024² and 1024³; the rest of the word is ignored.
struct Number {
    negative: bool,
    /// The number before the factor; `None` if it needs more than 64 bits.
    magnitude: Option<u64>,
    factor: i32,
}

impl Number {
    fn scan(text: &str) -> Option<Number> {
        let text = text.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
        let (negative, text) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let (digits, radix) = match text.get(..2) {
            Some("0x" | "0X") => (&text[2..], 16),
            _ => (text, 10),
        };
        let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
        if end == 0 {
            return None;
        }
        let magnitude = u64::from_str_radix(&digits[..end], radix).ok();
        let factor = match digits[end..].chars().next() {
            None => 1,
            Some('k' | 'K') => 1 << 10,
            Some('m' | 'M') => 1 << 20,
            Some('g' | 'G') => 1 << 30,
            Some(_) => return None,
        };
        Some(Number { negative, magnitude, factor })
    }

    /// The exact number; `None` if the digits need more than 64 bits.
    fn exact(&self) -> Option<i128> {
        let magnitude = i128::from(self.magnitude?) * i128::from(self.factor);
        Some(if self.negative { -magnitude } else { magnitude })
    }

    /// Its lowest 32 bits, as C code gets them from scanf(3), which clamps to a 64-bit long, and a
    /// shift.
    fn wrapped(&self) -> i32 {
        let magnitude = i128::from(self.magnitude.unwrap_or(u64::MAX));
        let signed = if self.negative { -magnitude } else { magnitude };
        let full = signed.clamp(i64::MIN.into(), i64::MAX.into());
        (full as i32).wrapping_mul(self.factor)
    }
}

/// A number in our own directives; `None` if it is not a number, or too large.
fn parse_integer(text: &str) -> Option<i64> {
    let exact = i64::try_from(Number::scan(text)?.exact()?).ok()?;
    // The C type is a 32-bit int; a number that does not fit is refused instead of wrapped.
    (exact <= i64::from(u32::MAX)).then_some(exact)
}

/// A port: a decimal number from 0 to 65535, or the name of a service.
pub fn parse_port(value: &Value, system: &dyn System) -> Result<u16, ConfigError> {
    let text = without_comment(&value.text);
    let port = if text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+') {
        text.parse().ok()
    } else {
        system.service(text)
    };
    port.ok_or_else(|| {
        value.error(format!("Expected an service or port, but got '{}'", value.text))
    })
}

/// A port, or a range such as `5000-5099`. A service's name may contain a dash.
pub fn parse_ports(value: &Value, system: &dyn System) -> Result<RangeInclusive<u16>, ConfigError> {
    let number = |text: &str| -> Option<u16> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    };
    let ends = without_comment(&value.text).split_once('-');
    let Some((first, last)) = ends.and_then(|(a, b)| Some((number(a)?, number(b)?))) else {
        return parse_port(value, system).map(|port| port..=port);
    };
    if first == 0 || first > last {
        let text = &value.text;
        return Err(value.error(format!(
            "Expected a range of ports such as 5000-5099, the lower one first, but got '{text}'"
        )));
    }
    Ok(first..=last)
}

/// Drops the comment of `3001#comment`: to the lexer, a hash inside a word is part of it.
fn without_comment(text: &str) -> &str {
    text.split_once('#').map_or(text, |(number, _)| number)
}

#[cfg(test)]
mod tests {
    use super::{parse_integer, Number};
    use proptest::prelude::*;

    #[test]
    fn integers() {
        for (text, expected) in [
            ("5", Some(5)),
            ("+5", Some(5)),
            ("-5", Some(-5)),
            (" 7", Some(7)),
            ("010", Some(10)),
            ("0x10", Some(16)),
            ("0x7k", Some(7168)),
            ("2k", Some(2048)),
            ("1kb", Some(1024)),
            ("5k5", Some(5120)),
            ("5m", Some(5 << 20)),
            ("1G", Some(1 << 30)),
            ("", None),
            ("0x", None),
            ("0xzz", None),
            ("7t", None),
            ("1.5", None),
            ("--5", None),
            ("99999999999", None),
            ("8g", None),
        ] {
            assert_eq!(parse_integer(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_does_not_fit_wraps() {
        for (text, expected) in [
            ("4294967295", -1),
            ("0xffffffff", -1),
            ("-1", -1),
            ("99999999999", 1_215_752_191),
            ("8g", 0),
            ("3g", -1_073_741_824),
            ("99999999999999999999999", -1),
            ("-99999999999999999999999", 0),
        ] {
            assert_eq!(Number::scan(text).map(|number| number.wrapped()), Some(expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = parse_integer(&text);
        }

        #[test]
        fn decimal_round_trips(number in any::<i32>()) {
            prop_assert_eq!(parse_integer(&number.to_string()), Some(number.into()));
        }
    }
}
