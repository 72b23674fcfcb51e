//! Base 64 (RFC 4648 section 4) with the padding of MAVIS.
//!
//! The padding is the reverse of the standard's: one byte left over gives two digits and `=`, two
//! bytes give three digits and `==`. Serial numbers on the wire look like that.

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The value of each digit, 255 for other characters.
const VALUES: [u8; 256] = {
    let mut values = [255; 256];
    let mut value = 0;
    while value < 64 {
        values[DIGITS[value] as usize] = value as u8;
        value += 1;
    }
    values
};

/// Encodes `data`.
pub fn encode(data: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(data.len().div_ceil(3) * 4 + 1);
    for group in data.chunks(3) {
        let bytes = [0, group[0], *group.get(1).unwrap_or(&0), *group.get(2).unwrap_or(&0)];
        let value = u32::from_be_bytes(bytes);
        for place in 0..=group.len() {
            text.push(DIGITS[(value >> (18 - 6 * place)) as usize % 64]);
        }
        if group.len() < 3 {
            text.resize(text.len() + group.len(), b'=');
        }
    }
    text
}

/// Decodes `text` up to the first `=`; `None` if there is another character before it. Bits left
/// over that do not fill a byte are dropped.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.split(|&character| character == b'=').next()?;
    let mut data = Vec::with_capacity(digits.len() / 4 * 3 + 3);
    for group in digits.chunks(4) {
        let mut value = 0u32;
        for (place, &digit) in group.iter().enumerate() {
            let bits = VALUES[usize::from(digit)];
            if bits == 255 {
                return None;
            }
            value |= u32::from(bits) << (18 - 6 * place);
        }
        data.extend_from_slice(&value.to_be_bytes()[1..group.len()]);
    }
    Some(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn padding_is_swapped() {
        assert_eq!(encode(b""), b"");
        assert_eq!(encode(b"a"), b"YQ=");
        assert_eq!(encode(b"ab"), b"YWI==");
        assert_eq!(encode(b"abc"), b"YWJj");
        assert_eq!(encode(&[0xff; 16]).len(), 23);
    }

    #[test]
    fn standard_padding_is_read_as_well() {
        assert_eq!(decode(b"YQ==").unwrap(), b"a");
        assert_eq!(decode(b"YWI=").unwrap(), b"ab");
        assert_eq!(decode(b"Y").unwrap(), b"");
        assert_eq!(decode(b"YQ=\xff").unwrap(), b"a");
        assert_eq!(decode(b"Y\xff"), None);
        assert_eq!(decode(b"Y Q"), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_can_be_decoded(data in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(decode(&encode(&data)), Some(data));
        }

        #[test]
        fn any_text_is_decoded_or_refused(text in prop::collection::vec(any::<u8>(), 0..50)) {
            let _ = decode(&text);
        }
    }
}
