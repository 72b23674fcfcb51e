//! Sizes of records: a record can be read only when all of it is there.
//!
//! The first record fits into one segment, so that its receiver can begin when that segment
//! arrives. Each record is longer than the one before, up to the longest possible: by then it is
//! the cost of each record that counts. After a pause the sizes start again, as the connection's
//! congestion window does (RFC 5681 section 4.1).

use super::records::MOST_PLAIN;

/// Plain bytes of the first record. With what sealing adds (29 bytes), and headers of TCP and IPv6
/// with options, they fill one Ethernet segment.
const FIRST: usize = 1360;

/// The sizes of one side's records.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    /// Records sent since the last restart; no longer counted once they have the longest size.
    sent: u8,
}

impl Sizes {
    /// The most plain bytes of the next record.
    pub(super) fn next(&mut self) -> usize {
        let size = FIRST * (usize::from(self.sent) + 1);
        if size >= MOST_PLAIN {
            return MOST_PLAIN;
        }
        self.sent += 1;
        size
    }

    /// Starts again with the first size, after a pause.
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
