//! Sessions of clients as the broker counts them. A [`Seat`] is one session on its way to a worker;
//! [`Held`] has those that a worker serves. What is dropped gives its places back: a worker that
//! dies, and a connection that no worker could take.

use crate::channel::clients::{ClientId, Clients, Refusal};
use crate::config::clients::{ClientKey, ClientLimits, Refuse};
use crate::os::address::ScopedIp;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// The broker's table of clients.
#[derive(Clone, Debug)]
pub(super) struct ClientTable {
    clients: Rc<RefCell<Clients>>,
    limited: bool,
    counts_sessions: bool,
    refuse: Refuse,
}

impl ClientTable {
    /// An empty table.
    pub(super) fn new(limits: ClientLimits) -> ClientTable {
        ClientTable {
            limited: limits.are_set(),
            counts_sessions: limits.sessions_max > 0,
            refuse: limits.refuse,
            clients: Rc::new(RefCell::new(Clients::new(limits))),
        }
    }

    /// True if clients have limits.
    #[inline]
    pub(super) fn is_limited(&self) -> bool {
        self.limited
    }

    /// True if `client sessions max` is set.
    pub(super) fn counts_sessions(&self) -> bool {
        self.counts_sessions
    }

    /// How clients beyond their limits are refused.
    pub(super) fn refuse(&self) -> Refuse {
        self.refuse
    }

    /// A client connects.
    pub(super) fn admit(&self, client: ScopedIp, now: u64) -> Result<Option<Seat>, Refusal> {
        let id = self.clients.borrow_mut().admit(client, now)?;
        Ok(id.map(|id| self.seat(id)))
    }

    /// A connection goes on that was admitted before.
    pub(super) fn enter(&self, client: ScopedIp) -> Option<Seat> {
        let id = self.clients.borrow_mut().enter(client)?;
        Some(self.seat(id))
    }

    /// The sessions that a worker of the former image has, by the numbers it knows.
    pub(super) fn resume(&self, left: &[LeftClient]) -> Held {
        let mut held = Held::default();
        for &LeftClient { number, sessions, key } in left {
            for _ in 0..sessions {
                let id = self.clients.borrow_mut().resume(key);
                if let Some(id) = id {
                    held.add(number, self.seat(id));
                }
            }
        }
        held
    }

    fn seat(&self, id: ClientId) -> Seat {
        Seat { clients: Rc::clone(&self.clients), id }
    }
}

/// A session of a client.
#[derive(Debug)]
pub(super) struct Seat {
    clients: Rc<RefCell<Clients>>,
    id: ClientId,
}

impl Seat {
    /// The number that the worker is told.
    pub(super) fn number(&self) -> u32 {
        self.id.number()
    }

    fn key(&self) -> Option<ClientKey> {
        self.clients.borrow().key(self.id)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.clients.borrow_mut().leave(self.id);
    }
}

/// Sessions of one client, for the next image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftClient {
    /// What the worker calls the client.
    pub number: u32,
    /// How many sessions it has there.
    pub sessions: u32,
    /// What tells the client from others.
    pub key: ClientKey,
}

/// The sessions of one worker, by the numbers of their clients.
#[derive(Debug, Default)]
pub(super) struct Held(HashMap<u32, Vec<Seat>>);

impl Held {
    /// The worker has got a session.
    pub(super) fn add(&mut self, number: u32, seat: Seat) {
        self.0.entry(number).or_default().push(seat);
    }

    /// A session has ended, or is no longer the worker's. False if it has none of this client.
    pub(super) fn give_back(&mut self, number: u32) -> bool {
        let Some(seats) = self.0.get_mut(&number) else {
            return false;
        };
        seats.pop();
        if seats.is_empty() {
            self.0.remove(&number);
        }
        true
    }

    /// All of them, for the next image.
    pub(super) fn left(&self) -> Vec<LeftClient> {
        let left = |(&number, seats): (&u32, &Vec<Seat>)| {
            let key = seats.first()?.key()?;
            Some(LeftClient { number, sessions: seats.len() as u32, key })
        };
        self.0.iter().filter_map(left).collect()
    }
}

impl LeftClient {
    /// A word of the handover's text.
    pub(super) fn encode(&self) -> String {
        let LeftClient { number, sessions, key: ClientKey { bits, zone } } = self;
        format!("{number}:{sessions}:{bits:x}:{zone}")
    }

    /// Reads what [`encode`](Self::encode) has written.
    pub(super) fn decode(word: &str) -> Option<LeftClient> {
        let mut parts = word.split(':');
        let number = parts.next()?.parse().ok()?;
        let sessions = parts.next()?.parse().ok()?;
        let bits = u128::from_str_radix(parts.next()?, 16).ok()?;
        let zone = parts.next()?.parse().ok()?;
        Some(LeftClient { number, sessions, key: ClientKey { bits, zone } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn a_worker_that_dies_gives_its_sessions_back_and_the_next_image_takes_them_over() {
        let limits = ClientLimits { sessions_max: 2, ..ClientLimits::default() };
        let table = ClientTable::new(limits.clone());
        let client: ScopedIp = "2001:db8::1".parse::<IpAddr>().expect("an address").into();
        let mut held = Held::default();
        for _ in 0..2 {
            let seat = table.admit(client, 0).expect("room").expect("a seat");
            held.add(seat.number(), seat);
        }
        let full = |table: &ClientTable| table.admit(client, 0).err() == Some(Refusal::Sessions);
        assert!(full(&table));
        let left = held.left();
        let text: Vec<String> = left.iter().map(LeftClient::encode).collect();
        let read: Option<Vec<_>> = text.iter().map(|word| LeftClient::decode(word)).collect();
        assert_eq!(read.as_ref(), Some(&left));
        let next = ClientTable::new(limits);
        let mut resumed = next.resume(&left);
        assert!(full(&next));
        assert!(resumed.give_back(left[0].number) && !full(&next));
        drop(resumed);
        drop(held);
        assert!(!full(&table) && !full(&next));
        assert!(next.clients.borrow().len() == 1);
    }
}
