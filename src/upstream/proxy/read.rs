//! Reads headers, which may come in pieces, and from anybody.

use super::checksum::crc32c;
use super::{
    number, Certificate, Header, Origin, Tls, ADDRESSES_4, ADDRESSES_6, FIXED_2, LONGEST_1,
    LONGEST_ID, PATH, PREFIX_1, PREFIX_2,
};
use crate::os::address::Address;
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;

/// The longest header that is read. A certificate of the client may be in one.
pub const LONGEST: usize = 16 * 1024;

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// They may become a header.
    Incomplete,
    /// They are not a header, and will not become one.
    Absent,
    /// They begin with a header, this many bytes long.
    Complete(Box<Header>, usize),
    /// They begin like a header, but are none, for this reason.
    Malformed(&'static str),
}

/// Looks for a header in the first bytes of a connection.
pub fn read(bytes: &[u8]) -> Reading {
    match () {
        () if bytes.starts_with(PREFIX_1) => read_1(bytes),
        () if bytes.starts_with(PREFIX_2) => read_2(bytes),
        () if PREFIX_1.starts_with(bytes) || PREFIX_2.starts_with(bytes) => Reading::Incomplete,
        () => Reading::Absent,
    }
}

fn read_1(bytes: &[u8]) -> Reading {
    let start = &bytes[..bytes.len().min(LONGEST_1)];
    let Some(end) = start.windows(2).position(|pair| pair == b"\r\n") else {
        return match bytes.len() < LONGEST_1 {
            true => Reading::Incomplete,
            false => Reading::Malformed("the line is too long"),
        };
    };
    let line = std::str::from_utf8(&bytes[PREFIX_1.len()..end]);
    match line.ok().and_then(origin_1) {
        Some(origin) => Reading::Complete(Box::new(Header::of(origin)), end + 2),
        None => Reading::Malformed("the line is not understood"),
    }
}

fn origin_1(line: &str) -> Option<Origin> {
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Some(Origin::Unknown);
    }
    let words: Vec<&str> = line.split(' ').collect();
    let [family, from, to, from_port, to_port] = words[..] else {
        return None;
    };
    let (from, to): (IpAddr, IpAddr) = match family {
        "TCP4" => (from.parse::<Ipv4Addr>().ok()?.into(), to.parse::<Ipv4Addr>().ok()?.into()),
        "TCP6" => (from.parse::<Ipv6Addr>().ok()?.into(), to.parse::<Ipv6Addr>().ok()?.into()),
        _ => return None,
    };
    let port = |text: &str| {
        let plain = text == "0" || !text.starts_with(['0', '+']);
        text.parse::<u16>().ok().filter(|_| plain)
    };
    Some(client(SocketAddr::new(from, port(from_port)?), SocketAddr::new(to, port(to_port)?)))
}

fn client(source: SocketAddr, destination: SocketAddr) -> Origin {
    Origin::Client { source: Address::Ip(source), destination: Address::Ip(destination) }
}

fn read_2(bytes: &[u8]) -> Reading {
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED_2) else {
        return Reading::Incomplete;
    };
    let (command, family) = (fixed[12], fixed[13]);
    if command != number::LOCAL && command != number::PROXY {
        return Reading::Malformed("unknown version or command");
    }
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED_2 + length > LONGEST {
        return Reading::Malformed("it is too long");
    }
    let Some(body) = rest.get(..length) else {
        return Reading::Incomplete;
    };
    let header = match command {
        // Whatever else it says is to be ignored.
        number::LOCAL => Ok(Header::local()),
        _ => header_2(&bytes[..FIXED_2 + length], family, body),
    };
    match header {
        Ok(header) => Reading::Complete(Box::new(header), FIXED_2 + length),
        Err(reason) => Reading::Malformed(reason),
    }
}

const CUT_SHORT: &str = "a field is cut short";

