//! How answers look to people.

/// A number of things: `1 session`, `2 sessions`.
pub(super) fn count(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}
