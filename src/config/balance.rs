//! `balance …`: how the remote of a session is selected, and among whom.

use super::token::*;
use super::values::Value;
use super::{ConfigError, Parser};

/// How the remote of a session is selected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// The one with the fewest sessions for its weight, as in the C program.
    #[default]
    LeastUse,
    /// One after the other, by weight.
    RoundRobin,
    /// The better of two that are drawn by weight.
    Random,
    /// The one that the client's address belongs to.
    Source,
    /// The one that the TLS server name belongs to, or without one the client's address.
    Hash,
}

const KINDS: [(&str, Kind); 5] = [
    ("hash", Kind::Hash),
    ("least-use", Kind::LeastUse),
    ("random", Kind::Random),
    ("round-robin", Kind::RoundRobin),
    ("source", Kind::Source),
];

/// Whose sessions count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Those of all workers.
    #[default]
    All,
    /// Each worker's own, as in the C program.
    Worker,
}

/// The directives of a section.
#[derive(Clone, Debug, Default)]
pub struct Balance {
    /// `balance = KIND`.
    pub kind: Kind,
    /// `balance tag = TAG KIND`: how the remotes with a tag are selected.
    pub tags: Vec<(Value, Kind)>,
    /// `balance scope`.
    pub scope: Scope,
}

impl Balance {
    /// True if some remotes are selected by the name that a client asks for.
    pub fn needs_names(&self) -> bool {
        self.kind == Kind::Hash || self.tags.iter().any(|&(_, kind)| kind == Kind::Hash)
    }

    /// `balance = KIND`, `balance tag = TAG KIND` or `balance scope = all | worker`, with the word
    /// `balance` current.
    pub(super) fn parse(&mut self, parser: &mut Parser<'_>) -> Result<(), ConfigError> {
        parser.advance()?;
        match () {
            () if parser.code() == S_equal => {
                parser.advance()?;
                self.kind = kind(parser)?;
            }
            () if parser.code() == S_tag => {
                let tag = parser.assigned()?;
                let kind = kind(parser)?;
                self.tags.retain(|(known, _)| known.text != tag.text);
                self.tags.push((tag, kind));
            }
            () if parser.is_word("scope") => {
                parser.advance()?;
                parser.expect(S_equal)?;
                self.scope = match () {
                    () if parser.is_word("all") => Scope::All,
                    () if parser.is_word("worker") => Scope::Worker,
                    () => return Err(parser.expected_words(&["all", "worker"])),
                };
                parser.advance()?;
            }
            () => return Err(parser.expected_words(&["=", "scope", "tag"])),
        }
        Ok(())
    }

    /// Refuses a tag that no remote has.
    pub(super) fn check(&self, exists: impl Fn(&str) -> bool) -> Result<(), ConfigError> {
        match self.tags.iter().find(|(tag, _)| !exists(&tag.text)) {
            Some((tag, _)) => {
                Err(tag.error(format!("balance tag: no remote has the tag '{}'", tag.text)))
            }
            None => Ok(()),
        }
    }
}

fn kind(parser: &mut Parser<'_>) -> Result<Kind, ConfigError> {
    let Some(&(_, kind)) = KINDS.iter().find(|(name, _)| parser.is_word(name)) else {
        return Err(parser.expected_words(&KINDS.map(|(name, _)| name)));
    };
    parser.advance()?;
    Ok(kind)
}
