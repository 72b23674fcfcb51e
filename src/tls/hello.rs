//! `tls = inspect`: what a client asks for, read from a ClientHello that is passed on unopened.
//!
//! Only what routes go by is read: the server name (RFC 6066 section 3) and the application
//! protocols (RFC 7301 section 3.1). With Encrypted Client Hello that is the outer name, the only
//! one that can be seen. Everything else is checked no further than is needed to find the two: the
//! remote, not the relay, decides what it makes of the message.

/// The most bytes that are looked at. A ClientHello with hybrid key shares takes two kilobytes;
/// OpenSSL accepts 128 KiB.
pub const LIMIT: usize = 64 * 1024;

/// What the first bytes of a client are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// Too few to tell.
    Partial,
    /// A ClientHello.
    Tls(Offer),
    /// A ClientHello in the format of SSL 2, which has neither names nor protocols (RFC 5246
    /// appendix E.2).
    Ssl2,
    /// The beginning of a TLS record, but no ClientHello, or one that is longer than [`LIMIT`].
    Malformed,
    /// Something else.
    Plain,
}

/// What a ClientHello asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// In lower case, without a final dot. `None` if there is no name, or none that can be one.
    pub server_name: Option<String>,
    /// The application protocols, in the client's order.
    pub protocols: Vec<Vec<u8>>,
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// Type and length of a handshake message.
const MESSAGE_HEADER: usize = 4;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
/// The longest record that the record header allows (RFC 8446 section 5.1, plus what encryption
/// may add).
const LONGEST_RECORD: usize = 0x4800;

/// Reads a ClientHello as it comes in. Each byte is looked at once, however small the pieces are.
#[derive(Debug, Default)]
pub struct Inspector {
    /// What complete records hold of the message.
    message: Vec<u8>,
    /// The bytes of these records, with their headers.
    complete: usize,
}

impl Inspector {
    /// Looks at everything that the client has sent so far; `bytes` begins with what was looked at
    /// before. More bytes never change an answer other than [`Hello::Partial`].
    pub fn look(&mut self, bytes: &[u8]) -> Hello {
        match bytes {
            [] | [HANDSHAKE] => return Hello::Partial,
            [HANDSHAKE, 3, ..] => {}
            // The length of the record, with the highest bit set; type; version.
            [length, ..] if length & 0x80 != 0 => return ssl2(bytes),
            _ => return Hello::Plain,
        }
        let mut rest = bytes.get(self.complete..).unwrap_or_default();
        loop {
            let Some((&header, after)) = rest.split_first_chunk::<5>() else {
                // The first bytes of a record.
                let valid = match rest {
                    [kind, 3, ..] | [kind] => *kind == HANDSHAKE,
                    [] => true,
                    _ => false,
                };
                return if valid { partial(bytes) } else { Hello::Malformed };
            };
            let [kind, major, _, high, low] = header;
            let length = usize::from(u16::from_be_bytes([high, low]));
            if kind != HANDSHAKE || major != 3 || !(1..=LONGEST_RECORD).contains(&length) {
                return Hello::Malformed;
            }
            let (fragment, next) = after.split_at(length.min(after.len()));
            if let Some(answer) = self.whole(fragment) {
                return answer;
            }
            if fragment.len() < length {
                return partial(bytes);
            }
            self.message.extend_from_slice(fragment);
            self.complete += header.len() + length;
            rest = next;
        }
    }

    /// The answer, if the message is complete with this fragment, or is none.
    fn whole(&self, fragment: &[u8]) -> Option<Hello> {
        let mut head = self.message.iter().chain(fragment).copied();
        if head.next()? != CLIENT_HELLO {
            return Some(Hello::Malformed);
        }
        let length = u32::from_be_bytes([0, head.next()?, head.next()?, head.next()?]) as usize;
        if length > LIMIT {
            return Some(Hello::Malformed);
        }
        let end = MESSAGE_HEADER + length;
        if self.message.len() + fragment.len() < end {
            return None;
        }
        let message = [&self.message[..], fragment].concat();
        Some(offer(&message[MESSAGE_HEADER..end]).map_or(Hello::Malformed, Hello::Tls))
    }
}

fn partial(bytes: &[u8]) -> Hello {
    if bytes.len() < LIMIT {
        Hello::Partial
    } else {
        Hello::Malformed
    }
}

/// A record of SSL 2: two bytes of length, the message type, the version that the client speaks.
fn ssl2(bytes: &[u8]) -> Hello {
    match bytes {
        [_] | [_, _] | [_, _, CLIENT_HELLO] => Hello::Partial,
        [_, _, CLIENT_HELLO, 2 | 3, ..] => Hello::Ssl2,
        _ => Hello::Plain,
    }
}

