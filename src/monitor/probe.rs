//! One probe: reaches a remote, and talks to it as far as its check wants. A value; the owner
//! watches its socket and has the clock.

use crate::config::check;
use crate::event::Interest;
use crate::os::regex::Pcre;
use crate::os::{self, Socket};
use crate::tls::stream::Stream;
use crate::tls::Buffer;
use crate::upstream::dial::{Cause, Connection, Dial, Dialer, Failure, Progress};
use crate::upstream::health::Reason;
use crate::upstream::remote::RemoteId;
use crate::upstream::zone::counters::Failure as Fault;
use std::ops::RangeInclusive;

/// The most that a remote may answer before what is expected.
const MOST_HEARD: usize = 64 * 1024;
/// The most of an HTTP status line that is looked at.
const MOST_STATUS_LINE: usize = 256;
/// Reads in one step.
const READS: usize = 8;

/// What is said to a remote, and what has to come back.
#[derive(Debug)]
pub(super) struct Script {
    /// What is sent.
    send: Vec<u8>,
    expect: Expect,
}

#[derive(Debug)]
enum Expect {
    /// A connection is enough.
    Nothing,
    /// Any byte.
    Anything,
    /// What matches this expression.
    Match(Pcre),
    /// A response with one of these status codes.
    Status(RangeInclusive<u16>),
}

