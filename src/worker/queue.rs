//! Sessions that wait for a remote, as those that would do have as many as they may (`sessions max`,
//! `queue`).
//!
//! There is a line for each client address, and the lines take turns, so that a client with many
//! sessions delays others by one each. Sessions that may have different remotes, by their tags, wait
//! apart. Each takes a place in the queue of one remote, which bounds how many may wait; any remote
//! that will do serves it. Plain data.

use super::turns::Origin;
use crate::upstream::registry::Tag;
use crate::upstream::remote::RemoteId;
use std::collections::{HashMap, VecDeque};

/// Where a session waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    /// Which remotes will do.
    pub(super) tag: Option<Tag>,
    pub(super) origin: Origin,
    /// In whose queue it has a place.
    pub(super) remote: RemoteId,
}

/// Sessions that wait for the same remotes.
#[derive(Debug, Default)]
struct Room {
    /// The lines, in the order of their turns.
    order: VecDeque<Origin>,
    lines: HashMap<Origin, VecDeque<u32>>,
}

/// All sessions that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: HashMap<u32, Wait>,
    rooms: Vec<(Option<Tag>, Room)>,
    /// How many places in the queue of each remote are taken.
    taken: HashMap<RemoteId, usize>,
}

impl Queue {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many sessions wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How many wait in the queue of a remote.
    pub(super) fn taken(&self, remote: RemoteId) -> usize {
        self.taken.get(&remote).copied().unwrap_or(0)
    }

    /// True if sessions wait for the same remotes.
    pub(super) fn has(&self, tag: Option<Tag>) -> bool {
        self.rooms.iter().any(|(known, _)| *known == tag)
    }

    /// For which remotes sessions wait.
    pub(super) fn tags(&self) -> Vec<Option<Tag>> {
        self.rooms.iter().map(|(tag, _)| *tag).collect()
    }

    /// A session joins the line of its client.
    pub(super) fn join(&mut self, index: u32, wait: Wait) {
        debug_assert!(!self.waiting.contains_key(&index), "a session waits once");
        self.waiting.insert(index, wait);
        *self.taken.entry(wait.remote).or_default() += 1;
        let room = self.room(wait.tag);
        let line = room.lines.entry(wait.origin).or_default();
        line.push_back(index);
        if line.len() == 1 {
            room.order.push_back(wait.origin);
        }
    }

    /// The session whose turn it is. It keeps its place until [`leave`](Self::leave); if it has to
    /// wait on, its client's line is the last to have a turn again.
    pub(super) fn next(&mut self, tag: Option<Tag>) -> Option<u32> {
        let (_, room) = self.rooms.iter_mut().find(|(known, _)| *known == tag)?;
        let origin = room.order.pop_front()?;
        room.order.push_back(origin);
        room.lines.get(&origin)?.front().copied()
    }

    /// A session waits no more.
    pub(super) fn leave(&mut self, index: u32) {
        let Some(Wait { tag, origin, remote }) = self.waiting.remove(&index) else {
            return;
        };
        if let Some(count) = self.taken.get_mut(&remote) {
            *count -= 1;
            if *count == 0 {
                self.taken.remove(&remote);
            }
        }
        let Some(at) = self.rooms.iter().position(|(known, _)| *known == tag) else {
            return;
        };
        let room = &mut self.rooms[at].1;
        if let Some(line) = room.lines.get_mut(&origin) {
            line.retain(|&other| other != index);
            if line.is_empty() {
                room.lines.remove(&origin);
                room.order.retain(|other| *other != origin);
            }
        }
        if room.lines.is_empty() {
            self.rooms.swap_remove(at);
        }
    }

    fn room(&mut self, tag: Option<Tag>) -> &mut Room {
        let at = self.rooms.iter().position(|(known, _)| *known == tag).unwrap_or_else(|| {
            self.rooms.push((tag, Room::default()));
            self.rooms.len() - 1
        });
        &mut self.rooms[at].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::address::Address;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn wait(client: u8, remote: usize) -> Wait {
        let address = Address::Ip(([192, 0, 2, client], 1).into());
        Wait { tag: None, origin: Origin::of(Some(&address)), remote: RemoteId::first(remote) }
    }

    /// Serves all that wait; returns who came when.
    fn serve(queue: &mut Queue) -> Vec<u32> {
        std::iter::from_fn(|| {
            let index = queue.next(None)?;
            queue.leave(index);
            Some(index)
        })
        .collect()
    }

    #[test]
    fn a_client_with_many_sessions_delays_another_by_one() {
        let mut queue = Queue::default();
        (0..1000).for_each(|index| queue.join(index, wait(1, 0)));
        queue.join(1000, wait(2, 0));
        queue.join(1001, wait(2, 0));
        assert_eq!(queue.taken(RemoteId::first(0)), 1002);
        assert_eq!(serve(&mut queue)[..6], [0, 1000, 1, 1001, 2, 3]);
        assert!(queue.is_empty() && queue.rooms.is_empty() && queue.taken.is_empty());
    }

    #[test]
    fn who_cannot_be_served_yet_keeps_its_place() {
        let mut queue = Queue::default();
        [(0, 1), (1, 1), (2, 2)]
            .into_iter()
            .for_each(|(index, client)| queue.join(index, wait(client, 0)));
        assert_eq!(
            (queue.next(None), queue.next(None), queue.next(None)),
            (Some(0), Some(2), Some(0))
        );
        queue.leave(2);
        assert_eq!(serve(&mut queue), [0, 1]);
    }

    proptest! {
        /// Against a plain count: nobody is lost or served twice, within a line the first is first,
        /// and nothing is left behind.
        #[test]
        fn all_are_served_once(
            steps in prop::collection::vec((0u8..5, 0u8..4, 0usize..3), 0..200),
        ) {
            let mut queue = Queue::default();
            let mut lines: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
            for (number, (what, client, remote)) in (0..).zip(steps) {
                match what {
                    0..3 => {
                        queue.join(number, wait(client, remote));
                        lines.entry(client).or_default().push(number);
                    }
                    3 => {
                        if let Some(index) = queue.next(None) {
                            queue.leave(index);
                            let line = lines.values_mut().find(|line| line.first() == Some(&index));
                            prop_assert!(line.is_some());
                            line.into_iter().for_each(|line| {
                                line.remove(0);
                            });
                        }
                    }
                    _ => {
                        // One from the middle of a line gives up.
                        if let Some(line) = lines.get_mut(&client).filter(|line| !line.is_empty()) {
                            queue.leave(line.remove(line.len() / 2));
                        }
                    }
                }
                let left: usize = lines.values().map(Vec::len).sum();
                prop_assert_eq!(queue.len(), left);
                let taken: usize = (0..3).map(|at| queue.taken(RemoteId::first(at))).sum();
                prop_assert_eq!(taken, left);
            }
            let mut rest: Vec<u32> = lines.into_values().flatten().collect();
            rest.sort_unstable();
            let mut served = serve(&mut queue);
            served.sort_unstable();
            prop_assert_eq!(served, rest);
            prop_assert!(queue.rooms.is_empty() && queue.taken.is_empty());
        }
    }
}
