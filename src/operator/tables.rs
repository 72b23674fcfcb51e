//! How answers look to people.

use serde_json::Value;

/// The side on which a column has its edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    Left,
    Right,
}

/// Rows below titles. The last column is never padded.
pub(super) struct Table {
    columns: Vec<(&'static str, Edge)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(columns: &[(&'static str, Edge)]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, which has as many cells as there are columns.
    pub(super) fn add(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| plain(cell)).collect());
    }

    pub(super) fn text(&self) -> String {
        let titles: Vec<String> = self.columns.iter().map(|(title, _)| (*title).into()).collect();
        let all = || std::iter::once(&titles).chain(&self.rows);
        let width = |column: usize| all().map(|row| length(&row[column])).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for row in all() {
            let mut line = String::new();
            for ((cell, width), (_, edge)) in row.iter().zip(&widths).zip(&self.columns) {
                let padding = " ".repeat(width - length(cell));
                line += &match edge {
                    Edge::Left => format!("{cell}{padding}  "),
                    Edge::Right => format!("{padding}{cell}  "),
                };
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// Without what could move the cursor of a terminal: names come from other hosts.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A number of things: `1 session`, `2 sessions`.
pub(super) fn count(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

/// A number of bytes, with three digits: `999 B`, `1.5 kB`, `12.3 MB`.
pub(super) fn bytes(number: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut value, mut unit) = (number as f64, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 99.95);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A span of time, in its two largest units: `5s`, `3m 5s`, `2h 3m`, `4d 2h`.
pub(super) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// A number in an answer; 0 without it.
pub(super) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// A text in an answer, or nothing.
pub(super) fn words(value: &Value) -> String {
    value.as_str().unwrap_or("").to_owned()
}

/// The elements of an array in an answer.
pub(super) fn each(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The sum of the numbers in an object.
pub(super) fn sum(value: &Value) -> u64 {
    let all = value.as_object().into_iter().flat_map(|object| object.values());
    all.map(number).fold(0, u64::saturating_add)
}

/// The numbers in an object that are not 0, with their names: `overload 3, acl 1`.
pub(super) fn parts(value: &Value) -> String {
    let all = value.as_object().into_iter().flatten().filter(|(_, value)| number(value) > 0);
    let all: Vec<String> = all.map(|(name, value)| format!("{name} {value}")).collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_their_titles() {
        let mut table =
            Table::new(&[("NAME", Edge::Left), ("N", Edge::Right), ("WHY", Edge::Left)]);
        table.add(vec!["a\x1b[2J".into(), "10".into(), String::new()]);
        table.add(vec!["é".into(), "7".into(), "it is down".into()]);
        assert_eq!(table.text(), "NAME    N  WHY\na?[2J  10\né       7  it is down\n");
    }

    #[test]
    fn numbers_are_short() {
        let all = [0, 999, 1000, 1500, 99_940, 99_960, 123_456, 999_600, u64::MAX];
        let all: Vec<String> = all.into_iter().map(bytes).collect();
        let expected = [
            "0 B", "999 B", "1.0 kB", "1.5 kB", "99.9 kB", "100 kB", "123 kB", "1.0 MB", "18.4 EB",
        ];
        assert_eq!(all, expected);
        let all: Vec<String> = [0, 59, 60, 3599, 3600, 86_399, 90_000].map(span).into();
        assert_eq!(all, ["0s", "59s", "1m 0s", "59m 59s", "1h 0m", "23h 59m", "1d 1h"]);
    }
}