impl Script {
    /// The conversation for a probe. `host`: what a request for HTTP names by default.
    pub(super) fn new(probe: &check::Probe, host: &str) -> Script {
        match probe {
            check::Probe::Tcp | check::Probe::Tls => {
                Script { send: Vec::new(), expect: Expect::Nothing }
            }
            check::Probe::Send { send, expect } => {
                // The configuration was checked, so the expression is one.
                let expect = expect.as_ref().and_then(|pattern| Pcre::new(pattern, 0).ok());
                let expect = expect.map_or(Expect::Anything, Expect::Match);
                Script { send: send.clone(), expect }
            }
            check::Probe::Http { path, host: named, status } => {
                let host = named.as_deref().unwrap_or(host);
                let send = format!(
                    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tcprelay\r\n\
                     Accept: */*\r\nConnection: close\r\n\r\n"
                );
                Script { send: send.into_bytes(), expect: Expect::Status(status.clone()) }
            }
        }
    }

    /// The verdict on what has come so far; `None` if that is not known yet.
    fn judge_part(&self, heard: &[u8]) -> Option<Verdict> {
        self.judge(heard, false)
    }

    /// The verdict on all that will come.
    fn judge_all(&self, heard: &[u8]) -> Option<Verdict> {
        self.judge(heard, true)
    }

    fn judge(&self, heard: &[u8], ended: bool) -> Option<Verdict> {
        let wrong = |reason, text: &str| Some(Verdict::Failed(reason, text.to_owned()));
        match &self.expect {
            Expect::Nothing => Some(Verdict::Passed),
            Expect::Anything if !heard.is_empty() => Some(Verdict::Passed),
            Expect::Match(pattern) if !heard.is_empty() && pattern.find(heard).is_some() => {
                Some(Verdict::Passed)
            }
            Expect::Status(wanted) if heard.contains(&b'\n') || heard.len() > MOST_STATUS_LINE => {
                match status(heard) {
                    Some(status) if wanted.contains(&status) => Some(Verdict::Passed),
                    Some(status) => wrong(Reason::Status, &format!("status {status}")),
                    None => wrong(Reason::Answer, "the answer is not HTTP"),
                }
            }
            Expect::Match(_) if ended && !heard.is_empty() || heard.len() >= MOST_HEARD => {
                wrong(Reason::Answer, "the answer does not match")
            }
            _ if ended => wrong(Reason::Closed, "it has closed the connection without an answer"),
            _ => None,
        }
    }
}

/// The status code of a response: `HTTP/1.1 200 …`.
fn status(line: &[u8]) -> Option<u16> {
    let (digit, rest) = line.strip_prefix(b"HTTP/1.")?.split_first()?;
    let (code, after) = rest.strip_prefix(b" ")?.split_at_checked(3)?;
    let ends = !after.first().is_some_and(u8::is_ascii_digit);
    if !digit.is_ascii_digit() || !code.iter().all(u8::is_ascii_digit) || !ends {
        return None;
    }
    std::str::from_utf8(code).ok()?.parse().ok()
}

/// The result of a probe.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    /// The remote has failed, for this reason.
    Failed(Reason, String),
    /// This host could not probe it, which says nothing about the remote.
    Unknown(String),
}

/// Memory that every step needs and none keeps.
pub(super) struct Scratch {
    pub(super) input: Vec<u8>,
    pub(super) output: Buffer,
    pub(super) plain: Buffer,
}

impl Scratch {
    pub(super) fn new() -> Scratch {
        // As much as a TLS stream may hold back, and a record more.
        Scratch { input: vec![0; 64 * 1024], output: Buffer::default(), plain: Buffer::default() }
    }
}

#[derive(Debug)]
enum State {
    Dialing(Dial),
    Talking(Box<Talk>),
}

/// A conversation.
#[derive(Debug)]
struct Talk {
    connection: Connection,
    /// What the remote has not taken yet, as it goes on the wire.
    unsent: Vec<u8>,
    heard: Vec<u8>,
    ended: bool,
}

/// A probe that is under way.
#[derive(Debug)]
pub(super) struct Probe {
    state: State,
}

impl Probe {
    /// A probe of a remote, to be begun with [`Cause::Start`].
    pub(super) fn new(remote: RemoteId) -> Probe {
        Probe { state: State::Dialing(Dial::probing(remote)) }
    }

    /// The socket, if there is one.
    pub(super) fn socket(&self) -> Option<&Socket> {
        match &self.state {
            State::Dialing(dial) => dial.socket(),
            State::Talking(talk) => Some(&talk.connection.socket),
        }
    }

    /// What to watch the socket for.
    pub(super) fn interest(&self) -> Interest {
        match &self.state {
            State::Dialing(dial) => dial.interest(),
            State::Talking(talk) if talk.unsent.is_empty() => Interest::READ,
            State::Talking(_) => Interest::READ | Interest::WRITE,
        }
    }

    /// When to make the next step, if the socket is not ready before.
    pub(super) fn due(&self) -> Option<u64> {
        match &self.state {
            State::Dialing(dial) => dial.due(),
            State::Talking(_) => None,
        }
    }

    /// Goes as far as possible without waiting; the verdict, once there is one.
    pub(super) fn step(
        &mut self,
        cause: Cause,
        script: &Script,
        dialer: &mut Dialer<'_>,
        plain: &mut Buffer,
    ) -> Option<Verdict> {
        let State::Dialing(dial) = &mut self.state else {
            return self.talk(script, dialer, plain);
        };
        match dial.step(cause, dialer) {
            // The monitor's keys are its own, so it waits for no signature.
            Progress::Waiting | Progress::Signing(_) => None,
            Progress::Failed(failure) => Some(verdict(&failure)),
            Progress::Ready(connection) => {
                // Kept even if it has served its purpose: the owner still watches its socket.
                let talk = Talk { connection, unsent: Vec::new(), heard: Vec::new(), ended: false };
                self.state = State::Talking(Box::new(talk));
                self.begin_talk(script, dialer, plain)
            }
        }
    }

    fn begin_talk(
        &mut self,
        script: &Script,
        dialer: &mut Dialer<'_>,
        plain: &mut Buffer,
    ) -> Option<Verdict> {
        let State::Talking(talk) = &mut self.state else {
            return None;
        };
        let connection = &mut talk.connection;
        if matches!(script.expect, Expect::Nothing) {
            // A remote that expects a PROXY header gets one before the end.
            let _ = connection.unsent.flush(&connection.socket);
            return Some(Verdict::Passed);
        }
        talk.unsent = std::mem::take(&mut connection.unsent).into_bytes();
        match &mut connection.stream {
            Some(stream) => {
                dialer.scratch.output.clear();
                if let Err(text) = stream.write(&script.send, dialer.scratch.output) {
                    return Some(Verdict::Failed(Reason::Tls, text));
                }
                talk.unsent.extend_from_slice(dialer.scratch.output.filled());
            }
            None => talk.unsent.extend_from_slice(&script.send),
        }
        self.talk(script, dialer, plain)
    }

    fn talk(
        &mut self,
        script: &Script,
        dialer: &mut Dialer<'_>,
        plain: &mut Buffer,
    ) -> Option<Verdict> {
        let State::Talking(talk) = &mut self.state else {
            return None;
        };
        match talk.exchange(dialer, plain) {
            Ok(()) if talk.ended => script.judge_all(&talk.heard),
            Ok(()) => script.judge_part(&talk.heard),
            // What it has said before it broke off may be enough.
            Err(failed) => match script.judge_all(&talk.heard) {
                Some(Verdict::Passed) => Some(Verdict::Passed),
                _ => Some(failed),
            },
        }
    }
}

impl Talk {
    /// Sends and receives what can be.
    fn exchange(&mut self, dialer: &mut Dialer<'_>, plain: &mut Buffer) -> Result<(), Verdict> {
        let broken = |error: std::io::Error| Verdict::Failed(Reason::Closed, os::reason(&error));
        for _ in 0..READS {
            self.send().map_err(broken)?;
            if self.ended || self.heard.len() >= MOST_HEARD {
                return Ok(());
            }
            let input = &mut *dialer.scratch.input;
            let held = self.connection.stream.as_ref().map_or(0, Stream::held);
            let unread = self.connection.stream.as_ref().is_some_and(Stream::has_unread);
            let count = match self.connection.socket.read(&mut input[held..]) {
                Ok(count) => count,
                Err(error) if os::would_block(&error) && unread => 0,
                Err(error) if os::would_block(&error) => return Ok(()),
                Err(error) => return Err(broken(error)),
            };
            self.ended |= count == 0 && !unread;
            let Some(stream) = &mut self.connection.stream else {
                self.heard.extend_from_slice(&input[..count]);
                continue;
            };
            stream.take_held(input);
            plain.clear();
            dialer.scratch.output.clear();
            let read = stream.read(&input[..held + count], plain, dialer.scratch.output);
            self.heard.extend_from_slice(plain.filled());
            self.unsent.extend_from_slice(dialer.scratch.output.filled());
            match read {
                Ok(ended) => self.ended |= ended,
                Err(text) => return Err(Verdict::Failed(Reason::Tls, text)),
            }
        }
        Ok(())
    }

    fn send(&mut self) -> std::io::Result<()> {
        while !self.unsent.is_empty() {
            match self.connection.socket.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if os::would_block(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn verdict(failure: &Failure) -> Verdict {
    match failure {
        Failure::Descriptors(error) => Verdict::Unknown(format!("socket: {}", os::reason(error))),
        Failure::Host(call, error) => Verdict::Unknown(format!("{call}: {}", os::reason(error))),
        Failure::Remote(fault, text) => {
            let reason = if *fault == Fault::Tls { Reason::Tls } else { Reason::Connect };
            Verdict::Failed(reason, text.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(status: RangeInclusive<u16>) -> Script {
        let path = "/health".to_owned();
        Script::new(&check::Probe::Http { path, host: None, status }, "a.example")
    }

    #[test]
    fn a_request_names_the_host() {
        let text = String::from_utf8(http(200..=299).send).expect("text");
        assert!(text.starts_with("GET /health HTTP/1.1\r\nHost: a.example\r\n"), "{text}");
        assert!(text.ends_with("Connection: close\r\n\r\n"), "{text}");
    }

    #[test]
    fn a_status_is_judged_when_its_line_is_there() {
        let script = http(200..=299);
        assert_eq!(script.judge_part(b"HTTP/1.1 20"), None);
        assert_eq!(script.judge_part(b"HTTP/1.1 204 No Content\r\n"), Some(Verdict::Passed));
        for (answer, ended, expected) in [
            (&b"HTTP/1.0 503 x\r\n"[..], false, Reason::Status),
            (b"HTTP/1.1 2000\r\n", false, Reason::Answer),
            (b"+PONG\r\n", false, Reason::Answer),
            (b"", true, Reason::Closed),
            (b"HTTP/1.1 200", true, Reason::Closed),
            (&[b'x'; 300], false, Reason::Answer),
        ] {
            let verdict = if ended { script.judge_all(answer) } else { script.judge_part(answer) };
            let matches =
                matches!(&verdict, Some(Verdict::Failed(reason, _)) if *reason == expected);
            assert!(matches, "{answer:?}: {verdict:?}");
        }
    }

    #[test]
    fn what_is_expected_may_come_in_pieces() {
        let expect = Some(b"^\\+PONG\\r\\n".to_vec());
        let script = Script::new(&check::Probe::Send { send: b"PING\r\n".to_vec(), expect }, "");
        assert_eq!(script.judge_part(b"+PO"), None);
        assert_eq!(script.judge_part(b"+PONG\r\n"), Some(Verdict::Passed));
        let failed = |verdict| matches!(verdict, Some(Verdict::Failed(Reason::Answer, _)));
        assert!(failed(script.judge_all(b"-LOADING\r\n")));
        assert!(failed(script.judge_part(&vec![b'x'; MOST_HEARD])));
        let any = Script::new(&check::Probe::Send { send: Vec::new(), expect: None }, "");
        assert_eq!(any.judge_part(b""), None);
        assert_eq!(any.judge_part(b"2"), Some(Verdict::Passed));
    }
}
