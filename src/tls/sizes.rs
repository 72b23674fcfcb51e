//! Sizes of records: a record can be read only when all of it is there.
//!
//! What comes first is sent in records that fit into one segment, so that its receiver can begin
//! with the first segment that arrives. Each is longer than the one before, up to the longest that
//! there are: then it is the cost of a record that counts. After a pause it begins again, as the
//! connection's congestion window does (RFC 5681 section 4.1).

use super::records::MOST_PLAIN;

/// Plain bytes of the first record: with what sealing adds (29 bytes), and headers of TCP and IPv6
/// with options, one segment of an Ethernet.
const FIRST: usize = 1360;

/// The sizes of one side's records.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    /// Records sent since the beginning, as far as that matters.
    sent: u8,
}

impl Sizes {
    /// Most plain bytes of the next record.
    pub(super) fn next(&mut self) -> usize {
        let size = FIRST * (usize::from(self.sent) + 1);
        if size >= MOST_PLAIN {
            return MOST_PLAIN;
        }
        self.sent += 1;
        size
    }

    /// There was a pause.
    pub(super) fn restart(&mut self) {
        self.sent = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_grow_and_begin_again() {
        let mut sizes = Sizes::default();
        let first: Vec<_> = (0..14).map(|_| sizes.next()).collect();
        assert_eq!(first[..3], [1360, 2720, 4080]);
        assert!(first.is_sorted());
        assert_eq!(first[12..], [MOST_PLAIN; 2]);
        sizes.restart();
        assert_eq!(sizes.next(), 1360);
    }
}
