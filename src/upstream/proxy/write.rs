//! Writes headers.

use super::checksum::crc32c;
use super::{number, Certificate, Header, Origin, Tls, FIXED_2, LONGEST_ID, PATH, PREFIX_2};
use crate::config::relay::ProxyVersion;
use crate::os::address::Address;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The bytes of a header.
pub fn write(version: ProxyVersion, header: &Header) -> Vec<u8> {
    match version {
        ProxyVersion::V1 => write_1(&header.origin),
        ProxyVersion::V2 => write_2(header),
    }
}

/// Version 1 cannot say LOCAL: such a header is UNKNOWN too.
fn write_1(origin: &Origin) -> Vec<u8> {
    let text = match inet(origin) {
        Some((source, destination)) => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), destination.ip());
            let (from_port, to_port) = (source.port(), destination.port());
            format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n")
        }
        None => "PROXY UNKNOWN\r\n".to_owned(),
    };
    text.into_bytes()
}

/// The client's IP addresses, both of one family, as a header has only one.
fn inet(origin: &Origin) -> Option<(SocketAddr, SocketAddr)> {
    let Origin::Client { source: Address::Ip(source), destination: Address::Ip(destination) } =
        origin
    else {
        return None;
    };
    let canonical = |address: &SocketAddr| address.ip().to_canonical();
    let (from, to) = match (canonical(source), canonical(destination)) {
        (IpAddr::V4(from), IpAddr::V6(to)) => (from.to_ipv6_mapped().into(), to.into()),
        (IpAddr::V6(from), IpAddr::V4(to)) => (from.into(), to.to_ipv6_mapped().into()),
        same => same,
    };
    Some((SocketAddr::new(from, source.port()), SocketAddr::new(to, destination.port())))
}

fn write_2(header: &Header) -> Vec<u8> {
    let (mut family, mut body) = (number::UNSPECIFIED, Vec::new());
    match &header.origin {
        Origin::Client {
            source: Address::Unix(source),
            destination: Address::Unix(destination),
        } => {
            family = number::UNIX_STREAM;
            put_path(&mut body, source);
            put_path(&mut body, destination);
        }
        origin => {
            if let Some((source, destination)) = inet(origin) {
                family = if source.is_ipv4() { number::TCP4 } else { number::TCP6 };
                put_ip(&mut body, source.ip());
                put_ip(&mut body, destination.ip());
                body.extend(source.port().to_be_bytes());
                body.extend(destination.port().to_be_bytes());
            }
        }
    }
    // By number: some readers put them in this order before they verify the checksum.
    put(&mut body, number::ALPN, header.alpn.as_deref());
    put(&mut body, number::AUTHORITY, header.authority.as_deref());
    put(&mut body, number::CRC32C, Some(&[0; 4]));
    let checksum_ends = FIXED_2 + body.len();
    let id = header.unique_id.as_deref().map(|id| &id[..id.len().min(LONGEST_ID)]);
    put(&mut body, number::UNIQUE_ID, id);
    put(&mut body, number::TLS, header.tls.as_ref().map(tls).as_deref());
    // As HAProxy does, which refuses PROXY without addresses.
    let command = if family == number::UNSPECIFIED { number::LOCAL } else { number::PROXY };
    let mut bytes = PREFIX_2.to_vec();
    bytes.extend([command, family]);
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend(body);
    let checksum = crc32c(bytes.iter().copied()).to_be_bytes();
    bytes[checksum_ends - checksum.len()..checksum_ends].copy_from_slice(&checksum);
    bytes
}

fn put_ip(body: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => body.extend(ip.octets()),
        IpAddr::V6(ip) => body.extend(ip.octets()),
    }
}

fn put_path(body: &mut Vec<u8>, path: &Path) {
    let mut place = [0; PATH];
    let path = path.as_os_str().as_bytes();
    let length = path.len().min(PATH);
    place[..length].copy_from_slice(&path[..length]);
    body.extend(place);
}

/// Values longer than this are left out: no name or protocol is as long, and several of them might
/// not fit into a header.
const LONGEST_VALUE: usize = 1024;

fn put(body: &mut Vec<u8>, kind: u8, value: Option<&[u8]>) {
    let Some(value) = value.filter(|value| value.len() <= LONGEST_VALUE) else {
        return;
    };
    body.push(kind);
    body.extend((value.len() as u16).to_be_bytes());
    body.extend(value);
}

fn tls(tls: &Tls) -> Vec<u8> {
    let certificate = match tls.certificate {
        Certificate::None => 0,
        Certificate::OfSession => number::CERTIFICATE_OF_SESSION,
        Certificate::Presented => number::CERTIFICATE_OF_SESSION | number::CERTIFICATE_NOW,
    };
    let mut value = vec![number::OVER_TLS | certificate];
    // Zero if a certificate was presented and verified.
    value.extend(u32::from(!tls.verified).to_be_bytes());
    put(&mut value, number::TLS_VERSION, Some(&tls.version));
    put(&mut value, number::TLS_CIPHER, tls.cipher.as_deref());
    let short = |name: &&[u8]| name.len() <= LONGEST_VALUE / 2;
    put(&mut value, number::TLS_COMMON_NAME, tls.common_name.as_deref().filter(short));
    value
}
