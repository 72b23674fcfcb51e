//! The lines of files and of standard error: text, or JSON with one object a line.

use super::Severity;
use crate::os::calendar;
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

/// Appends a text as JSON has it (RFC 8259 section 7), on one line whatever is in it.
pub fn string(line: &mut String, text: &str) {
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
    let time = calendar::universal_time(since.as_secs() as i64);
    let (day, clock) = (time.day_text(), time.clock_text());
    format!("{day}T{clock}.{:06}Z", since.subsec_micros())
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
