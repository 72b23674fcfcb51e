//! How a remote is probed: `check …`, `slow start` and `on down` in `remote`.

use super::token::*;
use super::values::Value;
use super::{ConfigError, Parser};
use crate::os::address::Address;
use std::ops::RangeInclusive;
use std::rc::Rc;

/// What a probe does once it is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Nothing more: it is enough that the remote accepts.
    Tcp,
    /// A TLS handshake.
    Tls,
    /// Sends some bytes, and waits for an answer.
    Send {
        /// What is sent; may be empty.
        send: Vec<u8>,
        /// A PCRE2 expression that the answer has to match. Without one any byte will do.
        expect: Option<Vec<u8>>,
    },
    /// A GET request.
    Http {
        /// The target of the request.
        path: String,
        /// The Host field; the remote's name or address if unset.
        host: Option<String>,
        /// The status codes of a remote that is up.
        status: RangeInclusive<u16>,
    },
}

/// What happens to the sessions of a remote that is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDown {
    /// They go on.
    #[default]
    Keep,
    /// They are reset.
    Reset,
}

/// What a remote counts as before it has been probed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Up, until probes fail.
    #[default]
    Up,
    /// Down, until probes succeed.
    Down,
}

/// How a remote is probed. All times are in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is done.
    pub probe: Probe,
    /// `check interval`.
    pub interval: u32,
    /// `check fast interval`: the interval while the state is about to change.
    pub fast_interval: u32,
    /// `check timeout`: for all of a probe.
    pub timeout: u32,
    /// `check rise`: so many successes in a row make it up.
    pub rise: u32,
    /// `check fall`: so many failures in a row make it down.
    pub fall: u32,
    /// `check address`: probed instead of the remote's own.
    pub address: Option<Address>,
    /// `check port`, likewise.
    pub port: Option<u16>,
    /// `check start`.
    pub start: Start,
    /// `slow start`: how long the share of a remote that came up grows; 0 is off.
    pub slow_start: u32,
    /// `on down`.
    pub on_down: OnDown,
}

/// The kind of a probe, as `check = KIND` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    None,
    Tcp,
    Tls,
    Send,
    Http,
}

/// The directives as written.
#[derive(Debug, Default)]
pub(super) struct Directives {
    kind: Option<(Kind, Value)>,
    /// The last setting that needs a probe.
    needs: Option<Value>,
    interval: Option<u32>,
    fast_interval: Option<u32>,
    timeout: Option<u32>,
    rise: Option<u32>,
    fall: Option<u32>,
    address: Option<Address>,
    port: Option<Value>,
    start: Start,
    send: Option<(Vec<u8>, Value)>,
    expect: Option<(Vec<u8>, Value)>,
    path: Option<Value>,
    host: Option<Value>,
    status: Option<(RangeInclusive<u16>, Value)>,
    slow_start: u32,
    on_down: OnDown,
}

/// Seconds that make sense for a probe: a day at most.
const SECONDS: RangeInclusive<i64> = 1..=86_400;
/// What `check` may be followed by.
const WORDS: [&str; 14] = [
    "=", "address", "expect", "fall", "fast", "host", "http", "interval", "port", "rise", "send",
    "start", "status", "timeout",
];

