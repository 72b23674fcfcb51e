//! What one session may take: `session timeout`, `first byte timeout`, `half-closed timeout`,
//! `bandwidth`.

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
    /// `bandwidth up`: bytes a second from client to remote.
    pub bandwidth_up: u64,
    /// `bandwidth down`: bytes a second from remote to client.
    pub bandwidth_down: u64,
}

/// The most bytes a second.
const MOST: i64 = 1 << 40;

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
            _ if parser.is_word("bandwidth") => {
                parser.advance()?;
                let limit = match () {
                    () if parser.is_word("up") => &mut self.bandwidth_up,
                    () if parser.is_word("down") => &mut self.bandwidth_down,
                    () => return Err(parser.expected_words(&["down", "up"])),
                };
                *limit = parser.assigned_integer(0..=MOST)? as u64;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}