fn header_2(whole: &[u8], family: u8, body: &[u8]) -> Result<Header, &'static str> {
    let size = match family {
        number::UNSPECIFIED => 0,
        number::TCP4 | number::UDP4 => ADDRESSES_4,
        number::TCP6 | number::UDP6 => ADDRESSES_6,
        number::UNIX_STREAM | number::UNIX_DATAGRAM => 2 * PATH,
        // Nobody knows where the addresses of another family end.
        _ => return Ok(Header::of(Origin::Unknown)),
    };
    let (addresses, fields) = body.split_at_checked(size).ok_or("the addresses are cut short")?;
    let mut header = Header::of(match family {
        number::TCP4 => inet::<4>(addresses).ok_or(CUT_SHORT)?,
        number::TCP6 => inet::<16>(addresses).ok_or(CUT_SHORT)?,
        number::UNIX_STREAM => {
            let (source, destination) = addresses.split_at(PATH);
            Origin::Client { source: path(source), destination: path(destination) }
        }
        _ => Origin::Unknown,
    });
    let mut fields = Fields(fields);
    while let Some(field) = fields.next() {
        let (kind, value) = field?;
        match kind {
            number::ALPN => header.alpn = Some(value.to_vec()),
            number::AUTHORITY => header.authority = Some(value.to_vec()),
            number::UNIQUE_ID if value.len() > LONGEST_ID => {
                return Err("the unique id is too long")
            }
            number::UNIQUE_ID => header.unique_id = Some(value.to_vec()),
            number::TLS => header.tls = tls(value)?,
            number::CRC32C => {
                let sum: [u8; 4] =
                    value.try_into().map_err(|_| "the checksum has another length")?;
                // It was computed with zeroes in its own place.
                let (before, after) = whole.split_at(whole.len() - fields.0.len());
                let before = &before[..before.len() - sum.len()];
                let zeroed = before.iter().chain(&[0; 4]).chain(after).copied();
                if crc32c(zeroed) != u32::from_be_bytes(sum) {
                    return Err("the checksum is wrong");
                }
            }
            _ => {}
        }
    }
    Ok(header)
}

/// Two addresses of N bytes, then two ports.
fn inet<const N: usize>(bytes: &[u8]) -> Option<Origin>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = bytes.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let (destination_port, _) = rest.split_first_chunk::<2>()?;
    let address = |ip: &[u8; N], port| SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(port));
    Some(client(address(source, *source_port), address(destination, *destination_port)))
}

/// A path, padded with NUL bytes. A name that is no path begins with one (unix(7)).
fn path(bytes: &[u8]) -> Address {
    let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    Address::Unix(OsStr::from_bytes(&bytes[..used]).into())
}

/// Type-length-value fields, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u8, &'a [u8]), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&kind, rest) = self.0.split_first()?;
        let field = rest.split_first_chunk::<2>().and_then(|(length, rest)| {
            rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
        });
        let Some((value, rest)) = field else {
            self.0 = &[];
            return Some(Err(CUT_SHORT));
        };
        self.0 = rest;
        Some(Ok((kind, value)))
    }
}

/// `None` if the client does not speak TLS.
fn tls(value: &[u8]) -> Result<Option<Tls>, &'static str> {
    let (&client, rest) = value.split_first().ok_or(CUT_SHORT)?;
    let (verify, fields) = rest.split_first_chunk::<4>().ok_or(CUT_SHORT)?;
    let certificate = match client {
        _ if client & number::CERTIFICATE_NOW != 0 => Certificate::Presented,
        _ if client & number::CERTIFICATE_OF_SESSION != 0 => Certificate::OfSession,
        _ => Certificate::None,
    };
    let verified = certificate != Certificate::None && *verify == [0; 4];
    let mut tls = Tls { certificate, verified, ..Tls::default() };
    for field in Fields(fields) {
        let (kind, value) = field?;
        match kind {
            number::TLS_VERSION => tls.version = value.to_vec(),
            number::TLS_CIPHER => tls.cipher = Some(value.to_vec()),
            number::TLS_COMMON_NAME => tls.common_name = Some(value.to_vec()),
            _ => {}
        }
    }
    Ok((client & number::OVER_TLS != 0).then_some(tls))
}
