//! Directives allowed in every section and at the top level.

use super::effect::{Effect, Target};
use super::rules::{UnknownNames, DEBUG_PARSE};
use super::token::*;
use super::values::{expected, Value, COUNT, INT};
use super::{ConfigError, Parser};
use crate::os::log::{Facility, Format, Severity};
use std::path::PathBuf;

/// The words of the top level, as messages list them.
pub(super) const TOP_LEVEL: [Code; 9] =
    [S_alias, S_cleanup, S_debug, S_debug_cmd, S_gcore, S_id, S_proctitle, S_syslog, S_trace];

/// Settings of the common directives. Their side effects are recorded as [`Effect`]s.
#[derive(Clone, Debug, Default)]
pub struct Common {
    /// `coredump directory`.
    pub core_directory: Option<PathBuf>,
    /// `gcore`.
    pub core_command: Option<String>,
    /// `debug-cmd`.
    pub debug_command: Option<String>,
    /// `log`.
    pub log: Option<Target>,
    /// `log format`.
    pub log_format: Format,
    /// `proctitle`, used by C programs only.
    pub process_title: Option<String>,
}

/// The words of [`parse_top`], as messages list them.
pub const SHARED: [Code; 10] = [
    S_alias,
    S_cleanup,
    S_coredump,
    S_debug,
    S_debug_cmd,
    S_gcore,
    S_proctitle,
    S_setenv,
    S_syslog,
    S_trace,
];

/// Names and bits of the debug flags. Bits without a name can be set by number.
const DEBUG_FLAGS: [(&str, u32); 25] = [
    ("PARSE", DEBUG_PARSE),
    ("AUTHOR", 0x2),
    ("AUTHEN", 0x4),
    ("ACCT", 0x8),
    ("CONFIG", 0x10),
    ("PACKET", 0x20),
    ("HEX", 0x40),
    ("LOCK", 0x80),
    ("REGEX", 0x100),
    ("ACL", 0x200),
    ("RADIUS", 0x400),
    ("CMD", 0x800),
    ("BUFFER", 0x1000),
    ("PROC", 0x2000),
    ("NET", 0x4000),
    ("PATH", 0x8000),
    ("CONTROL", 0x10000),
    ("INDEX", 0x20000),
    ("AV", 0x40000),
    ("MAVIS", 0x80000),
    ("DNS", 0x100000),
    ("LWRES", 0x100000),
    ("USERINPUT", 0x200000),
    ("ALL", DEBUG_ALL),
    ("NONE", DEBUG_NONE),
];

/// Every bit except NONE, USERINPUT and TACTRACE.
pub const DEBUG_ALL: u32 = 0x7f9f_ffff;
const DEBUG_NONE: u32 = 0x8000_0000;

/// The bits that `-d` may set.
pub fn known_debug_bits(level: i64) -> u32 {
    (level as u32) & (DEBUG_ALL | 0x20_0000)
}