/// Bytes that are taken off from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn short(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Bytes with their length before them, in one byte.
    fn vector(&mut self) -> Option<&'a [u8]> {
        let length = self.byte()?;
        self.take(length.into())
    }

    /// The same, with the length in two bytes.
    fn long_vector(&mut self) -> Option<&'a [u8]> {
        let length = self.short()?;
        self.take(length.into())
    }
}

/// Reads the body of a ClientHello (RFC 8446 section 4.1.2). `None` if it is not one.
fn offer(body: &[u8]) -> Option<Offer> {
    let mut reader = Reader(body);
    // Version and random number; session id; cipher suites; compression methods.
    reader.take(2 + 32)?;
    reader.vector()?;
    reader.long_vector()?;
    reader.vector()?;
    let mut offer = Offer::default();
    // TLS 1.2 allows a ClientHello without extensions.
    if reader.0.is_empty() {
        return Some(offer);
    }
    let mut extensions = Reader(reader.long_vector()?);
    while !extensions.0.is_empty() {
        let (kind, data) = (extensions.short()?, extensions.long_vector()?);
        match kind {
            SERVER_NAME => offer.server_name = server_name(data)?,
            ALPN => offer.protocols = protocols(data)?,
            _ => {}
        }
    }
    Some(offer)
}

/// The first host name of a list of names.
fn server_name(data: &[u8]) -> Option<Option<String>> {
    const HOST_NAME: u8 = 0;
    let mut names = Reader(Reader(data).long_vector()?);
    let mut found = None;
    while !names.0.is_empty() {
        let (kind, name) = (names.byte()?, names.long_vector()?);
        if kind == HOST_NAME && found.is_none() {
            found = Some(name);
        }
    }
    Some(found.and_then(host_name))
}

fn host_name(name: &[u8]) -> Option<String> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let possible = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    if name.is_empty() || name.len() > 253 || !name.iter().all(possible) {
        return None;
    }
    Some(name.iter().map(|&byte| char::from(byte.to_ascii_lowercase())).collect())
}

fn protocols(data: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut list = Reader(Reader(data).long_vector()?);
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        protocols.push(list.vector()?.to_vec());
    }
    Some(protocols)
}

#[cfg(test)]
mod tests {
    use super::*;
    use openssl::ssl::{Ssl, SslContext, SslMethod, SslVersion};
    use proptest::prelude::*;
    use std::io::{self, Read, Write};

    /// The answer when all of this has come in one piece.
    fn inspect(bytes: &[u8]) -> Hello {
        Inspector::default().look(bytes)
    }

    /// Keeps what the library sends, and answers nothing.
    #[derive(Debug)]
    struct Wire(Vec<u8>);

    impl Read for Wire {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }

