//! Configuration errors, with the place they point at.

use memchr::memchr_iter;
use std::fmt;
use std::rc::Rc;

use super::source::Source;

/// A place in a source.
#[derive(Clone, Debug)]
pub struct Position {
    source: Rc<Source>,
    offset: usize,
}

impl Position {
    pub(super) fn new(source: Rc<Source>, offset: usize) -> Position {
        let offset = offset.min(source.text.len());
        Position { source, offset }
    }

    /// The file name, as the configuration has it.
    pub fn file(&self) -> &str {
        &self.source.name
    }

    /// The line number, counted from 1.
    pub fn line(&self) -> usize {
        1 + memchr_iter(b'\n', &self.source.text[..self.offset]).count()
    }

    /// The text of the line, and the offset of this place in it.
    fn line_text(&self) -> (&[u8], usize) {
        let text = &self.source.text;
        let start = memchr::memrchr(b'\n', &text[..self.offset]).map_or(0, |at| at + 1);
        let end = memchr::memchr(b'\n', &text[self.offset..])
            .map_or(text.len(), |length| self.offset + length);
        (&text[start..end], self.offset - start)
    }

    /// The text up to the end of the word at this place.
    fn consumed(&self) -> &[u8] {
        let text = &self.source.text;
        let rest = &text[self.offset..];
        let word = rest.iter().position(|b| b" \t\r\n".contains(b)).unwrap_or(rest.len());
        &text[..self.offset + word]
    }
}

impl fmt::Display for Position {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.file(), self.line())
    }
}

/// Why a configuration is refused.
#[derive(Clone, Debug)]
pub struct ConfigError {
    /// The offending word.
    pub position: Position,
    /// What is wrong.
    pub message: String,
}

impl ConfigError {
    /// The source line and a caret under the offending word, for a terminal.
    pub fn excerpt(&self) -> String {
        let (line, column) = self.position.line_text();
        let column = String::from_utf8_lossy(&line[..column]).chars().count();
        let line: String = String::from_utf8_lossy(line).chars().filter(|c| *c != '\r').collect();
        // Tabs stay tabs, to keep the caret under its word.
        let indent: String =
            line.chars().take(column).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        format!("{line}\n{indent}^")
    }

    /// The file up to and including the offending word (`-D`).
    pub fn consumed(&self) -> String {
        String::from_utf8_lossy(self.position.consumed()).into_owned()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.position, self.message)
    }
}

impl std::error::Error for ConfigError {}
