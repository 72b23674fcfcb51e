//! Makes arbitrary bytes printable.

/// Makes bytes printable with the escapes of C string literals: a backslash doubled, `\a \b \v \f
/// \n \r \t`, and three octal digits for everything else that is not printable ASCII.
///
/// Stops once `limit` bytes are written. The last escape is written whole, so the result may be up
/// to three bytes longer than `limit`.
pub fn escape(data: &[u8], limit: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(data.len().min(limit) + 4);
    for &byte in data {
        if text.len() >= limit {
            break;
        }
        match byte {
            b'\\' => text.extend_from_slice(b"\\\\"),
            b' '..=b'~' => text.push(byte),
            0x07 => text.extend_from_slice(b"\\a"),
            0x08 => text.extend_from_slice(b"\\b"),
            0x0b => text.extend_from_slice(b"\\v"),
            0x0c => text.extend_from_slice(b"\\f"),
            b'\n' => text.extend_from_slice(b"\\n"),
            b'\r' => text.extend_from_slice(b"\\r"),
            b'\t' => text.extend_from_slice(b"\\t"),
            _ => {
                let digit = |shift: u32| b'0' + (byte >> shift & 7);
                text.extend_from_slice(&[b'\\', digit(6), digit(3), digit(0)]);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_printable_is_escaped() {
        assert_eq!(escape(b"a b~", 10), b"a b~");
        assert_eq!(escape(b"\\\x07\x08\x0b\x0c\n\r\t", 100), b"\\\\\\a\\b\\v\\f\\n\\r\\t");
        assert_eq!(escape(b"\0\x1b\x7f\x80\xff", 100), b"\\000\\033\\177\\200\\377");
    }

    proptest! {
        #[test]
        fn length_is_bounded(
            data in prop::collection::vec(any::<u8>(), 0..50),
            limit in 0usize..60,
        ) {
            let text = escape(&data, limit);
            prop_assert!(limit == 0 && text.is_empty() || text.len() <= limit + 3);
            prop_assert!(text.iter().all(|b| (b' '..=b'~').contains(b)));
        }
    }
}