    impl Write for Wire {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The first flight of OpenSSL as a client.
    fn flight(name: Option<&str>, protocols: &[u8], version: SslVersion) -> Vec<u8> {
        let mut builder = SslContext::builder(SslMethod::tls_client()).expect("a context");
        builder.set_max_proto_version(Some(version)).expect("a version");
        builder.set_min_proto_version(Some(version)).expect("a version");
        if !protocols.is_empty() {
            builder.set_alpn_protos(protocols).expect("protocols");
        }
        let mut ssl = Ssl::new(&builder.build()).expect("a client");
        if let Some(name) = name {
            ssl.set_hostname(name).expect("a name");
        }
        match ssl.connect(Wire(Vec::new())) {
            Err(openssl::ssl::HandshakeError::WouldBlock(pending)) => pending.get_ref().0.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// The same message in records of this many bytes.
    fn fragmented(flight: &[u8], size: usize) -> Vec<u8> {
        let record = |part: &[u8]| {
            let length = u16::try_from(part.len()).expect("a length").to_be_bytes();
            [&[HANDSHAKE, 3, 1], &length[..], part].concat()
        };
        flight[5..].chunks(size).flat_map(record).collect()
    }

    #[test]
    fn names_and_protocols_of_openssl() {
        for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
            let flight = flight(Some("WWW.example.org"), b"\x02h2\x08http/1.1", version);
            let expected = Hello::Tls(Offer {
                server_name: Some("www.example.org".into()),
                protocols: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            });
            for length in 0..flight.len() {
                assert_eq!(inspect(&flight[..length]), Hello::Partial, "{length}");
            }
            assert_eq!(inspect(&flight), expected);
            for size in [1, 2, 3, 4, 5, 100] {
                let flight = fragmented(&flight, size);
                for length in 0..flight.len() {
                    assert_eq!(inspect(&flight[..length]), Hello::Partial, "{size} {length}");
                }
                assert_eq!(inspect(&flight), expected);
                assert_eq!(inspect(&[&flight[..], b"more"].concat()), expected);
            }
        }
        let flight = flight(None, b"", SslVersion::TLS1_2);
        assert_eq!(inspect(&flight), Hello::Tls(Offer::default()));
    }

    /// A ClientHello with these extensions.
    fn hello(extensions: &[(u16, &[u8])]) -> Vec<u8> {
        let long = |data: &[u8]| {
            [&u16::try_from(data.len()).expect("a length").to_be_bytes()[..], data].concat()
        };
        let extension =
            |&(kind, data): &(u16, &[u8])| [&kind.to_be_bytes()[..], &long(data)].concat();
        let extensions: Vec<u8> = extensions.iter().flat_map(extension).collect();
        let mut body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
        body.extend(long(&extensions));
        let length = u32::try_from(body.len()).expect("a length").to_be_bytes();
        fragmented(&[&[0; 5][..], &[CLIENT_HELLO], &length[1..], &body].concat(), 16_384)
    }

    #[test]
    fn what_is_no_name_is_none() {
        let name = |name: &[u8]| {
            let entry = [&[0, 0, name.len() as u8], name].concat();
            let list = [&[0, entry.len() as u8], &entry[..]].concat();
            match inspect(&hello(&[(0x0a0a, b"grease"), (SERVER_NAME, &list)])) {
                Hello::Tls(offer) => offer.server_name,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(name(b"a.example.").as_deref(), Some("a.example"));
        assert_eq!(name(b"_dns.a.example").as_deref(), Some("_dns.a.example"));
        for nothing in [&b""[..], b".", b"a\0.example", b"a b", "é.example".as_bytes()] {
            assert_eq!(name(nothing), None);
        }
    }

    /// Encrypted Client Hello: the name that can be seen is the outer one. GREASE (RFC 8701)
    /// may stand anywhere in the list of extensions, and in that of protocols.
    #[test]
    fn the_outer_name_of_encrypted_hellos_among_grease() {
        const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
        let mut inner = vec![0, 0, 1, 0, 1, 7, 0, 32];
        inner.extend([9; 32]);
        inner.extend([0, 144]);
        inner.extend([5; 144]);
        let hello = hello(&[
            (0x1a1a, b""),
            (ENCRYPTED_CLIENT_HELLO, &inner),
            (SERVER_NAME, b"\0\x0f\0\0\x0couter.public"),
            (ALPN, b"\0\x06\x02\x2a\x2a\x02h2"),
            (0xdada, b"\0"),
        ]);
        let Hello::Tls(offer) = inspect(&hello) else {
            panic!("no ClientHello");
        };
        assert_eq!(offer.server_name.as_deref(), Some("outer.public"));
        assert!(offer.protocols.contains(&b"h2".to_vec()));
    }

    #[test]
    fn other_beginnings_are_told_apart() {
        for (bytes, expected) in [
            (&b""[..], Hello::Partial),
            (b"\x16", Hello::Partial),
            (b"GET / HTTP/1.1\r\n", Hello::Plain),
            (b"\x16\x04", Hello::Plain),
            (b"\x80", Hello::Partial),
            (b"\x80\x2e\x01\x03\x01", Hello::Ssl2),
            (b"\x80\x2e\x04", Hello::Plain),
            (b"\x16\x03\x01\x00\x00", Hello::Malformed),
            (b"\x16\x03\x01\x00\x02\x02", Hello::Malformed),
            (b"\x16\x03\x01\x00\x01\x01\x17", Hello::Malformed),
            (b"\x16\x03\x01\x00\x04\x01\xff\xff\xff", Hello::Malformed),
            (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03", Hello::Malformed),
        ] {
            assert_eq!(inspect(bytes), expected, "{bytes:x?}");
        }
        let long = fragmented(&[&[0; 5][..], &[1, 1, 0, 0], &vec![0; 65_530]].concat(), 1);
        assert_eq!(inspect(&long), Hello::Malformed);
    }

    proptest! {
        #[test]
        fn more_bytes_never_take_an_answer_back(
            noise in prop::collection::vec(any::<u8>(), 0..40),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            size in 1usize..60,
        ) {
            let mut bytes = hello(&[(SERVER_NAME, b"\0\x04\0\0\x01a"), (ALPN, b"\0\x03\x02h2")]);
            for (index, value) in changes {
                let index = index.index(bytes.len());
                bytes[index] = value;
            }
            let bytes = [&fragmented(&bytes, size)[..], &noise].concat();
            for bytes in [&bytes, &noise] {
                let (mut answer, mut inspector) = (Hello::Partial, Inspector::default());
                for length in 0..=bytes.len() {
                    let now = inspect(&bytes[..length]);
                    if answer == Hello::Partial {
                        prop_assert_eq!(&inspector.look(&bytes[..length]), &now);
                    }
                    if answer != Hello::Partial {
                        prop_assert_eq!(&now, &answer);
                    }
                    answer = now;
                }
            }
        }
    }
}
