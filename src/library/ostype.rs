//! Paths that depend on the operating system.

/// Expands `format`: `%o` becomes `running`, the type of this system; `%O` becomes `built`, that of
/// the system the library was built for; `%%` becomes a percent sign; any other pair vanishes.
///
/// The result has less than `room` bytes. The rest is left out; a system type is never cut, but
/// left out if it does not fit.
pub fn expand(format: &[u8], room: usize, running: &[u8], built: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut format = format.iter();
    // A substitution must leave one byte more free than a plain character.
    let limit = room.saturating_sub(1);
    while let Some(&byte) = format.next().filter(|_| text.len() < limit) {
        let piece = match byte {
            b'%' => match format.next() {
                Some(b'o') => running,
                Some(b'O') => built,
                Some(b'%') => b"%",
                Some(_) => b"",
                None => break,
            },
            _ => {
                text.push(byte);
                continue;
            }
        };
        if text.len() + piece.len() < limit {
            text.extend_from_slice(piece);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expanded(format: &str, room: usize) -> String {
        String::from_utf8(expand(format.as_bytes(), room, b"linux-6", b"linux-5")).unwrap()
    }

    #[test]
    fn pairs_are_replaced() {
        assert_eq!(expanded("/a/%o/%O/%%%x!", 100), "/a/linux-6/linux-5/%!");
        assert_eq!(expanded("a%", 100), "a");
        assert_eq!(expanded("abc", 3), "ab");
        assert_eq!(expanded("a%ob", 5), "ab");
        assert_eq!(expanded("a", 0), "");
    }

    proptest! {
        #[test]
        fn result_fits(format in "[a%oOx]{0,20}", room in 0usize..40) {
            prop_assert!(expanded(&format, room).len() < room.max(1));
        }
    }
}
