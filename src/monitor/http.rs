//! HTTP/1.1 (RFC 9112), as far as the status page needs it: requests without a body, and the heads
//! of responses. No I/O.

use super::time::Moment;
use std::fmt::Write;

/// The longest head of a request.
pub const MOST_HEAD: usize = 8192;
/// The most fields in it.
const MOST_FIELDS: usize = 64;

/// What is wanted of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The resource.
    Get,
    /// Only what the head would be.
    Head,
}

/// Whether the connection stays open after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// More requests may come.
    Stay,
    /// It is closed.
    Close,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// GET or HEAD.
    pub method: Method,
    /// The path, without a query.
    pub path: String,
    /// The Accept fields.
    pub accept: String,
    /// What the client wants.
    pub after: After,
}

/// The status of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 200
    Ok,
    /// 400
    BadRequest,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 408
    Timeout,
    /// 431
    TooLarge,
    /// 503
    Unavailable,
    /// 505
    Version,
}

impl Status {
    /// Number and phrase.
    pub fn text(self) -> &'static str {
        match self {
            Status::Ok => "200 OK",
            Status::BadRequest => "400 Bad Request",
            Status::NotFound => "404 Not Found",
            Status::MethodNotAllowed => "405 Method Not Allowed",
            Status::Timeout => "408 Request Timeout",
            Status::TooLarge => "431 Request Header Fields Too Large",
            Status::Unavailable => "503 Service Unavailable",
            Status::Version => "505 HTTP Version Not Supported",
        }
    }
}

/// What the bytes of a client are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a request.
    Partial,
    /// A request, and how many bytes it has.
    Request(Request, usize),
    /// No request that is answered; the connection is closed after the response.
    Wrong(Status),
}

/// Reads a request at the beginning of `input`.
pub fn parse(input: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(&input[..input.len().min(MOST_HEAD)]) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if input.len() < MOST_HEAD => return Parsed::Partial,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Parsed::Wrong(Status::TooLarge)
        }
        Err(httparse::Error::Version) => return Parsed::Wrong(Status::Version),
        Err(_) => return Parsed::Wrong(Status::BadRequest),
    };
    let fields = Fields(request.headers);
    let (minor, method) = (request.version.unwrap_or(0), request.method.unwrap_or(""));
    // What a body would be is read as the next request otherwise.
    let has_body = fields.has("transfer-encoding")
        || fields.all("content-length").any(|length| length.trim() != "0");
    let hosts = fields.all("host").count();
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        _ => return Parsed::Wrong(Status::MethodNotAllowed),
    };
    if has_body || hosts > 1 || hosts == 0 && minor > 0 {
        return Parsed::Wrong(Status::BadRequest);
    }
    let Some(path) = path(request.path.unwrap_or("")) else {
        return Parsed::Wrong(Status::BadRequest);
    };
    let wants = |word: &str| {
        fields.all("connection").flat_map(|field| field.split(',')).any(|option| {
            let option = option.trim();
            option.eq_ignore_ascii_case(word)
        })
    };
    let after = match (minor, wants("close"), wants("keep-alive")) {
        (_, true, _) | (0, _, false) => After::Close,
        _ => After::Stay,
    };
    let accept = fields.all("accept").collect::<Vec<_>>().join(",");
    let path = path.to_owned();
    Parsed::Request(Request { method, path, accept, after }, length)
}

struct Fields<'a>(&'a [httparse::Header<'a>]);

impl<'a> Fields<'a> {
    /// The values of all fields with this name; bytes that are no text are left out.
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'a str> + use<'a> {
        let named = self.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| std::str::from_utf8(field.value).unwrap_or(""))
    }

    fn has(&self, name: &'static str) -> bool {
        self.all(name).next().is_some()
    }
}

