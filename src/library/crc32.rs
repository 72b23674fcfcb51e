//! The cyclic redundancy check of cksum(1) (POSIX.1-2017, XCU cksum): polynomial 0x04C11DB7, most
//! significant bit first, initial value 0.

const POLYNOMIAL: u32 = 0x04c1_1db7;

/// The remainder for each value of the highest byte.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = (byte as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            let carry = remainder >> 31;
            remainder = (remainder << 1) ^ (carry * POLYNOMIAL);
            bit += 1;
        }
        table[byte] = remainder;
        byte += 1;
    }
    table
};

fn step(crc: u32, byte: u8) -> u32 {
    (crc << 8) ^ TABLE[usize::from((crc >> 24) as u8 ^ byte)]
}

/// Continues the checksum `crc` over `data`. The first call takes 0.
pub fn update(crc: u32, data: &[u8]) -> u32 {
    data.iter().fold(crc, |crc, &byte| step(crc, byte))
}

/// The checksum as cksum(1) prints it: continued over the bytes of `length`, the size of the whole
/// input, lowest byte first and without leading zeroes, then complemented.
pub fn finish(mut crc: u32, mut length: u64) -> u32 {
    while length > 0 {
        crc = step(crc, length as u8);
        length >>= 8;
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_is_that_of_cksum() {
        assert_eq!(update(0, b"123456789"), 0x89a1_897f);
        assert_eq!(finish(update(0, b"123456789"), 9), 930_766_865);
        assert_eq!(finish(0, 0), u32::MAX);
    }

    #[test]
    fn check_continues_over_pieces() {
        assert_eq!(update(update(0, b"1234"), b"56789"), update(0, b"123456789"));
        assert_eq!(finish(0, 0x0100), !step(step(0, 0), 1));
    }
}
