//! Splits a line into words, in place.

/// White space, as isspace(3) defines it in the C locale.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Splits `text`, which ends at its first NUL, into words, and returns where each word starts. Ends
/// every word with a NUL, which overwrites a byte of `text`.
///
/// Words are separated by blanks and tabs. A word that starts with `"` goes to the next `"`. In a
/// word without quotes, `"` ends the word, and a backslash makes the next character an ordinary
/// one.
///
/// `None` if there are more than `limit` words; the first `limit` have been split by then.
pub fn tokenize(text: &mut [u8], limit: usize) -> Option<Vec<usize>> {
    let end = text.iter().position(|&byte| byte == 0)?;
    let mut words = Vec::new();
    let mut at = 0;
    loop {
        while at < end && is_space(text[at]) {
            at += 1;
        }
        if at == end {
            return Some(words);
        }
        if words.len() >= limit {
            return None;
        }
        let (start, next) = word(text, at, end);
        words.push(start);
        at = next;
    }
}

/// Ends the word at `at` with a NUL. Returns its start, and where to look for the next word.
fn word(text: &mut [u8], at: usize, end: usize) -> (usize, usize) {
    let quoted = text[at] == b'"';
    let start = at + usize::from(quoted);
    let (mut from, mut to) = (start, start);
    while from < end {
        match text[from] {
            b'"' => break,
            b' ' | b'\t' if !quoted => break,
            b'\\' if !quoted && from + 1 < end => from += 1,
            _ => {}
        }
        text[to] = text[from];
        from += 1;
        to += 1;
    }
    text[to] = 0;
    (start, (from + 1).min(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str, limit: usize) -> Option<Vec<String>> {
        let mut buffer = [text.as_bytes(), b"\0"].concat();
        let starts = tokenize(&mut buffer, limit)?;
        let word = |start: usize| {
            let bytes = buffer[start..].split(|&b| b == 0).next().unwrap();
            String::from_utf8_lossy(bytes).into_owned()
        };
        Some(starts.into_iter().map(word).collect())
    }

    #[test]
    fn words_quotes_and_backslashes() {
        for (text, expected) in [
            ("", &[][..]),
            (" \t\n ", &[]),
            ("a b\tc ", &["a", "b", "c"]),
            ("one \"two three\" four", &["one", "two three", "four"]),
            ("\"\"", &[""]),
            ("\"open end ", &["open end "]),
            ("a\"b c\"", &["a", "b", "c"]),
            ("a\\ b", &["a b"]),
            ("\\\"a\\\" b", &["\"a\"", "b"]),
            ("\"a\\\" b", &["a\\", "b"]),
            ("a\\\\b", &["a\\b"]),
            ("end\\", &["end\\"]),
        ] {
            assert_eq!(words(text, 10).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn too_many_words_are_refused() {
        assert!(words("a b", 2).is_some());
        assert!(words("a b c", 2).is_none());
        assert!(words("", 0).is_some());
        assert!(words("a", 0).is_none());
        assert_eq!(tokenize(&mut [], 1), None);
    }

    proptest! {
        #[test]
        fn nothing_outside_of_the_text_is_touched(
            text in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut buffer = [&text[..], b"\0rest\0"].concat();
            let starts = tokenize(&mut buffer, 100).unwrap();
            prop_assert!(starts.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(buffer.ends_with(b"rest\0"));
        }
    }
}
