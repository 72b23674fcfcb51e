//! Remotes come and go: their places here, and their rows in the zone.

use super::super::remote::RemoteId;
use super::super::wish::Service;
use super::super::zone::State;
use super::{Balancer, Entry, Remote, Standing};

impl Balancer {
    /// Adds remotes. `None` if a shared zone has no room for them.
    pub fn add(&mut self, entries: &[Entry]) -> Option<Vec<RemoteId>> {
        self.zone.make_room(entries.len());
        let identities: Vec<u64> = entries.iter().map(|entry| entry.identity).collect();
        let rows = self.zone.take_rows(&identities)?;
        let ids = self.place(entries, rows);
        self.group();
        Some(ids)
    }

    /// Gives remotes a place.
    pub(super) fn place(&mut self, entries: &[Entry], rows: Vec<usize>) -> Vec<RemoteId> {
        let mut ids = Vec::with_capacity(entries.len());
        for (entry, row) in entries.iter().zip(rows) {
            let index = self.vacant.pop().unwrap_or_else(|| {
                let index = self.remotes.len();
                self.remotes.push(Remote {
                    id: RemoteId::first(index),
                    standing: Standing::Vacant,
                    configured: 1,
                    weight: 1,
                    step: 1,
                    tags: Vec::new(),
                    identity: 0,
                    check: None,
                    tier: 0,
                    most: u64::MAX,
                    row: 0,
                    own: 0,
                    state: State::default(),
                    service: Service::Normal,
                    share: 0,
                });
                index
            });
            let remote = &mut self.remotes[index];
            remote.standing = Standing::InUse;
            remote.set(entry);
            ids.push(remote.id);
            self.take_row(index, row);
        }
        ids
    }

    /// Remotes in these places leave, are changed, or are used again though they were removed
    /// before, and others join: all in one, as each change costs as much as there are remotes.
    /// `None` if a shared zone has no room for those that join; nothing is changed then. The names
    /// of the others in the zone stay.
    pub fn exchange(
        &mut self,
        leaving: &[usize],
        changing: &[(usize, Entry)],
        joining: &[Entry],
    ) -> Option<Vec<RemoteId>> {
        self.zone.make_room(joining.len());
        let identities: Vec<u64> = joining.iter().map(|entry| entry.identity).collect();
        let rows = match joining.is_empty() {
            true => Vec::new(),
            false => self.zone.take_rows(&identities)?,
        };
        for (index, entry) in changing {
            if self.id(*index).is_some() {
                let remote = &mut self.remotes[*index];
                let identity = remote.identity;
                remote.standing = Standing::InUse;
                remote.set(&Entry { identity, ..entry.clone() });
            }
        }
        for &index in leaving {
            if self.is_in_use(index) {
                self.remotes[index].standing = Standing::Draining;
                self.vacate_if_drained(index);
            }
        }
        let ids = self.place(joining, rows);
        self.group();
        Some(ids)
    }

    /// Changes what is known of a remote. False if the remote was removed, or if a shared zone has
    /// no room for its new identity; the remote stays as it was.
    pub fn change(&mut self, index: usize, entry: &Entry) -> bool {
        if !self.is_in_use(index) {
            return false;
        }
        if entry.identity != self.remotes[index].identity {
            self.zone.make_room(1);
            let Some(rows) = self.zone.take_rows(&[entry.identity]) else {
                return false;
            };
            self.leave_row(index);
            rows.into_iter().for_each(|row| self.take_row(index, row));
        }
        self.remotes[index].set(entry);
        self.group();
        true
    }

    /// Removes a remote: it is not selected any more, but stays as long as sessions use it.
    pub fn remove(&mut self, index: usize) {
        if self.is_in_use(index) {
            self.remotes[index].standing = Standing::Draining;
            self.vacate_if_drained(index);
            self.group();
        }
    }

    /// The remote in a place, even if it drains.
    pub(in crate::upstream) fn id(&self, index: usize) -> Option<RemoteId> {
        let remote = self.remotes.get(index)?;
        (remote.standing != Standing::Vacant).then_some(remote.id)
    }

    /// True if a place has a remote that was not removed.
    pub(in crate::upstream) fn is_in_use(&self, index: usize) -> bool {
        self.remotes.get(index).is_some_and(|remote| remote.standing == Standing::InUse)
    }

    pub(super) fn take_row(&mut self, index: usize, row: usize) {
        if row >= self.by_row.len() {
            self.by_row.resize(row + 1, None);
        }
        self.by_row[row] = Some(index);
        let remote = &mut self.remotes[index];
        remote.row = row;
        self.zone.set_used(row, remote.own);
        self.read(index);
    }

    pub(super) fn leave_row(&mut self, index: usize) {
        let row = self.remotes[index].row;
        self.by_row[row] = None;
        self.zone.leave_row(row);
    }

    /// Gives up the place of a removed remote that no session uses.
    pub(super) fn vacate_if_drained(&mut self, index: usize) {
        let remote = &mut self.remotes[index];
        if remote.standing != Standing::Draining || remote.own > 0 {
            return;
        }
        remote.standing = Standing::Vacant;
        remote.id = remote.id.next();
        self.dead.remove(&(remote.state.retry_at, index));
        remote.state = State::default();
        remote.obey();
        self.leave_row(index);
        self.vacant.push(index);
    }
}
