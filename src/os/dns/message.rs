//! DNS messages (RFC 1035): the query for the name of an address, and its answer; the answer to a query
//! for a service (RFC 2782).

use super::{Name, Service, Services};
use std::fmt::Write;
use std::net::IpAddr;

/// The class of Internet records.
pub const IN: u16 = 1;
/// The type of domain name pointers.
pub const PTR: u16 = 12;
/// The type of records of services.
pub const SRV: u16 = 33;
const CNAME: u16 = 5;

/// The name to query for an address (RFC 1035 section 3.5, RFC 3596 section 2.5). An IPv4-mapped
/// IPv6 address counts as IPv4.
pub fn question(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let mut name = String::with_capacity(72);
            for byte in address.octets().iter().rev() {
                // Writing into a string cannot fail.
                let _ = write!(name, "{:x}.{:x}.", byte & 15, byte >> 4);
            }
            name + "ip6.arpa"
        }
    }
}

/// Reads a message from its start.
struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.message.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn short(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    fn long(&mut self) -> Option<u32> {
        Some(u32::from(self.short()?) << 16 | u32::from(self.short()?))
    }

    /// Reads a name, which may end in a pointer to an earlier one. Characters that are not allowed
    /// in host names become `?`, so that the name equals none that is allowed.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut end = None;
        loop {
            let start = self.at;
            let length = self.byte()?;
            match length >> 6 {
                0 if length == 0 => break,
                0 => {
                    if !name.is_empty() {
                        name.push('.');
                    }
                    for _ in 0..length {
                        let character = char::from(self.byte()?);
                        name.push(if is_allowed(character) { character } else { '?' });
                    }
                    if name.len() > 255 {
                        return None;
                    }
                }
                3 => {
                    let target = usize::from(length & 63) << 8 | usize::from(self.byte()?);
                    end.get_or_insert(self.at);
                    // Pointers may only go backwards, so that this loop ends.
                    if target >= start {
                        return None;
                    }
                    self.at = target;
                }
                _ => return None,
            }
        }
        self.at = end.unwrap_or(self.at);
        Some(name)
    }
}

