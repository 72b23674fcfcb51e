//! What one client address may take: `client sessions max`, `client rate` and so on.

use super::network::{mask_bits, network, Network};
use super::token::*;
use super::{ConfigError, Parser};
use crate::os::address::ScopedIp;
use std::net::IpAddr;

/// `client rate = COUNT/SECONDS`: so many connections at once, and on average.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many connections.
    pub count: u32,
    /// In how many seconds.
    pub seconds: u32,
}

/// How a connection beyond a client's limits is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refuse {
    /// It is closed.
    #[default]
    Close,
    /// It is reset.
    Reset,
}

/// What one client address may take, an IPv6 address with all others of its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// `client sessions max`; 0 is no limit.
    pub sessions_max: u32,
    /// `client rate`.
    pub rate: Option<Rate>,
    /// `client exempt`: these have no limits.
    pub exempt: Vec<Network>,
    /// `client prefix`: how many bits of an IPv6 address tell clients apart.
    pub prefix: u8,
    /// `client table`: how many clients without sessions are remembered.
    pub table: usize,
    /// `client refuse`.
    pub refuse: Refuse,
}

impl Default for ClientLimits {
    fn default() -> ClientLimits {
        let (rate, exempt, refuse) = (None, Vec::new(), Refuse::Close);
        ClientLimits { sessions_max: 0, rate, exempt, prefix: 64, table: 100_000, refuse }
    }
}

/// What tells one client from others: the address without its host bits, and its zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientKey {
    /// IPv4 as IPv4-mapped IPv6.
    pub bits: u128,
    /// Of a link-local address.
    pub zone: u32,
}

/// The most connections of a rate, so that its arithmetic stays within 64 bits.
const MOST: i64 = 1_000_000;
/// The most seconds of a rate.
const LONGEST: i64 = 86_400;

impl ClientLimits {
    /// True if clients have any limit.
    pub fn are_set(&self) -> bool {
        self.sessions_max > 0 || self.rate.is_some()
    }

    /// The key of a client; `None` if it has no limits.
    pub fn key(&self, client: ScopedIp) -> Option<ClientKey> {
        if self.exempt.iter().any(|network| network.contains(client)) {
            return None;
        }
        let bits = match client.ip {
            IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => u128::from(v6),
            IpAddr::V6(v6) => mask_bits(u128::from(v6), self.prefix),
        };
        Some(ClientKey { bits, zone: client.zone })
    }

    /// `client …`, with the word `client` current.
    pub(super) fn parse(&mut self, parser: &mut Parser<'_>) -> Result<(), ConfigError> {
        parser.advance()?;
        match parser.code() {
            S_prefix => self.prefix = parser.assigned_integer(1..=128)? as u8,
            _ if parser.is_word("sessions") => {
                parser.advance()?;
                parser.expect(S_max)?;
                parser.expect(S_equal)?;
                self.sessions_max = parser.integer(0..=i64::from(i32::MAX))? as u32;
            }
            _ if parser.is_word("rate") => self.rate = rate(parser)?,
            _ if parser.is_word("exempt") => {
                parser.advance()?;
                parser.accept(S_equal)?;
                self.exempt.push(network(&parser.value()?)?);
                while parser.accept(S_comma)? {
                    self.exempt.push(network(&parser.value()?)?);
                }
            }
            _ if parser.is_word("table") => {
                self.table = parser.assigned_integer(1..=10_000_000)? as usize;
            }
            _ if parser.is_word("refuse") => {
                parser.advance()?;
                parser.expect(S_equal)?;
                self.refuse = match parser.code() {
                    S_close => Refuse::Close,
                    S_reset => Refuse::Reset,
                    _ => return Err(parser.expected(&[S_close, S_reset])),
                };
                parser.advance()?;
            }
            _ => {
                let words = ["exempt", "prefix", "rate", "refuse", "sessions", "table"];
                return Err(parser.expected_words(&words));
            }
        }
        Ok(())
    }
}

