//! What the monitor has found out about remotes, and what operators have decided: a word each in a
//! remote's row.

use super::{Zone, HEALTH, IDENTITY, MONITOR, MONITORED, WISH};
use crate::upstream::health::Health;
use crate::upstream::wish::Wish;
use std::sync::atomic::Ordering::SeqCst;

impl Zone {
    /// Notes whether there is a monitor. For the broker only.
    pub fn set_monitored(&self, monitored: bool) {
        self.words[MONITORED].store(monitored.into(), SeqCst);
    }

    /// True if there is a monitor, so that remotes are probed.
    pub fn is_monitored(&self) -> bool {
        self.words[MONITORED].load(SeqCst) != 0
    }

    /// What is known of a remote's health.
    pub fn health(&self, row: usize) -> Health {
        Health::decode(self.field(row, HEALTH).load(SeqCst))
    }

    /// Sets the health of a remote, and tells all workers. For the monitor only.
    pub fn set_health(&self, row: usize, health: Health) {
        debug_assert!(self.slots == 1 || self.slot == MONITOR);
        let (place, word) = (self.field(row, HEALTH), health.encode());
        if place.load(SeqCst) != word {
            place.store(word, SeqCst);
            self.announce(row);
        }
    }

    /// What operators have decided about a remote.
    pub fn wish(&self, row: usize) -> Wish {
        Wish::decode(self.field(row, WISH).load(SeqCst))
    }

    /// Sets what an operator has decided about a remote, and tells all workers. For the monitor, and
    /// the broker after a reload.
    pub fn set_wish(&self, row: usize, wish: Wish) {
        let (place, word) = (self.field(row, WISH), wish.encode());
        if place.load(SeqCst) != word {
            place.store(word, SeqCst);
            self.announce(row);
        }
    }

    /// Takes over what operators have decided about our remotes from the zone of a former image, as
    /// far as that counts after a reload.
    pub fn inherit_wishes(&self, former: &Zone) {
        let identity = |zone: &Zone, row| zone.field(row, IDENTITY).load(SeqCst);
        for row in (0..self.remotes).take_while(|&row| identity(self, row) != 0) {
            let mut theirs = (0..former.remotes).take_while(|&row| identity(former, row) != 0);
            let same = |&theirs: &usize| identity(former, theirs) == identity(self, row);
            if let Some(theirs) = theirs.find(same) {
                self.set_wish(row, former.wish(theirs).after_reload());
            }
        }
    }

    /// The configuration was read again: what was decided until then no longer counts.
    pub fn end_passing_wishes(&self) {
        let known = |&row: &usize| self.field(row, IDENTITY).load(SeqCst) != 0;
        for row in (0..self.remotes).take_while(known) {
            self.set_wish(row, self.wish(row).after_reload());
        }
    }
}
