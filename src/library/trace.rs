//! Lines of the debug trace (`debug()` of mavis/debug.h), indented one step for each message with
//! `+` that no `-` has ended.

/// The deepest indentation.
const DEEPEST: usize = 60;

/// The line for a message, with control characters replaced by `^`, and the indentation of the next
/// line.
pub fn line(message: &str, indent: usize) -> (String, usize) {
    let indent = if message.starts_with('-') { indent.saturating_sub(1) } else { indent };
    let next = if message.starts_with('+') { indent.saturating_add(1) } else { indent };
    let last = message.chars().count().saturating_sub(1);
    let printable =
        message
            .chars()
            .enumerate()
            .map(|(at, c)| if c.is_control() && at < last { '^' } else { c });
    (" ".repeat(indent.min(DEEPEST)).chars().chain(printable).collect(), next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_indented_by_what_is_open() {
        let mut indent = 0;
        let mut lines = Vec::new();
        for message in ["+ one\n", "a\tb\n", "+ two\n", "- two\n", "- one\n", "- none\n"] {
            let (line, next) = line(message, indent);
            lines.push(line);
            indent = next;
        }
        assert_eq!(lines, ["+ one\n", " a^b\n", " + two\n", " - two\n", "- one\n", "- none\n"]);
    }
}