/// Parses a directive that is allowed in every section; false if the current token begins none.
pub fn parse_shared(parser: &mut Parser<'_>) -> Result<bool, ConfigError> {
    match parser.code() {
        S_debug | S_trace => debug(parser)?,
        S_syslog => syslog(parser)?,
        S_proctitle => parser.common.process_title = Some(parser.assigned()?.text),
        S_coredump => {
            parser.advance()?;
            parser.expect(S_directory)?;
            parser.expect(S_equal)?;
            parser.common.core_directory = Some(parser.value()?.text.into());
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Parses a directive of the top level; false if the current token begins none.
pub fn parse_top(parser: &mut Parser<'_>) -> Result<bool, ConfigError> {
    match parser.code() {
        S_alias => parser.define_alias()?,
        S_setenv => {
            parser.advance()?;
            let name = variable_name(parser)?;
            parser.advance()?;
            parser.accept(S_equal)?;
            // Before the next token is read, which may use the variable.
            let value = parser.text_lossy();
            parser.set_variable(name, Some(value));
            parser.advance()?;
        }
        S_gcore => parser.common.core_command = Some(parser.assigned()?.text),
        S_debug_cmd => parser.common.debug_command = Some(parser.assigned()?.text),
        S_cleanup => {
            parser.advance()?;
            parser.expect(S_interval)?;
            parser.expect(S_equal)?;
            let seconds = parser.integer(INT)? as u64;
            parser.note(Effect::CleanupInterval(seconds));
        }
        _ if parser.is_word("log") => log(parser)?,
        _ if parser.is_word("unsetenv") => return unset_variable(parser),
        _ => return parse_shared(parser),
    }
    Ok(true)
}

/// `log = syslog | stderr | file PATH`, `log format = text | json`; at the top level and in the
/// broker's section.
pub(super) fn log(parser: &mut Parser<'_>) -> Result<(), ConfigError> {
    parser.advance()?;
    if parser.is_word("format") {
        let value = parser.assigned()?;
        parser.common.log_format = match value.text.as_str() {
            "text" => Format::Text,
            "json" => Format::Json,
            got => return Err(value.error(expected(&["json", "text"], got.as_bytes()))),
        };
        return Ok(());
    }
    if parser.code() != S_equal {
        return Err(parser.expected_words(&["=", "format"]));
    }
    parser.advance()?;
    let value = parser.value()?;
    parser.common.log = Some(match value.text.as_str() {
        "syslog" => Target::Syslog,
        "stderr" => Target::StandardError,
        "file" => {
            let path = parser.value()?;
            if !path.text.starts_with('/') {
                let text = format!("Expected an absolute path, but got '{}'", path.text);
                return Err(path.error(text));
            }
            Target::File(path.text, path.position)
        }
        got => return Err(value.error(expected(&["file", "stderr", "syslog"], got.as_bytes()))),
    });
    Ok(())
}

/// `unsetenv = NAME`. The C program has no such directive and refuses `unsetenv NAME`. That stays
/// refused: only the form with the equals sign is new.
fn unset_variable(parser: &mut Parser<'_>) -> Result<bool, ConfigError> {
    let refused = parser.expected(&TOP_LEVEL);
    parser.advance()?;
    if parser.code() != S_equal {
        return Err(refused);
    }
    parser.advance()?;
    let name = variable_name(parser)?;
    parser.set_variable(name, None);
    parser.advance()?;
    Ok(true)
}

/// The current token as the name of a variable.
fn variable_name(parser: &Parser<'_>) -> Result<String, ConfigError> {
    let name = parser.text_lossy();
    if name.is_empty() || name.contains('=') {
        return Err(parser.error(format!("Expected the name of a variable, but got '{name}'")));
    }
    Ok(name)
}

fn debug(parser: &mut Parser<'_>) -> Result<(), ConfigError> {
    parser.advance()?;
    if parser.accept(S_redirect)? {
        parser.expect(S_equal)?;
        let target = parser.value()?;
        let target = match target.text.as_str() {
            "syslog" => Target::Syslog,
            "stderr" | "/dev/stderr" => Target::StandardError,
            // With -P, errors must stay where the user sees them.
            _ if parser.rules.parse_only => return Ok(()),
            _ => Target::File(target.text, target.position),
        };
        parser.note(Effect::DebugTo(target));
        return Ok(());
    }
    if parser.code() != S_equal {
        return Err(parser.expected(&[S_equal, S_redirect]));
    }
    parser.advance()?;
    let before = parser.debug();
    debug_flags(parser, before, |parser, mask| {
        parser.set_debug(mask);
        parser.note(Effect::Debug(mask));
    })
}

/// Applies flags to a mask, up to the first word that is not a flag. Each takes effect before the
/// next word is read, because it may be PARSE, which traces that word.
pub fn debug_flags(
    parser: &mut Parser<'_>,
    mut mask: u32,
    mut apply: impl FnMut(&mut Parser<'_>, u32),
) -> Result<(), ConfigError> {
    loop {
        let word = parser.text_lossy();
        let digits = word.strip_prefix('-').unwrap_or(&word);
        if digits.starts_with(|c: char| c.is_ascii_digit()) {
            mask = (mask | parser.wrapping_integer("an integer")? as u32) & DEBUG_ALL;
            apply(parser, mask);
        } else if let Some(changed) = debug_flag(mask, &word) {
            mask = changed;
            apply(parser, mask);
            parser.advance()?;
        } else {
            break;
        }
    }
    // As in the C library: if a reserved word ends the list, NONE is cleared when another flag is
    // set.
    if mask & !DEBUG_NONE != 0 && ![S_string, S_eof].contains(&parser.code()) {
        apply(parser, mask & !DEBUG_NONE);
    }
    Ok(())
}

/// Applies one flag to a mask; `None` if the word is not a flag.
fn debug_flag(mask: u32, word: &str) -> Option<u32> {
    let (negative, name) = match word.as_bytes().first()? {
        b'-' => (true, &word[1..]),
        b'+' => (false, &word[1..]),
        _ => (false, word),
    };
    let &(_, bit) = DEBUG_FLAGS.iter().find(|(known, _)| *known == name)?;
    Some(match (bit, negative) {
        (DEBUG_NONE, false) => DEBUG_NONE,
        (DEBUG_NONE, true) => DEBUG_ALL,
        (bit, false) => mask | bit,
        (bit, true) => mask & !bit,
    })
}

/// The severity or facility found for a name. An unknown name is a mistake or only a warning,
/// depending on the rules.
fn known<T>(
    parser: &mut Parser<'_>,
    name: &Value,
    what: &str,
    found: Option<T>,
) -> Result<Option<T>, ConfigError> {
    if found.is_none() {
        let error = name.error(format!("Expected a syslog {what}, but got '{}'", name.text));
        match parser.rules.unknown_names {
            UnknownNames::Refused => return Err(error),
            UnknownNames::Ignored => {
                let text = format!("{error}, which is ignored");
                parser.message(Severity::WARNING, text);
            }
        }
    }
    Ok(found)
}

fn syslog(parser: &mut Parser<'_>) -> Result<(), ConfigError> {
    parser.advance()?;
    match parser.code() {
        S_ident => {
            let ident = parser.assigned()?.text;
            parser.note(Effect::Ident(ident));
        }
        S_severity | S_level => {
            let name = parser.assigned()?;
            let severity = Severity::parse(&name.text);
            if let Some(severity) = known(parser, &name, "severity", severity)? {
                parser.note(Effect::Severity(severity));
            }
        }
        S_facility => {
            let name = parser.assigned()?;
            let facility = Facility::parse(&name.text);
            if let Some(facility) = known(parser, &name, "facility", facility)? {
                parser.note(Effect::Facility(facility));
            }
        }
        S_default => {
            let on = parser.assigned_boolean()?;
            parser.note(Effect::SyslogDefault(on));
        }
        S_filter => {
            parser.advance()?;
            parser.expect(S_equal)?;
            let mask = parser.unsigned(0..=i64::from(u32::MAX))? as u32;
            parser.note(Effect::SyslogFilter(mask));
        }
        _ => return Err(parser.expected(&[S_default, S_facility, S_ident, S_severity])),
    }
    Ok(())
}

/// `KEYWORD timeout = SECONDS`, with the keyword current.
pub(super) fn timeout(parser: &mut Parser<'_>) -> Result<u32, ConfigError> {
    parser.advance()?;
    if parser.code() != S_timeout {
        return Err(parser.expected(&[S_timeout]));
    }
    Ok(parser.assigned_integer(COUNT)? as u32)
}
