//! The message digests MD4 (RFC 1320) and MD5 (RFC 1321).
//!
//! Both have the same state, padding and output, and differ in how they process a block. They are
//! here for protocols and files that are defined with them, not for security.

use std::marker::PhantomData;

/// The part in which the two digests differ.
pub trait Algorithm {
    /// Mixes one block of sixteen little-endian words into the state.
    fn compress(state: &mut [u32; 4], block: &[u32; 16]);
}

/// MD4.
#[derive(Clone, Copy, Debug)]
pub enum Four {}

/// MD5.
#[derive(Clone, Copy, Debug)]
pub enum Five {}

/// A digest in progress: 88 bytes, laid out as in the reference code, because C programs allocate
/// it themselves.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Digest<A> {
    state: [u32; 4],
    /// Number of bits so far, low word first.
    count: [u32; 2],
    /// The last `count / 8 % 64` bytes, which do not fill a block yet.
    buffer: [u8; 64],
    algorithm: PhantomData<A>,
}

/// MD4 (RFC 1320).
pub type Md4 = Digest<Four>;
/// MD5 (RFC 1321).
pub type Md5 = Digest<Five>;

const _: () = assert!(size_of::<Md5>() == 88 && align_of::<Md5>() == 4);

impl<A: Algorithm> Default for Digest<A> {
    fn default() -> Self {
        Digest::new()
    }
}

impl<A: Algorithm> Digest<A> {
    /// Starts a digest.
    pub const fn new() -> Self {
        Digest {
            state: [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476],
            count: [0; 2],
            buffer: [0; 64],
            algorithm: PhantomData,
        }
    }

    /// Number of bytes in the buffer.
    fn waiting(&self) -> usize {
        (self.count[0] >> 3) as usize % 64
    }

    /// Adds `data` to the digest.
    pub fn update(&mut self, mut data: &[u8]) {
        let waiting = self.waiting();
        let bits = u64::from(self.count[1]) << 32 | u64::from(self.count[0]);
        let bits = bits.wrapping_add((data.len() as u64) << 3);
        self.count = [bits as u32, (bits >> 32) as u32];
        if waiting > 0 {
            let (head, rest) = data.split_at(data.len().min(64 - waiting));
            self.buffer[waiting..waiting + head.len()].copy_from_slice(head);
            if waiting + head.len() < 64 {
                return;
            }
            A::compress(&mut self.state, &words(&self.buffer));
            data = rest;
        }
        let mut blocks = data.chunks_exact(64);
        for block in &mut blocks {
            A::compress(&mut self.state, &words(block));
        }
        let rest = blocks.remainder();
        self.buffer[..rest.len()].copy_from_slice(rest);
    }

    /// The digest of all data. Clears the state, so that nothing of the data remains.
    pub fn finish(&mut self) -> [u8; 16] {
        let [low, high] = self.count;
        // Append a 1 bit, then zeroes until a block has eight bytes left, which take the length.
        let waiting = self.waiting();
        self.buffer[waiting] = 0x80;
        self.buffer[waiting + 1..].fill(0);
        if waiting >= 56 {
            A::compress(&mut self.state, &words(&self.buffer));
            self.buffer.fill(0);
        }
        self.buffer[56..60].copy_from_slice(&low.to_le_bytes());
        self.buffer[60..].copy_from_slice(&high.to_le_bytes());
        A::compress(&mut self.state, &words(&self.buffer));
        let mut digest = [0; 16];
        for (out, word) in digest.chunks_exact_mut(4).zip(self.state) {
            out.copy_from_slice(&word.to_le_bytes());
        }
        *self = Digest { state: [0; 4], ..Digest::new() };
        digest
    }

    /// The digest of `data`.
    pub fn of(data: &[u8]) -> [u8; 16] {
        let mut digest = Self::new();
        digest.update(data);
        digest.finish()
    }
}

/// A block of 64 bytes as little-endian words.
#[inline(always)]
fn words(block: &[u8]) -> [u32; 16] {
    let mut words = [0; 16];
    for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    words
}

/// Bitwise choice: `y` where `x` is set, `z` elsewhere.
#[inline(always)]
fn choose(x: u32, y: u32, z: u32) -> u32 {
    z ^ (x & (y ^ z))
}

/// Calls a function with one constant after another, so that each step compiles to its own code
/// with constant shifts and indices.
macro_rules! unrolled {
    ($step:ident $arguments:tt $($index:literal)*) => {
        $($step::<$index> $arguments;)*
    };
}

impl Algorithm for Four {
    fn compress(state: &mut [u32; 4], block: &[u32; 16]) {
        let mut mixed = *state;
        unrolled!(step_of_md4(&mut mixed, block)
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15
            16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
            32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47);
        add(state, mixed);
    }
}

