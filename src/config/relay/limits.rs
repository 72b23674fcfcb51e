//! What one session may take: `session timeout`, `first byte timeout`, `half-closed timeout`.

use super::super::common;
use super::super::token::*;
use super::super::{ConfigError, Parser};

/// What one session may take, besides `idle timeout`. 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `session timeout`: seconds from its beginning to its end.
    pub session_timeout: u32,
    /// `first byte timeout`: seconds from the connection with the remote to the remote's first byte.
    pub first_byte_timeout: u32,
    /// `half-closed timeout`: seconds without a byte when one side has ended.
    pub half_closed_timeout: u32,
}

impl Limits {
    /// One of these directives; false if the current token begins none.
    pub(super) fn parse(&mut self, parser: &mut Parser<'_>) -> Result<bool, ConfigError> {
        match parser.code() {
            S_session => self.session_timeout = common::timeout(parser)?,
            _ if parser.is_word("first") => {
                parser.advance()?;
                if !parser.is_word("byte") {
                    return Err(parser.expected_words(&["byte"]));
                }
                self.first_byte_timeout = common::timeout(parser)?;
            }
            _ if parser.is_word("half-closed") => {
                self.half_closed_timeout = common::timeout(parser)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}