/// Names end up in logs and commands, so only harmless characters are allowed.
fn is_allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-_/*".contains(character)
}

/// A record of the wanted type, with the reader at its data.
struct Record {
    lifetime: u32,
    /// Where its data end.
    end: usize,
}

/// Calls `found` for each record of a type about what was asked, until it returns true. Aliases
/// (RFC 2317) are followed if they come in order. `None` if the message is broken; otherwise the
/// shortest lifetime of an alias.
fn records(
    message: &[u8],
    wanted: u16,
    mut found: impl FnMut(&mut Reader<'_>, Record) -> Option<Done>,
) -> Option<u32> {
    let mut reader = Reader { message, at: 4 };
    let (questions, answers) = (reader.short()?, reader.short()?);
    reader.at = 12;
    let mut about = None;
    for _ in 0..questions {
        about = Some(reader.name()?);
        reader.at += 4;
    }
    let (mut about, mut shortest) = (about?, u32::MAX);
    for _ in 0..answers {
        let owner = reader.name()?;
        let (kind, class) = (reader.short()?, reader.short()?);
        let lifetime = reader.long()?;
        let length = usize::from(reader.short()?);
        let end = reader.at + length;
        if class == IN && owner.eq_ignore_ascii_case(&about) {
            match kind {
                CNAME => (about, shortest) = (reader.name()?, shortest.min(lifetime)),
                _ if kind != wanted => {}
                _ if found(&mut reader, Record { lifetime, end })? == Done::Yes => break,
                _ => {}
            }
        }
        reader.at = end;
    }
    Some(shortest)
}

/// Whether enough was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Yes,
    No,
}

/// The first name in an answer.
pub fn answer(message: &[u8]) -> Option<Name> {
    let mut name = None;
    records(message, PTR, |reader, Record { lifetime, end }| {
        let text = reader.name()?;
        let usable = !text.is_empty() && !text.contains('?') && reader.at == end;
        name = usable.then_some(Name { text, lifetime });
        Some(Done::Yes)
    })?;
    name
}

/// The services in an answer. A target without a name says that there is no such service, and one
/// that is no host name is left out.
pub fn services(message: &[u8]) -> Option<Services> {
    let (mut list, mut lifetime) = (Vec::new(), u32::MAX);
    let aliases = records(message, SRV, |reader, record| {
        let [priority, weight, port] = [reader.short()?, reader.short()?, reader.short()?];
        let target = reader.name()?;
        if reader.at != record.end {
            return None;
        }
        if !target.is_empty() && !target.contains(['?', '/', '*']) && port != 0 {
            list.push(Service { priority, weight, port, target });
        }
        lifetime = lifetime.min(record.lifetime);
        Some(Done::No)
    })?;
    Some(Services { list, lifetime: lifetime.min(aliases) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for label in name.split('.').filter(|label| !label.is_empty()) {
            bytes.push(label.len() as u8);
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.push(0);
        bytes
    }

    /// An answer to a question for `name`; a record without an owner is about the question.
    fn message(name: &str, records: &[(Option<&str>, u16, &str)]) -> Vec<u8> {
        let mut bytes = vec![0, 1, 0x81, 0x80, 0, 1, 0, records.len() as u8, 0, 0, 0, 0];
        bytes.extend(encoded(name));
        bytes.extend([0, 12, 0, 1]);
        for (owner, kind, target) in records {
            bytes.extend(owner.map_or(vec![0xc0, 12], encoded));
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, 1, 0, 0, 0x0e, 0x10]);
            let target = encoded(target);
            bytes.extend((target.len() as u16).to_be_bytes());
            bytes.extend(target);
        }
        bytes
    }

    fn named(text: &str) -> Option<Name> {
        Some(Name { text: text.to_owned(), lifetime: 3600 })
    }

    fn service(priority: u16, weight: u16, port: u16, target: &str) -> Vec<u8> {
        let mut bytes = vec![0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60];
        let target = encoded(target);
        bytes.extend((6 + target.len() as u16).to_be_bytes());
        [priority, weight, port].iter().for_each(|number| bytes.extend(number.to_be_bytes()));
        bytes.extend(target);
        bytes
    }

    #[test]
    fn services_have_targets() {
        let head = |count: u8| {
            let mut bytes = vec![0, 1, 0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0];
            bytes.extend(encoded("_ldap._tcp.example.org"));
            bytes.extend([0, 33, 0, 1]);
            bytes
        };
        let mut message = head(4);
        message.extend(service(10, 5, 389, "a.example.org"));
        message.extend(service(0, 0, 0, ""));
        message.extend(service(20, 1, 390, "b.example.org"));
        message.extend(service(20, 1, 390, "b/.example.org"));
        let found = services(&message).expect("an answer");
        let target = |target: &str, priority, weight, port| Service {
            priority,
            weight,
            port,
            target: target.to_owned(),
        };
        let wanted = [target("a.example.org", 10, 5, 389), target("b.example.org", 20, 1, 390)];
        assert_eq!((&found.list[..], found.lifetime), (&wanted[..], 60));
        // One that says another length than it has spoils the answer.
        let mut message = head(1);
        let mut record = service(10, 5, 389, "a.example.org");
        record[11] -= 1;
        message.extend(record);
        assert_eq!(services(&message), None);
        assert_eq!(services(&head(0)), Some(Services { list: Vec::new(), lifetime: u32::MAX }));
    }

    #[test]
    fn questions() {
        let ask = |text: &str| question(text.parse().unwrap());
        assert_eq!(ask("192.0.2.9"), "9.2.0.192.in-addr.arpa");
        assert_eq!(ask("::ffff:192.0.2.9"), "9.2.0.192.in-addr.arpa");
        // The example of RFC 3596.
        assert_eq!(
            ask("4321:0:1:2:3:4:567:89ab"),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa"
        );
    }

    #[test]
    fn answers() {
        let name = "9.2.0.192.in-addr.arpa";
        let ptr = message(name, &[(None, PTR, "Host.example")]);
        assert_eq!(answer(&ptr), named("Host.example"));
        let alias = "9.0-15.2.0.192.in-addr.arpa";
        let through = [(None, CNAME, alias), (Some(&*alias.to_uppercase()), PTR, "host.example")];
        assert_eq!(answer(&message(name, &through)), named("host.example"));
        let other = [(Some("other.example"), PTR, "no"), (None, 1, "abc"), (None, PTR, "yes")];
        assert_eq!(answer(&message(name, &other)), named("yes"));
        assert_eq!(answer(&message(name, &[])), None);
        assert_eq!(answer(&message(name, &[(None, PTR, "")])), None);
        for bad in ["a b", "a\n", "a;b", "\u{e4}"] {
            assert_eq!(answer(&message(name, &[(None, PTR, bad)])), None, "{bad:?}");
        }
    }

    #[test]
    fn a_name_that_points_at_itself_ends() {
        let mut looping = message("x", &[(None, PTR, "y")]);
        looping[12..14].copy_from_slice(&[0xc0, 12]);
        assert_eq!(answer(&looping), None);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = answer(&bytes);
        }

        #[test]
        fn damaged(at in 4usize..60, value: u8) {
            let mut bytes = message("9.2.0.192.in-addr.arpa", &[(None, PTR, "host.example")]);
            bytes[at] = value;
            let _ = answer(&bytes);
        }
    }
}
