//! One question to an OCSP responder over HTTP: a request, and the answer to it. A value; the owner
//! watches its socket and has the clock.
//!
//! The request is HTTP/1.0, as those of nginx and Apache are: so the answer is its body, and never
//! in chunks. Redirections are not followed.

use crate::event::Interest;
use crate::os::address::Address;
use crate::os::socket::{Kind, Protocol};
use crate::os::{self, Socket};
use crate::tls::ocsp::Responder;
use crate::upstream::zone::staples;
use std::net::SocketAddr;

/// The longest head of an answer, and the most fields in it.
const MOST_HEAD: usize = 8192;
const MOST_FIELDS: usize = 64;
/// Reads in one step.
const READS: usize = 8;

/// What an answer says, as far as it has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// There is more to come.
    Partial,
    /// The body.
    Whole(Vec<u8>),
}

/// Reads what has come of an answer. `ended`: no more will.
pub(super) fn read(data: &[u8], ended: bool) -> Result<Heard, String> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let partial = |what: &str| match ended {
        true if data.is_empty() => Err("it has closed the connection without an answer".to_owned()),
        true => Err(format!("it has closed the connection within the {what} of its answer")),
        false => Ok(Heard::Partial),
    };
    let start = match response.parse(&data[..data.len().min(MOST_HEAD)]) {
        Ok(httparse::Status::Complete(start)) => start,
        Ok(httparse::Status::Partial) if data.len() < MOST_HEAD => return partial("head"),
        Ok(httparse::Status::Partial) => {
            return Err("the head of its answer is too long".to_owned())
        }
        Err(error) => return Err(format!("its answer is not HTTP: {error}")),
    };
    match response.code {
        Some(200) => {}
        Some(code @ 300..=399) => return Err(format!("it redirects (status {code})")),
        code => return Err(format!("status {}", code.unwrap_or(0))),
    }
    let mut length = None;
    for field in response.headers.iter() {
        if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err("its answer has a Transfer-Encoding, which HTTP/1.0 has not".to_owned());
        }
        if field.name.eq_ignore_ascii_case("content-length") {
            let value = std::str::from_utf8(field.value).ok().map(str::trim);
            let value = value.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let value: Option<usize> = value.and_then(|text| text.parse().ok());
            match (value, length) {
                (None, _) => return Err("the Content-Length of its answer is none".to_owned()),
                (Some(value), Some(other)) if value != other => {
                    return Err("its answer has two lengths".to_owned());
                }
                (Some(value), _) => length = Some(value),
            }
        }
    }
    let body = &data[start..];
    if length.unwrap_or(body.len()) > staples::MOST {
        return Err(format!("its answer has more than {} bytes", staples::MOST));
    }
    match length {
        Some(length) if body.len() >= length => Ok(Heard::Whole(body[..length].to_vec())),
        None if ended => Ok(Heard::Whole(body.to_vec())),
        _ => partial("body"),
    }
}

/// The request for an answer to this question.
fn request(responder: &Responder, question: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {} HTTP/1.0\r\nHost: {}\r\nUser-Agent: tcprelay\r\n\
         Content-Type: application/ocsp-request\r\nAccept: application/ocsp-response\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        responder.path,
        responder.authority(),
        question.len()
    )
    .into_bytes();
    request.extend_from_slice(question);
    request
}

/// A question that is under way.
#[derive(Debug)]
pub(super) struct Fetch {
    socket: Socket,
    connecting: bool,
    unsent: Vec<u8>,
    heard: Vec<u8>,
}

impl Fetch {
    /// Begins to ask.
    pub(super) fn begin(
        address: SocketAddr,
        responder: &Responder,
        question: &[u8],
    ) -> Result<Fetch, String> {
        let address = Address::Ip(address);
        let failed = |error: std::io::Error| format!("{address}: {}", os::reason(&error));
        let socket = Socket::new(address.family(), Kind::Stream, Protocol::Tcp).map_err(failed)?;
        socket.connect(&address).map_err(failed)?;
        let unsent = request(responder, question);
        Ok(Fetch { socket, connecting: true, unsent, heard: Vec::new() })
    }

