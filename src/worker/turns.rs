//! Which sessions go on with their TLS handshake in a turn of the loop.
//!
//! A step of a handshake takes as long as hundreds of reads and writes. So sessions do not take
//! steps when their sockets are ready: they ask for a turn, and at the end of a turn of the loop a
//! few may go on ([`MOST`]). What else there is to do never waits for more than these. If more have
//! asked, they wait in line, one line for each client address, and the lines take turns: a flood
//! from one address delays clients of other addresses by one step each.

use crate::os::address::Address;
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

/// The most steps in one turn of the loop.
pub(super) const MOST: usize = 4;
/// No step is begun in a turn after this many milliseconds: with long RSA keys, one takes several.
pub(super) const LONGEST: u64 = 2;

/// Whose line a session waits in: an IPv4 address, or the upper half of an IPv6 address, as one
/// client may use all of the lower half. All others share a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin(Option<IpAddr>);

impl Origin {
    pub(super) fn of(address: Option<&Address>) -> Origin {
        Origin(match address {
            Some(Address::Ip(address)) => Some(match address.ip() {
                IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
                    Some(ip) => ip.into(),
                    None => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
                },
                ip @ IpAddr::V4(_) => ip,
            }),
            Some(Address::Unix(_)) | None => None,
        })
    }
}

/// Sessions that want to go on with their handshake.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// All that have asked, by number. A number in a list below that is not here was forgotten.
    asked: HashSet<u32>,
    /// Those that have asked in this turn of the loop.
    fresh: VecDeque<u32>,
    /// Those that have asked in earlier turns.
    lines: HashMap<Origin, VecDeque<u32>>,
    /// The lines, in the order of their turns.
    order: VecDeque<Origin>,
}

impl Turns {
    /// A session asks for a turn. False if it has done so before, and waits.
    pub(super) fn ask(&mut self, index: u32) -> bool {
        let news = self.asked.insert(index);
        if news {
            self.fresh.push_back(index);
        }
        news
    }

    /// The session has ended.
    pub(super) fn forget(&mut self, index: u32) {
        if !self.asked.is_empty() {
            self.asked.remove(&index);
        }
    }

    /// True if nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// Those that have asked in this turn of the loop, if they have to wait in line.
    pub(super) fn crowd(&mut self) -> VecDeque<u32> {
        if self.order.is_empty() && self.fresh.len() <= MOST {
            return VecDeque::new();
        }
        std::mem::take(&mut self.fresh)
    }

    /// Puts one of the [crowd](Self::crowd) in line.
    pub(super) fn wait(&mut self, index: u32, origin: Origin) {
        let line = self.lines.entry(origin).or_default();
        if line.is_empty() {
            self.order.push_back(origin);
        }
        line.push_back(index);
    }

    /// The session whose turn it is.
    pub(super) fn next(&mut self) -> Option<u32> {
        loop {
            let index = match self.fresh.pop_front() {
                Some(index) => index,
                None => self.next_in_line()?,
            };
            if self.asked.remove(&index) {
                return Some(index);
            }
        }
    }

    fn next_in_line(&mut self) -> Option<u32> {
        let origin = self.order.pop_front()?;
        let line = self.lines.get_mut(&origin)?;
        let index = line.pop_front();
        if line.is_empty() {
            self.lines.remove(&origin);
        } else {
            self.order.push_back(origin);
        }
        if self.order.is_empty() {
            // Gives back the memory of a flood.
            self.lines = HashMap::new();
            self.order = VecDeque::new();
            self.asked.shrink_to(MOST);
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::of(Some(&Address::Ip(text.parse().expect("an address"))))
    }

    /// Has the crowd wait, all by the same function.
    fn line_up(turns: &mut Turns, origin: impl Fn(u32) -> Origin) -> usize {
        let crowd = turns.crowd();
        crowd.iter().for_each(|&index| turns.wait(index, origin(index)));
        crowd.len()
    }

    #[test]
    fn a_few_need_no_line() {
        let mut turns = Turns::default();
        (0..MOST as u32).for_each(|index| assert!(turns.ask(index)));
        assert!(!turns.ask(0));
        assert_eq!(line_up(&mut turns, |_| unreachable!()), 0);
        let all: Vec<u32> = std::iter::from_fn(|| turns.next()).collect();
        assert_eq!(all, [0, 1, 2, 3]);
        assert!(turns.is_empty());
    }

    #[test]
    fn a_flood_from_one_address_delays_another_by_one_step() {
        let mut turns = Turns::default();
        (0..2000).for_each(|index| assert!(turns.ask(index)));
        let origin = |index| origin(if index < 2000 { "192.0.2.1:1" } else { "192.0.2.2:1" });
        assert_eq!(line_up(&mut turns, origin), 2000);
        assert_eq!(turns.next(), Some(0));
        assert!(turns.ask(2000) && turns.ask(2001));
        assert_eq!(line_up(&mut turns, origin), 2);
        let first: Vec<u32> = (0..6).filter_map(|_| turns.next()).collect();
        assert_eq!(first, [1, 2000, 2, 2001, 3, 4]);
        // In a line, those that came first are first.
        let rest: Vec<u32> = std::iter::from_fn(|| turns.next()).collect();
        assert_eq!(rest, (5..2000).collect::<Vec<_>>());
        assert!(turns.is_empty() && turns.lines.is_empty() && turns.order.is_empty());
    }

    #[test]
    fn who_has_left_has_no_turn_and_neither_has_a_successor_that_did_not_ask() {
        let mut turns = Turns::default();
        (0..8).for_each(|index| assert!(turns.ask(index)));
        line_up(&mut turns, |_| origin("[2001:db8::1]:1"));
        turns.forget(2);
        turns.forget(3);
        // Another session has got the number, and asks.
        assert!(turns.ask(3));
        line_up(&mut turns, |_| origin("[2001:db8::1]:1"));
        let mut all: Vec<u32> = std::iter::from_fn(|| turns.next()).collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_network_of_one_client_is_one_origin() {
        assert_eq!(origin("[2001:db8::1]:1"), origin("[2001:db8::ffff:0:0:2]:3"));
        assert_ne!(origin("[2001:db8::1]:1"), origin("[2001:db8:0:1::1]:1"));
        assert_eq!(origin("[::ffff:192.0.2.1]:1"), origin("192.0.2.1:7"));
        assert_ne!(origin("192.0.2.1:1"), origin("192.0.2.2:1"));
        assert_eq!(Origin::of(Some(&Address::Unix("/path".into()))), Origin::of(None));
    }
}