/// `check …`, with the word `check` current.
pub(super) fn parse(parser: &mut Parser<'_>, check: &mut Directives) -> Result<(), ConfigError> {
    let place = Value { text: String::new(), position: parser.position() };
    parser.advance()?;
    if parser.code() == S_equal {
        parser.advance()?;
        let kind = match () {
            () if parser.is_word("none") => Kind::None,
            () if parser.is_word("tcp") => Kind::Tcp,
            () if parser.is_word("tls") => Kind::Tls,
            () if parser.is_word("send") => Kind::Send,
            () if parser.is_word("http") => Kind::Http,
            () => return Err(parser.expected_words(&["http", "none", "send", "tcp", "tls"])),
        };
        check.kind = Some((kind, place));
        return parser.advance();
    }
    let seconds = |parser: &mut Parser<'_>| {
        parser.assigned_integer(SECONDS).map(|seconds| Some(seconds as u32))
    };
    let count =
        |parser: &mut Parser<'_>| parser.assigned_integer(1..=1000).map(|count| Some(count as u32));
    match () {
        () if parser.is_word("interval") => check.interval = seconds(parser)?,
        () if parser.is_word("fast") => {
            parser.advance()?;
            if !parser.is_word("interval") {
                return Err(parser.expected_words(&["interval"]));
            }
            check.fast_interval = seconds(parser)?;
        }
        () if parser.is_word("timeout") => check.timeout = seconds(parser)?,
        () if parser.is_word("rise") => check.rise = count(parser)?,
        () if parser.is_word("fall") => check.fall = count(parser)?,
        () if parser.is_word("address") => {
            let value = parser.assigned()?;
            check.address = match Address::parse(&value.text) {
                Ok(address @ Address::Ip(_)) => Some(address),
                _ => {
                    let text = format!("Expected an IP address, but got '{}'", value.text);
                    return Err(value.error(text));
                }
            };
        }
        () if parser.is_word("port") => check.port = Some(parser.assigned()?),
        () if parser.is_word("start") => {
            parser.advance()?;
            parser.expect(S_equal)?;
            check.start = match () {
                () if parser.is_word("up") => Start::Up,
                () if parser.is_word("down") => Start::Down,
                () => return Err(parser.expected_words(&["down", "up"])),
            };
            parser.advance()?;
        }
        () if parser.is_word("send") => check.send = Some(bytes(parser)?),
        () if parser.is_word("expect") => {
            let (pattern, value) = bytes(parser)?;
            parser.system().check_pattern(&pattern).map_err(|text| value.error(text))?;
            check.expect = Some((pattern, value));
        }
        () if parser.is_word("http") => {
            let path = parser.assigned()?;
            if !path.text.starts_with('/') || !is_field(&path.text) || path.text.contains(' ') {
                let text = format!("Expected a path like /health, but got '{}'", path.text);
                return Err(path.error(text));
            }
            check.path = Some(path);
        }
        () if parser.is_word("host") => {
            let host = parser.assigned()?;
            if host.text.is_empty() || !is_field(&host.text) {
                return Err(host.error(format!("Expected a host, but got '{}'", host.text)));
            }
            check.host = Some(host);
        }
        () if parser.is_word("status") => {
            let value = parser.assigned()?;
            let status = status(&value.text).ok_or_else(|| {
                value.error(format!("Expected a status or 200-399, but got '{}'", value.text))
            })?;
            check.status = Some((status, value));
        }
        () => return Err(parser.expected_words(&WORDS)),
    }
    check.needs = Some(place);
    Ok(())
}

/// `slow start = SECONDS`, with the word `slow` current.
pub(super) fn slow_start(
    parser: &mut Parser<'_>,
    check: &mut Directives,
) -> Result<(), ConfigError> {
    check.needs = Some(Value { text: String::new(), position: parser.position() });
    parser.advance()?;
    if !parser.is_word("start") {
        return Err(parser.expected_words(&["start"]));
    }
    check.slow_start = parser.assigned_integer(0..=86_400)? as u32;
    Ok(())
}

/// `on down = keep | reset`, with the word `on` current.
pub(super) fn on_down(parser: &mut Parser<'_>, check: &mut Directives) -> Result<(), ConfigError> {
    check.needs = Some(Value { text: String::new(), position: parser.position() });
    parser.advance()?;
    if !parser.is_word("down") {
        return Err(parser.expected_words(&["down"]));
    }
    parser.advance()?;
    parser.expect(S_equal)?;
    check.on_down = match () {
        () if parser.is_word("keep") => OnDown::Keep,
        () if parser.is_word("reset") => OnDown::Reset,
        () => return Err(parser.expected_words(&["keep", "reset"])),
    };
    parser.advance()
}

