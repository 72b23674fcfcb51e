//! The PROXY protocol, versions 1 and 2: what a proxy says about a client before the first byte of
//! its connection (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).
//!
//! Pure: [`read()`] and [`write()`] turn bytes into a [`Header`] and back. Sessions and dials move the
//! bytes.

mod checksum;
mod read;
#[cfg(test)]
mod tests;
mod write;

use crate::os::address::Address;
pub use read::{read, Reading, LONGEST};
pub use write::write;

/// Begins every header of version 1.
const PREFIX_1: &[u8] = b"PROXY ";
/// Begins every header of version 2.
const PREFIX_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 1, with its line end.
const LONGEST_1: usize = 107;
/// The length of a header of version 2 before the addresses.
const FIXED_2: usize = 16;

/// The numbers of version 2.
mod number {
    pub(super) const LOCAL: u8 = 0x20;
    pub(super) const PROXY: u8 = 0x21;
    pub(super) const UNSPECIFIED: u8 = 0;
    pub(super) const TCP4: u8 = 0x11;
    pub(super) const UDP4: u8 = 0x12;
    pub(super) const TCP6: u8 = 0x21;
    pub(super) const UDP6: u8 = 0x22;
    pub(super) const UNIX_STREAM: u8 = 0x31;
    pub(super) const UNIX_DATAGRAM: u8 = 0x32;
    /// Type-length-value fields.
    pub(super) const ALPN: u8 = 0x01;
    pub(super) const AUTHORITY: u8 = 0x02;
    pub(super) const CRC32C: u8 = 0x03;
    pub(super) const UNIQUE_ID: u8 = 0x05;
    pub(super) const TLS: u8 = 0x20;
    /// Fields within the TLS field.
    pub(super) const TLS_VERSION: u8 = 0x21;
    pub(super) const TLS_COMMON_NAME: u8 = 0x22;
    pub(super) const TLS_CIPHER: u8 = 0x23;
    /// Bits of the TLS field.
    pub(super) const OVER_TLS: u8 = 1;
    pub(super) const CERTIFICATE_NOW: u8 = 2;
    pub(super) const CERTIFICATE_OF_SESSION: u8 = 4;
}

/// How long the addresses of version 2 are: twice an address and a port, or twice a path.
const ADDRESSES_4: usize = 12;
const ADDRESSES_6: usize = 36;
const PATH: usize = 108;
/// The longest unique id.
const LONGEST_ID: usize = 128;

/// On whose behalf a connection is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The sender's own, such as a health check.
    Local,
    /// That of a client whose addresses the sender does not know.
    Unknown,
    /// That of a client: where it comes from, and where it has connected to.
    Client {
        /// The client's address.
        source: Address,
        /// The address that it has connected to.
        destination: Address,
    },
}

/// What is known about a client's TLS, which the sender has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Such as `TLSv1.3`.
    pub version: Vec<u8>,
    /// OpenSSL's name of the cipher suite.
    pub cipher: Option<Vec<u8>>,
    /// The common name in the client's certificate.
    pub common_name: Option<Vec<u8>>,
    /// Whether the client has a certificate.
    pub certificate: Certificate,
    /// True if that was verified.
    pub verified: bool,
}

/// Whether a client has a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Certificate {
    /// It has none.
    #[default]
    None,
    /// It has shown one when its TLS session began, and has resumed that session.
    OfSession,
    /// It has shown one on this connection.
    Presented,
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// On whose behalf the connection is made.
    pub origin: Origin,
    /// The protocol that ALPN has settled on.
    pub alpn: Option<Vec<u8>>,
    /// The name that the client asked for.
    pub authority: Option<Vec<u8>>,
    /// Names the connection in the logs of all proxies that it goes through.
    pub unique_id: Option<Vec<u8>>,
    /// Present if the client speaks TLS with the sender, or with a proxy before it.
    pub tls: Option<Tls>,
}

impl Header {
    /// A header that says nothing but this.
    pub fn of(origin: Origin) -> Header {
        Header { origin, alpn: None, authority: None, unique_id: None, tls: None }
    }

    /// For a connection that is made for no client.
    pub fn local() -> Header {
        Header::of(Origin::Local)
    }
}