#[inline(always)]
fn step_of_md4<const STEP: usize>(state: &mut [u32; 4], block: &[u32; 16]) {
    const SHIFTS: [[u32; 4]; 3] = [[3, 7, 11, 19], [3, 5, 9, 13], [3, 9, 11, 15]];
    // RFC 1320 section 3.4: the order of the words in each round.
    const ORDER: [[usize; 16]; 3] = [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15],
        [0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15],
    ];
    let [a, b, c, d] = *state;
    let (mixed, constant) = match STEP / 16 {
        0 => (choose(b, c, d), 0),
        1 => ((b & c) | (b & d) | (c & d), 0x5a82_7999),
        _ => (b ^ c ^ d, 0x6ed9_eba1),
    };
    let word = block[ORDER[STEP / 16][STEP % 16]];
    let sum = a.wrapping_add(word).wrapping_add(constant).wrapping_add(mixed);
    *state = [d, sum.rotate_left(SHIFTS[STEP / 16][STEP % 4]), b, c];
}

#[inline(always)]
fn add(state: &mut [u32; 4], mixed: [u32; 4]) {
    for (word, change) in state.iter_mut().zip(mixed) {
        *word = word.wrapping_add(change);
    }
}

/// RFC 1321 section 3.4: the integer part of 2^32 times abs(sin(i)), i = 1 to 64, in radians.
#[rustfmt::skip]
static SINES: [u32; 64] = [
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
];

impl Algorithm for Five {
    fn compress(state: &mut [u32; 4], block: &[u32; 16]) {
        let mut mixed = *state;
        // Hide from the compiler that these are constants: it would add constants last, when the
        // next step is already waiting for the sum. That would cost a sixth of the time.
        let sines = std::hint::black_box(&SINES);
        unrolled!(step_of_md5(&mut mixed, block, sines)
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15
            16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
            32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47
            48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63);
        add(state, mixed);
    }
}

#[inline(always)]
fn step_of_md5<const STEP: usize>(state: &mut [u32; 4], block: &[u32; 16], sines: &[u32; 64]) {
    const SHIFTS: [[u32; 4]; 4] =
        [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];
    let [a, b, c, d] = *state;
    let word = match STEP / 16 {
        0 => STEP,
        1 => 5 * STEP + 1,
        2 => 3 * STEP + 5,
        _ => 7 * STEP,
    };
    let sum = a.wrapping_add(block[word % 16]).wrapping_add(sines[STEP]);
    // `b` is the result of the previous step, so do first whatever does not need it.
    let sum = match STEP / 16 {
        0 => sum.wrapping_add(choose(b, c, d)),
        // Choose `b` where `d` is set, and `c` elsewhere.
        1 => sum.wrapping_add(c & !d).wrapping_add(b & d),
        2 => sum.wrapping_add(b ^ (c ^ d)),
        _ => sum.wrapping_add(c ^ (b | !d)),
    };
    let turned = sum.rotate_left(SHIFTS[STEP / 16][STEP % 4]);
    *state = [d, b.wrapping_add(turned), b, c];
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(digest: [u8; 16]) -> String {
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The test suites of RFC 1320 appendix A.5 and RFC 1321 appendix A.5.
    #[test]
    fn digests_are_those_of_the_standards() {
        let digits = "1234567890".repeat(8);
        for (text, four, five) in [
            ("", "31d6cfe0d16ae931b73c59d7e0c089c0", "d41d8cd98f00b204e9800998ecf8427e"),
            ("a", "bde52cb31de33e46245e05fbdbd6fb24", "0cc175b9c0f1b6a831c399e269772661"),
            ("abc", "a448017aaf21d8525fc10ae87aa6729d", "900150983cd24fb0d6963f7d28e17f72"),
            (
                "message digest",
                "d9130a8164549fe818874806e1c7014b",
                "f96b697d7cb7938d525a2f31aaf161d0",
            ),
            (
                "abcdefghijklmnopqrstuvwxyz",
                "d79e1c308aa5bbcdeea8ed63df412da9",
                "c3fcd3d76192e4007dfb496cca67e13b",
            ),
            (
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
                "043f8582f241db351ce627e153e7f0e4",
                "d174ab98d277d9f5a5611c2c9f419d9f",
            ),
            (&digits, "e33b4ddc9c38f2199c3e7b164fcc0536", "57edf4a22be3c955ac49da2e2107b67a"),
        ] {
            assert_eq!(hex(Md4::of(text.as_bytes())), four, "MD4 of {text}");
            assert_eq!(hex(Md5::of(text.as_bytes())), five, "MD5 of {text}");
        }
    }

    #[test]
    fn nothing_stays_in_a_finished_state() {
        let mut digest = Md5::new();
        digest.update(b"secret");
        digest.finish();
        assert_eq!((digest.state, digest.count, digest.buffer), ([0; 4], [0; 2], [0; 64]));
    }

    proptest! {
        #[test]
        fn pieces_make_the_same_digest(
            data in prop::collection::vec(any::<u8>(), 0..300),
            cuts in prop::collection::vec(0usize..80, 0..8),
        ) {
            let (mut four, mut five, mut rest) = (Md4::new(), Md5::new(), &data[..]);
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                four.update(head);
                five.update(head);
                rest = tail;
            }
            prop_assert_eq!(four.finish(), Md4::of(&data));
            prop_assert_eq!(five.finish(), Md5::of(&data));
        }
    }
}
