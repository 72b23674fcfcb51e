//! UTF-16 in little-endian byte order (RFC 2781), the form in which Active Directory takes
//! passwords.

/// Converts UTF-8, up to its first NUL if it has one. `None` if the text is not UTF-8.
pub fn utf8_to_utf16le(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.split(|&byte| byte == 0).next()?;
    let text = std::str::from_utf8(text).ok()?;
    Some(text.encode_utf16().flat_map(u16::to_le_bytes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_of_every_length() {
        assert_eq!(utf8_to_utf16le("a\u{e9}".as_bytes()).unwrap(), [0x61, 0, 0xe9, 0]);
        assert_eq!(utf8_to_utf16le("\u{20ac}".as_bytes()).unwrap(), [0xac, 0x20]);
        assert_eq!(utf8_to_utf16le("\u{1f600}".as_bytes()).unwrap(), [0x3d, 0xd8, 0, 0xde]);
        assert_eq!(utf8_to_utf16le(b"ab\0\xff").unwrap(), [0x61, 0, 0x62, 0]);
        assert_eq!(utf8_to_utf16le(b"a\xff"), None);
        assert_eq!(utf8_to_utf16le(b"\xc3"), None);
    }
}
