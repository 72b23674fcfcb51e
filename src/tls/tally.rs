//! Counts records that pass on the wire, whatever they contain.

/// A header has type, version and length (RFC 8446 section 5.1).
const HEADER: usize = 5;
const CHANGE_CIPHER_SPEC: u8 = 20;

/// The records in one direction of a wire.
#[derive(Debug, Default)]
pub(super) struct Tally {
    header: [u8; HEADER],
    have: usize,
    /// Bytes of the record's body that are still to come.
    left: usize,
    records: u64,
    since_change: u64,
    changes: u32,
}

impl Tally {
    /// Counts bytes that pass.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.have < HEADER {
                let part = bytes.len().min(HEADER - self.have);
                self.header[self.have..self.have + part].copy_from_slice(&bytes[..part]);
                self.have += part;
                bytes = &bytes[part..];
                if self.have == HEADER {
                    self.left = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                }
            } else {
                let part = bytes.len().min(self.left);
                self.left -= part;
                bytes = &bytes[part..];
            }
            if self.have == HEADER && self.left == 0 {
                self.have = 0;
                self.count();
            }
        }
    }

    fn count(&mut self) {
        if self.header[0] == CHANGE_CIPHER_SPEC {
            self.changes += 1;
            self.since_change = 0;
        } else {
            self.records += 1;
            self.since_change += 1;
        }
    }

    /// True if no record has begun without having ended.
    pub(super) fn is_at_border(&self) -> bool {
        self.have == 0
    }

    /// How many records have passed, except for ChangeCipherSpec, which TLS 1.3 does not protect.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// TLS 1.2: how many of them were protected. `None` unless keys have changed exactly once.
    pub(super) fn since_change(&self) -> Option<u64> {
        (self.changes == 1).then_some(self.since_change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cuts_make_no_difference(
            records in prop::collection::vec((20u8..24, 0usize..300), 0..12),
            cuts in prop::collection::vec(1usize..40, 1..20),
        ) {
            let mut wire = Vec::new();
            for &(kind, length) in &records {
                wire.extend([kind, 3, 3, (length >> 8) as u8, length as u8]);
                wire.resize(wire.len() + length, 20);
            }
            let mut tally = Tally::default();
            let (mut rest, mut cuts) = (&wire[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (part, tail) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                tally.pass(part);
                rest = tail;
            }
            prop_assert!(tally.is_at_border());
            let is_change = |record: &&(u8, usize)| record.0 == 20;
            let changes = records.iter().filter(is_change).count();
            prop_assert_eq!(tally.records() as usize, records.len() - changes);
            let since = records.iter().rev().take_while(|record| record.0 != 20).count();
            prop_assert_eq!(tally.since_change(), (changes == 1).then_some(since as u64));
            tally.pass(&[23, 3]);
            prop_assert!(!tally.is_at_border());
        }
    }
}