    /// Its socket.
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// What to watch the socket for.
    pub(super) fn interest(&self) -> Interest {
        match self.unsent.is_empty() {
            true => Interest::READ,
            false => Interest::WRITE,
        }
    }

    /// Goes as far as possible without waiting; the answer, once it is there.
    pub(super) fn step(&mut self) -> Option<Result<Vec<u8>, String>> {
        self.exchange().transpose()
    }

    fn exchange(&mut self) -> Result<Option<Vec<u8>>, String> {
        let broken = |error: std::io::Error| os::reason(&error);
        if self.connecting {
            self.socket.take_error().map_err(broken)?;
            self.connecting = false;
        }
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if os::would_block(&error) => return Ok(None),
                Err(error) => return Err(broken(error)),
            }
        }
        for _ in 0..READS {
            let mut room = [0; 4096];
            let count = match self.socket.read(&mut room) {
                Ok(count) => count,
                Err(error) if os::would_block(&error) => return Ok(None),
                Err(error) => return Err(broken(error)),
            };
            self.heard.extend_from_slice(&room[..count]);
            match read(&self.heard, count == 0)? {
                Heard::Whole(body) => return Ok(Some(body)),
                Heard::Partial => {}
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &str) -> Result<Heard, String> {
        read(text.as_bytes(), true)
    }

    #[test]
    fn answers_are_read() {
        let body = |text: &str| Ok(Heard::Whole(text.as_bytes().to_vec()));
        assert_eq!(whole("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab"), body("ab"));
        assert_eq!(whole("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nabc"), body("ab"));
        assert_eq!(whole("HTTP/1.0 200 OK\r\n\r\nab"), body("ab"));
        for partial in ["", "HTTP/1.0 2", "HTTP/1.0 200 OK\r\n\r\nab"] {
            assert_eq!(read(partial.as_bytes(), false), Ok(Heard::Partial), "{partial}");
        }
        let short = "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nab";
        assert_eq!(read(short.as_bytes(), false), Ok(Heard::Partial));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let most = staples::MOST;
        let long = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", most + 1);
        let endless = format!("HTTP/1.0 200 OK\r\n\r\n{}", "x".repeat(most + 1));
        let head = format!("HTTP/1.0 200 OK\r\nX: {}", "x".repeat(MOST_HEAD));
        let fields = format!("HTTP/1.0 200 OK\r\n{}\r\n", "X: y\r\n".repeat(MOST_FIELDS + 1));
        for (text, expected) in [
            ("HTTP/1.0 301 Moved\r\nLocation: http://a/\r\n\r\n", "it redirects (status 301)"),
            ("HTTP/1.1 503 Busy\r\n\r\n", "status 503"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding"),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "is none"),
            ("HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", "is none"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "two lengths"),
            ("220 mail.example ESMTP\r\n", "not HTTP"),
            ("", "without an answer"),
            ("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nab", "within the body"),
            (&long, "has more than"),
            (&endless, "has more than"),
            (&head, "too long"),
            (&fields, "not HTTP"),
        ] {
            let refused = whole(text).expect_err(text);
            assert!(refused.contains(expected), "{text:.40}: {refused}");
        }
        // What never ends is refused as soon as it is too long.
        assert!(read(endless.as_bytes(), false).is_err());
    }

    #[test]
    fn a_request_names_the_responder() {
        let (host, path) = ("::1".to_owned(), "/a".to_owned());
        let text = request(&Responder { host, port: 8080, path }, b"xy");
        let text = String::from_utf8(text).expect("text");
        assert!(text.starts_with("POST /a HTTP/1.0\r\nHost: [::1]:8080\r\n"), "{text}");
        assert!(text.ends_with("Content-Length: 2\r\nConnection: close\r\n\r\nxy"), "{text}");
    }

    proptest! {
        #[test]
        fn reading_never_panics(
            data in prop::collection::vec(any::<u8>(), 0..20_000),
            valid in any::<bool>(),
            ended in any::<bool>(),
        ) {
            let head = if valid { &b"HTTP/1.0 200 OK\r\n\r\n"[..] } else { b"" };
            if let Ok(Heard::Whole(body)) = read(&[head, &data].concat(), ended) {
                prop_assert!(body.len() <= staples::MOST);
            }
        }
    }
}
