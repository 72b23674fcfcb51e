//! Lists of group ids as text: decimal numbers, separated by commas.

/// NGROUPS_MAX of this system's limits.h: no list is longer, and C programs have room for so many.
pub const MOST: usize = if cfg!(any(target_os = "linux", target_os = "android")) {
    65536
} else if cfg!(target_os = "freebsd") {
    1023
} else {
    16
};

/// As many of `groups` as fit into `room` bytes with a NUL.
pub fn to_text(groups: &[u32], room: usize) -> String {
    let mut text = String::new();
    for group in groups.iter().take(MOST) {
        let comma = if text.is_empty() { "" } else { "," };
        let next = format!("{comma}{group}");
        if text.len() + next.len() >= room {
            break;
        }
        text.push_str(&next);
    }
    text
}

/// The numbers of a list. An item that does not start with a group id is skipped, and anything
/// between a number and the next comma is ignored.
pub fn from_text(text: &[u8]) -> Vec<u32> {
    text.split(|&byte| byte == b',').filter_map(number).take(MOST).collect()
}

fn number(text: &[u8]) -> Option<u32> {
    let text = text.trim_ascii_start();
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    std::str::from_utf8(&text[..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_has_whole_numbers_only() {
        assert_eq!(to_text(&[0, 10, 4_294_967_294], 100), "0,10,4294967294");
        assert_eq!(to_text(&[100, 200], 7), "100");
        assert_eq!(to_text(&[100, 200], 8), "100,200");
        assert_eq!(to_text(&[1], 1), "");
        assert_eq!(to_text(&[], 0), "");
    }

    #[test]
    fn what_is_no_group_is_skipped() {
        assert_eq!(from_text(b"1, 2x,,y,-3,4294967296,5"), [1, 2, 5]);
        assert_eq!(from_text(b""), [0u32; 0]);
    }

    proptest! {
        #[test]
        fn list_survives(groups in prop::collection::vec(any::<u32>(), 0..20)) {
            prop_assert_eq!(from_text(to_text(&groups, 1000).as_bytes()), groups);
        }
    }
}
