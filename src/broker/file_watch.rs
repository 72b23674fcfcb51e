//! Files for TLS that change without a signal (`tls watch`): the broker looks at them from time to
//! time, and reads the configuration again when one of them looks different.
//!
//! A file may change while the configuration is read, so what counts is how it looked before that.
//! A set of files that does not fit together, as certificate and key may while they are being
//! replaced, is refused like any other mistake, and the next change is noticed.

use super::kind;
use crate::event::{Loop, Token};
use crate::snapshot::material::{Looks, Material};

/// When to look, and how the files looked.
pub(super) struct FileWatch {
    /// In milliseconds; 0 is never.
    period: u64,
    known: Option<Looks>,
}

impl FileWatch {
    pub(super) fn new(seconds: u32) -> FileWatch {
        FileWatch { period: u64::from(seconds) * 1000, known: None }
    }

    /// Starts to look. `before` is how they looked before they were read, if a former image did it.
    pub(super) fn begin(&mut self, before: Option<Looks>, material: &Material, events: &mut Loop) {
        if self.period == 0 {
            return;
        }
        let now = material.looks();
        self.known = Some(before.filter(|before| before.names == now.names).unwrap_or(now));
        self.arm(events);
    }

    fn arm(&self, events: &mut Loop) {
        events.arm(Token::new(kind::FILES, 0), events.now() + self.period);
    }

    /// The files are about to be read.
    pub(super) fn are_read(&mut self, material: &Material) {
        if self.period > 0 {
            self.known = Some(material.looks());
        }
    }

    /// How they looked before they were last read.
    pub(super) fn known(&self) -> Option<Looks> {
        self.known
    }

    /// Looks at them. True if one has changed.
    pub(super) fn look(&mut self, material: &Material, events: &mut Loop) -> bool {
        self.arm(events);
        let now = material.looks();
        let before = self.known.replace(now);
        // Other names are another configuration, which was read with them.
        before.is_some_and(|before| before.names == now.names && before.stamps != now.stamps)
    }
}
