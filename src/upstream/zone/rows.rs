//! The rows of remotes: who holds which, and how a process takes and leaves them.

use super::{Zone, IDENTITY, LOCK, RETRY_AT, USED};
use std::collections::HashMap;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;

/// How often the lock is tried, and the pause between two tries. Taking rows takes microseconds.
const LOCK_TRIES: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_micros(100);

impl Zone {
    /// Takes the rows of remotes, each of which has an identity of its own. `None` if there are not
    /// enough rows, or if the lock could not be taken in time; no row is taken then.
    pub fn take_rows(&self, identities: &[u64]) -> Option<Vec<usize>> {
        let lock = &self.words[LOCK];
        let free = || lock.compare_exchange(0, self.slot as u64 + 1, SeqCst, SeqCst).is_ok();
        let locked = (0..LOCK_TRIES).any(|attempt| {
            if attempt > 0 {
                thread::sleep(LOCK_PAUSE);
            }
            free()
        });
        let rows = locked.then(|| self.find(identities)).flatten();
        if let Some(rows) = &rows {
            for (&row, &identity) in rows.iter().zip(identities) {
                self.hold(row, identity);
            }
        }
        if locked {
            self.unlock(self.slot);
        }
        rows
    }

    pub(super) fn unlock(&self, slot: usize) {
        // A lock of another worker is left alone.
        let _ = self.words[LOCK].compare_exchange(slot as u64 + 1, 0, SeqCst, SeqCst);
    }

    /// The rows of these remotes. Remotes without a row get rows that nobody holds: first those
    /// that were used before.
    fn find(&self, identities: &[u64]) -> Option<Vec<usize>> {
        let mut wanted: HashMap<u64, usize> =
            identities.iter().enumerate().map(|(place, &identity)| (identity, place)).collect();
        // Two remotes with one identity cannot share a row: each counts for itself.
        if wanted.len() < identities.len() || wanted.contains_key(&0) {
            return None;
        }
        let mut rows = vec![None; identities.len()];
        let mut unheld = Vec::new();
        let mut end = 0;
        while end < self.remotes {
            let identity = self.field(end, IDENTITY).load(SeqCst);
            // Rows are used in order, so all the rest are unused.
            if identity == 0 {
                break;
            }
            match wanted.remove(&identity) {
                Some(place) => rows[place] = Some(end),
                None if !self.is_held(end) => unheld.push(end),
                None => {}
            }
            end += 1;
        }
        let mut vacant = unheld.into_iter().chain(end..self.remotes);
        rows.into_iter().map(|row| row.or_else(|| vacant.next())).collect()
    }

    /// Holds a row, and clears it first if it was another remote's.
    fn hold(&self, row: usize, identity: u64) {
        let place = self.field(row, IDENTITY);
        if place.load(SeqCst) != identity {
            for field in RETRY_AT..USED + self.slots {
                self.field(row, field).store(0, SeqCst);
            }
            if place.load(SeqCst) != 0 {
                self.restart_counters(row);
            }
            place.store(identity, SeqCst);
        }
        self.words[self.holders + row].fetch_or(1 << self.slot, SeqCst);
    }

    pub(super) fn is_held(&self, row: usize) -> bool {
        self.words[self.holders + row].load(SeqCst) != 0
    }

    /// Gives up a row. None of our sessions may use its remote any more.
    pub fn leave_row(&self, row: usize) {
        if self.slot < self.slots {
            self.set_used(row, 0);
        }
        self.words[self.holders + row].fetch_and(!(1 << self.slot), SeqCst);
    }
}