/// The path of a request's target, which a proxy writes with a host before it.
fn path(target: &str) -> Option<&str> {
    let path = match target.split_once("://") {
        Some(("http", rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        _ => target,
    };
    let path = path.split(['?', '#']).next().unwrap_or("");
    path.starts_with('/').then_some(path)
}

/// A response without its body.
#[derive(Debug)]
pub struct Head {
    /// The status.
    pub status: Status,
    /// The type of the body.
    pub kind: &'static str,
    /// The length of the body, even if it is not sent.
    pub length: usize,
    /// More fields, each with a line end.
    pub more: &'static str,
    /// What becomes of the connection.
    pub after: After,
}

impl Head {
    /// The bytes to send. `now` is the wall clock, in seconds.
    pub fn encode(&self, now: u64) -> Vec<u8> {
        let mut text = format!("HTTP/1.1 {}\r\n", self.status.text());
        let _ = write!(text, "Date: {}\r\n", Moment::of(now).http());
        let _ = write!(text, "Content-Type: {}\r\n", self.kind);
        let _ = write!(text, "Content-Length: {}\r\n", self.length);
        text += "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n";
        text += self.more;
        if self.status == Status::MethodNotAllowed {
            text += "Allow: GET, HEAD\r\n";
        }
        text += match self.after {
            After::Stay => "Connection: keep-alive\r\n\r\n",
            After::Close => "Connection: close\r\n\r\n",
        };
        text.into_bytes()
    }
}

/// How much a client wants a type, by its Accept fields, in thousandths; 0 if it does not. A range
/// that is more exact counts before one that is less.
pub fn preference(accept: &str, kind: &str) -> u16 {
    if accept.trim().is_empty() {
        return 1000;
    }
    let (class, _) = kind.split_once('/').unwrap_or((kind, ""));
    let mut best = (0, 0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or("");
        let exactness = match name {
            "*/*" => 1,
            _ if name.eq_ignore_ascii_case(kind) => 3,
            _ if name.strip_suffix("/*").is_some_and(|name| name.eq_ignore_ascii_case(class)) => 2,
            _ => continue,
        };
        let quality = parts.filter_map(|part| part.split_once('=')).find_map(|(name, value)| {
            name.trim().eq_ignore_ascii_case("q").then(|| thousandths(value.trim()))
        });
        best = best.max((exactness, quality.unwrap_or(1000)));
    }
    best.1
}

/// A quality such as `0.5`.
fn thousandths(text: &str) -> u16 {
    match text.parse::<f32>() {
        Ok(quality) if (0.0..=1.0).contains(&quality) => (quality * 1000.0) as u16,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Parsed::Request(request, length) if length == text.len() => request,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    fn wrong(text: &str) -> Status {
        match parse(text.as_bytes()) {
            Parsed::Wrong(status) => status,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn requests_are_understood() {
        let plain = request("GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\nAccept: text/plain\r\n\r\n");
        let expected = Request {
            method: Method::Get,
            path: "/metrics".to_owned(),
            accept: "text/plain".to_owned(),
            after: After::Stay,
        };
        assert_eq!(plain, expected);
        let old = request("HEAD / HTTP/1.0\r\n\r\n");
        assert_eq!((old.method, old.after), (Method::Head, After::Close));
        assert_eq!(request("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").after, After::Stay);
        let proxied =
            request("GET http://a:1/x HTTP/1.1\r\nHost: a\r\nConnection: x, close\r\n\r\n");
        assert_eq!((&*proxied.path, proxied.after), ("/x", After::Close));
        assert_eq!(parse(b"GET / HTTP/1.1\r\nHost: a\r\n"), Parsed::Partial);
        assert_eq!(parse(b""), Parsed::Partial);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        assert_eq!(wrong("POST / HTTP/1.1\r\nHost: a\r\n\r\n"), Status::MethodNotAllowed);
        assert_eq!(wrong("GET / HTTP/1.1\r\n\r\n"), Status::BadRequest);
        assert_eq!(wrong("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), Status::BadRequest);
        let smuggled = "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(wrong(smuggled), Status::BadRequest);
        let chunked = "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(wrong(chunked), Status::BadRequest);
        assert_eq!(wrong("GET * HTTP/1.1\r\nHost: a\r\n\r\n"), Status::BadRequest);
        assert_eq!(wrong("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), Status::Version);
        assert_eq!(wrong("\x16\x03\x01\x02\x00\x01"), Status::BadRequest);
        let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(MOST_HEAD));
        assert_eq!(wrong(&long), Status::TooLarge);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(MOST_FIELDS + 1));
        assert_eq!(wrong(&many), Status::TooLarge);
    }

    #[test]
    fn types_are_weighed() {
        let open = "application/openmetrics-text";
        // What Prometheus sends.
        let accept = "application/openmetrics-text;version=1.0.0;q=0.5,\
                      text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!((preference(accept, open), preference(accept, "text/plain")), (500, 200));
        assert_eq!(preference("text/html, text/*;q=0.3", "text/plain"), 300);
        assert_eq!(preference("text/plain;q=0, */*", "text/plain"), 0);
        assert_eq!((preference("", open), preference("text/html", open)), (1000, 0));
        assert_eq!(preference("text/plain;q=x", "text/plain"), 0);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(data in prop::collection::vec(any::<u8>(), 0..9000)) {
            if let Parsed::Request(_, length) = parse(&data) {
                prop_assert!(length > 0 && length <= data.len());
            }
        }
    }
}