/// `= BYTES`, with the keyword before it current.
fn bytes(parser: &mut Parser<'_>) -> Result<(Vec<u8>, Value), ConfigError> {
    parser.advance()?;
    parser.expect(S_equal)?;
    let bytes = parser.text().to_vec();
    Ok((bytes, parser.value()?))
}

/// True if a text can stand in the head of an HTTP request.
fn is_field(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// `200` or `200-399`.
fn status(text: &str) -> Option<RangeInclusive<u16>> {
    let code = |text: &str| text.parse().ok().filter(|code| (100..=599).contains(code));
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (code(from.trim())?, code(to.trim())?);
    (from <= to).then_some(from..=to)
}

impl Directives {
    /// The check that the directives describe. `tls`: the remote has TLS; `ip`: it has an IP
    /// address. `port` reads a port.
    pub(super) fn finish(
        self,
        tls: bool,
        ip: bool,
        port: impl Fn(&Value) -> Result<u16, ConfigError>,
    ) -> Result<Option<Rc<Check>>, ConfigError> {
        // What is sent and expected names the kind of probe, unless that is named.
        let implied = match (&self.path, &self.host, &self.status, &self.send, &self.expect) {
            (Some(place), ..) | (_, Some(place), ..) | (_, _, Some((_, place)), ..) => {
                Some((Kind::Http, "http", place))
            }
            (_, _, _, Some((_, place)), _) | (.., Some((_, place))) => {
                Some((Kind::Send, "send", place))
            }
            _ => None,
        };
        let kind = match (&self.kind, implied) {
            (Some((Kind::None, _)), _) => return Ok(None),
            (Some((kind, _)), Some((other, name, place))) if *kind != other => {
                return Err(place.error(format!("this needs check = {name}")));
            }
            (Some((kind, _)), _) => *kind,
            (None, Some((kind, ..))) => kind,
            (None, None) => {
                return match self.needs {
                    Some(place) => Err(place.error("remote: check = … is missing")),
                    None => Ok(None),
                };
            }
        };
        if let (Kind::Http, Some((_, place))) = (kind, self.send.as_ref().or(self.expect.as_ref()))
        {
            return Err(place.error("this needs check = send"));
        }
        let probe = match kind {
            Kind::None | Kind::Tcp => Probe::Tcp,
            Kind::Tls if !tls => {
                let place = self.kind.map(|(_, place)| place);
                let error = place.map(|place| place.error("check = tls: the remote has no TLS"));
                return error.map_or(Ok(None), Err);
            }
            Kind::Tls => Probe::Tls,
            Kind::Send => Probe::Send {
                send: self.send.map(|(bytes, _)| bytes).unwrap_or_default(),
                expect: self.expect.map(|(bytes, _)| bytes),
            },
            Kind::Http => Probe::Http {
                path: self.path.map_or_else(|| "/".to_owned(), |path| path.text),
                host: self.host.map(|host| host.text),
                status: self.status.map_or(200..=399, |(status, _)| status),
            },
        };
        let port = self.port.as_ref().map(port).transpose()?;
        if let (Some(place), false) = (&self.port, ip || self.address.is_some()) {
            return Err(place.error("check port: the remote is a UNIX socket"));
        }
        let interval = self.interval.unwrap_or(5);
        Ok(Some(Rc::new(Check {
            probe,
            interval,
            fast_interval: self.fast_interval.unwrap_or(1).min(interval),
            timeout: self.timeout.unwrap_or(interval.min(5)),
            rise: self.rise.unwrap_or(2),
            fall: self.fall.unwrap_or(3),
            address: self.address,
            port,
            start: self.start,
            slow_start: self.slow_start,
            on_down: self.on_down,
        })))
    }
}