/// `rate = COUNT/SECONDS`, or `0` for none, with the word `rate` current.
fn rate(parser: &mut Parser<'_>) -> Result<Option<Rate>, ConfigError> {
    let value = parser.assigned()?;
    if value.text == "0" {
        return Ok(None);
    }
    let number = |text: &str, most| {
        let number = text.parse::<i64>().ok().filter(|number| (1..=most).contains(number))?;
        u32::try_from(number).ok()
    };
    let parts = value.text.split_once('/');
    let rate = parts.and_then(|(count, seconds)| {
        Some(Rate { count: number(count, MOST)?, seconds: number(seconds, LONGEST)? })
    });
    rate.map(Some).ok_or_else(|| {
        value.error(format!(
            "Expected connections/seconds, such as 100/10, up to {MOST}/{LONGEST}, but got '{}'",
            value.text
        ))
    })
}

/// The length of an encoded network.
const ENCODED: usize = 1 + size_of::<u128>() + size_of::<u32>();

/// The limits as workers of ours are told them, who apply them to the addresses in PROXY headers.
impl ClientLimits {
    /// Encodes the limits.
    pub fn encode(&self) -> Vec<u8> {
        let (count, seconds) = self.rate.map_or((0, 0), |rate| (rate.count, rate.seconds));
        let mut data = Vec::new();
        for number in [self.sessions_max, count, seconds, self.table as u32] {
            data.extend(number.to_be_bytes());
        }
        data.push(self.prefix);
        for network in &self.exempt {
            data.push(network.length);
            data.extend(network.bits.to_be_bytes());
            data.extend(network.zone.to_be_bytes());
        }
        data
    }

    /// Reads what [`encode`](Self::encode) has written; `None` if it is something else. How clients
    /// are refused is the broker's alone.
    pub fn decode(data: &[u8]) -> Option<ClientLimits> {
        let (head, data) = data.split_first_chunk::<17>()?;
        let number = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|byte| head[at + byte]));
        let rate = Rate { count: number(4), seconds: number(8) };
        let network = |data: &[u8]| {
            let (&length, data) = data.split_first()?;
            let (bits, zone) = data.split_first_chunk()?;
            Some(Network {
                bits: u128::from_be_bytes(*bits),
                length: Some(length).filter(|&length| length <= 128)?,
                zone: u32::from_be_bytes(*zone.first_chunk()?),
            })
        };
        Some(ClientLimits {
            sessions_max: number(0),
            rate: (rate.count > 0 && rate.seconds > 0).then_some(rate),
            exempt: data.chunks(ENCODED).map(network).collect::<Option<_>>()?,
            prefix: Some(head[16]).filter(|&prefix| prefix <= 128)?,
            table: number(12) as usize,
            refuse: Refuse::Close,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::network::parse_network;

    fn ip(text: &str) -> ScopedIp {
        text.parse::<IpAddr>().expect("an address").into()
    }

    #[test]
    fn a_network_is_one_client_and_some_are_exempt() {
        let exempt = vec![parse_network("192.0.2.0/24").expect("a network")];
        let limits = ClientLimits { exempt, ..ClientLimits::default() };
        let key = |text| limits.key(ip(text));
        assert_eq!(key("2001:db8::1"), key("2001:db8::2:0:0:3"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_ne!(key("198.51.100.1"), key("198.51.100.2"));
        assert_eq!(key("198.51.100.1"), key("::ffff:198.51.100.1"));
        assert_eq!((key("192.0.2.1"), key("::ffff:192.0.2.1")), (None, None));
        let wide = ClientLimits { prefix: 48, ..limits.clone() };
        assert_eq!(wide.key(ip("2001:db8::1")), wide.key(ip("2001:db8:0:1::1")));
    }

    #[test]
    fn workers_get_what_is_configured() {
        let exempt = vec![
            parse_network("192.0.2.0/24").expect("a network"),
            parse_network("2001:db8::/32").expect("a network"),
        ];
        let rate = Some(Rate { count: 7, seconds: 60 });
        let limits = ClientLimits {
            sessions_max: 5,
            rate,
            exempt,
            prefix: 56,
            table: 9,
            refuse: Refuse::Close,
        };
        let data = limits.encode();
        assert_eq!(ClientLimits::decode(&data), Some(limits));
        assert_eq!(ClientLimits::decode(&data[..data.len() - 1]), None);
        assert_eq!(ClientLimits::decode(&[]), None);
        let none = ClientLimits::default();
        assert_eq!(ClientLimits::decode(&none.encode()), Some(none));
    }
}
