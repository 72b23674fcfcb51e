//! The Blowfish variant of MAVIS, which encrypts queries to remote backends.
//!
//! Algorithm, key schedule and byte order (big-endian words) are those of Blowfish (Schneier, 1993)
//! in electronic codebook mode, but most of the initial values are zero: the original code mistook
//! a count of words for one of bytes. Both ends must agree, so the mistake stays. By today's
//! standards this is no protection.

use super::blowfish_tables;

/// An expanded key. To C programs it is 4168 bytes of opaque memory.
#[repr(C)]
#[derive(Clone)]
pub struct Key {
    p: [u32; 18],
    s: [[u32; 256]; 4],
}

impl Key {
    /// Expands `key`: its first 72 bytes, or a shorter key repeated. An empty key is the same as
    /// one of zeroes.
    pub fn new(key: &[u8]) -> Key {
        let key = if key.is_empty() { &[0] } else { key };
        let mut expanded = Key { p: [0; 18], s: [[0; 256]; 4] };
        expanded.p[..5].copy_from_slice(&blowfish_tables::P);
        for (s, start) in expanded.s.iter_mut().zip(&blowfish_tables::S) {
            s[..64].copy_from_slice(start);
        }
        let mut bytes = key.iter().copied().cycle();
        for word in &mut expanded.p {
            *word ^= bytes.by_ref().take(4).fold(0, |word, byte| word << 8 | u32::from(byte));
        }
        let mut pair = [0; 2];
        for at in (0..18).step_by(2) {
            pair = expanded.encrypt_pair(pair);
            expanded.p[at..at + 2].copy_from_slice(&pair);
        }
        for s in 0..4 {
            for at in (0..256).step_by(2) {
                pair = expanded.encrypt_pair(pair);
                expanded.s[s][at..at + 2].copy_from_slice(&pair);
            }
        }
        expanded
    }

    fn mix(&self, word: u32) -> u32 {
        let [a, b, c, d] = word.to_be_bytes().map(usize::from);
        (self.s[0][a].wrapping_add(self.s[1][b]) ^ self.s[2][c]).wrapping_add(self.s[3][d])
    }

    fn encrypt_pair(&self, [mut left, mut right]: [u32; 2]) -> [u32; 2] {
        for &p in &self.p[..16] {
            left ^= p;
            right ^= self.mix(left);
            (left, right) = (right, left);
        }
        [right ^ self.p[17], left ^ self.p[16]]
    }

    fn decrypt_pair(&self, [mut left, mut right]: [u32; 2]) -> [u32; 2] {
        for &p in self.p[2..].iter().rev() {
            left ^= p;
            right ^= self.mix(left);
            (left, right) = (right, left);
        }
        [right ^ self.p[0], left ^ self.p[1]]
    }

    /// Encrypts the whole 32-bit words of `data` in place. A last word without a partner is
    /// encrypted together with a zero word, and the receiver cannot decrypt it.
    pub fn encrypt(&self, data: &mut [u8]) {
        transform(data, |pair| self.encrypt_pair(pair));
    }

    /// Decrypts in place, the same words as [`Key::encrypt`].
    pub fn decrypt(&self, data: &mut [u8]) {
        transform(data, |pair| self.decrypt_pair(pair));
    }
}

fn transform(data: &mut [u8], work: impl Fn([u32; 2]) -> [u32; 2]) {
    let whole = data.len() / 4 * 4;
    for block in data[..whole].chunks_mut(8) {
        let word = |at: usize| {
            block.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
        };
        let result = work([word(0), word(4)]);
        for (bytes, word) in block.chunks_exact_mut(4).zip(result) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
    }
}

/// The encrypted length of a message of `length` bytes: the next multiple of 8, plus a useless half
/// block if the last block has four to seven bytes.
pub const fn encrypted_length(length: usize) -> usize {
    match length % 8 {
        0 => length,
        _ => length.saturating_add(8) / 4 * 4,
    }
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encrypted(key: &[u8], text: &[u8]) -> String {
        let mut data = text.to_vec();
        data.resize(encrypted_length(text.len()), 0);
        Key::new(key).encrypt(&mut data);
        data.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Results of the C library.
    #[test]
    fn results_are_those_of_the_wire() {
        assert_eq!(encrypted(b"secret", &[0; 8]), "5c042d85205406e2");
        assert_eq!(encrypted(b"0123456789abcdef", b"ABCDEFGH"), "c80891815de50806");
        assert_eq!(encrypted(&[0; 8], &[0; 8]), "d3e6f7f19d8d151d");
        assert_eq!(encrypted(b"", &[0; 8]), "d3e6f7f19d8d151d");
        assert_eq!(
            encrypted(b"secret", b"0 TACPLUS\n4 joe\n\0"),
            "da80599545b836558ca74b8887f9ab425c042d85205406e2"
        );
    }

    #[test]
    fn lengths_have_a_half_block_too_many() {
        let lengths = [0, 1, 3, 4, 7, 8, 9, 12].map(encrypted_length);
        assert_eq!(lengths, [0, 8, 8, 12, 12, 8, 16, 20]);
    }

    proptest! {
        #[test]
        fn what_is_encrypted_can_be_decrypted(
            key in prop::collection::vec(any::<u8>(), 0..80),
            text in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let key = Key::new(&key);
            let mut data = text.clone();
            data.resize(encrypted_length(text.len()), 0);
            key.encrypt(&mut data);
            key.decrypt(&mut data);
            prop_assert_eq!(&data[..text.len()], &text[..]);
        }
    }
}
