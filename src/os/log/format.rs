//! The lines of files and of standard error: text, or JSON with one object a line.

use super::Severity;
use crate::os::process::Pid;
use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What lines look like (`log format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text.
    #[default]
    Text,
    /// An object of JSON.
    Json,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(u64),
    /// A time span, given in milliseconds and written in seconds.
    Seconds(u64),
    /// True or false.
    Bool(bool),
}

/// A part of a message.
pub type Field = (&'static str, Value);

/// Who writes a line.
#[derive(Clone, Copy)]
pub(super) struct Author<'a> {
    pub(super) ident: &'a str,
    pub(super) pid: Pid,
    /// Broker, worker and so on; empty in other programs.
    pub(super) process: &'a str,
}

/// `TIME SEVERITY IDENT[PID]: TEXT`, for printable text.
pub(super) fn text(severity: Severity, author: Author<'_>, text: &str) -> String {
    let Author { ident, pid, .. } = author;
    format!("{} {} {ident}[{pid}]: {text}", time(), severity.name())
}

/// An object of JSON.
pub(super) fn json(
    severity: Severity,
    author: Author<'_>,
    message: &str,
    fields: &[Field],
) -> String {
    let mut line = format!("{{\"time\":\"{}\",\"severity\":\"{}\"", time(), severity.name());
    for (name, text) in [("ident", author.ident), ("process", author.process)] {
        if !text.is_empty() {
            member(&mut line, name);
            string(&mut line, text);
        }
    }
    let _ = write!(line, ",\"pid\":{}", author.pid);
    member(&mut line, "message");
    string(&mut line, message);
    for (name, value) in fields {
        member(&mut line, name);
        match value {
            Value::Text(text) => string(&mut line, text),
            Value::Number(number) => drop(write!(line, "{number}")),
            Value::Seconds(span) => drop(write!(line, "{}.{:03}", span / 1000, span % 1000)),
            Value::Bool(value) => drop(write!(line, "{value}")),
        }
    }
    line.push('}');
    line
}

fn member(line: &mut String, name: &str) {
    let _ = write!(line, ",\"{name}\":");
}

fn string(line: &mut String, text: &str) {
    line.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => line.extend(['\\', c]),
            // The last two end a line for some readers.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
    line.push('"');
}

/// The time in UTC, as RFC 3339 has it.
fn time() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    date(now)
}

fn date(since: Duration) -> String {
    let (seconds, micros) = (since.as_secs(), since.subsec_micros());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years begin with March here, so that the leap day is the last: each 400 years have as many
    // days, and each five months have 153, starting with March or August.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..10 => (400 * era + year, month + 3),
        _ => (400 * era + year + 1, month - 9),
    };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000007Z"),
            (951_782_399, "2000-02-28T23:59:59.000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000007Z"),
            (951_868_800, "2000-03-01T00:00:00.000007Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000007Z"),
        ] {
            assert_eq!(date(Duration::new(seconds, 7_000)), text);
        }
    }

    #[test]
    fn whatever_is_in_a_text_is_one_line_of_json() {
        let author = Author { ident: "a\"", pid: 7, process: "worker" };
        let fields = [
            ("who", Value::Text("\\\n\u{85}\u{2028}é".into())),
            ("sent", Value::Number(3)),
            ("seconds", Value::Seconds(1005)),
            ("resumed", Value::Bool(true)),
        ];
        let line = json(Severity::INFO, author, "x\u{0}", &fields);
        let rest = line.split_once("Z\",").expect("the time").1;
        assert_eq!(
            rest,
            r#""severity":"info","ident":"a\"","process":"worker","pid":7,"message":"x\u0000","who":"\\\u000a\u0085\u2028é","sent":3,"seconds":1.005,"resumed":true}"#
        );
    }
}
