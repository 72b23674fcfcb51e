//! `mavis …` and `authorization`: who is asked whether a client may connect.

use super::Modules;
use crate::config::token::*;
use crate::config::values::Value;
use crate::config::{ConfigError, Parser};

/// `authorization = mavis`: modules are asked whether a client may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// `mavis timeout`: seconds to wait for an answer.
    pub timeout: u32,
    /// `mavis error = permit`: clients are admitted if there is no answer.
    pub permit_on_error: bool,
}

/// The section's settings for MAVIS.
pub(super) struct Mavis {
    settings: Authorization,
    /// True if a module is configured.
    module: bool,
    /// The place of `authorization = mavis`.
    wanted: Option<Value>,
}

impl Default for Mavis {
    fn default() -> Mavis {
        let settings = Authorization { timeout: 5, permit_on_error: false };
        Mavis { settings, module: false, wanted: None }
    }
}

impl Mavis {
    /// `mavis path|module|timeout|error …`, with the token `mavis` current.
    pub(super) fn parse(
        &mut self,
        parser: &mut Parser<'_>,
        modules: Modules<'_>,
    ) -> Result<(), ConfigError> {
        match parser.peek()? {
            S_timeout => {
                parser.advance()?;
                // At least 1: without a limit, a backend that hangs would hold clients for ever.
                self.settings.timeout = parser.assigned_integer(1..=i64::from(i32::MAX))? as u32;
            }
            S_error => {
                parser.advance()?;
                parser.advance()?;
                parser.expect(S_equal)?;
                self.settings.permit_on_error = match parser.code() {
                    S_permit => true,
                    S_deny => false,
                    _ => return Err(parser.expected(&[S_deny, S_permit])),
                };
                parser.advance()?;
            }
            S_module | S_path => self.module |= modules(parser)?,
            _ => {
                parser.advance()?;
                return Err(parser.expected(&[S_error, S_module, S_path, S_timeout]));
            }
        }
        Ok(())
    }

    /// `authorization = mavis | none`, with the keyword current.
    pub(super) fn authorization(&mut self, parser: &mut Parser<'_>) -> Result<(), ConfigError> {
        let place = Value { text: String::new(), position: parser.position() };
        parser.advance()?;
        parser.expect(S_equal)?;
        self.wanted = match parser.code() {
            S_mavis => Some(place),
            S_none => None,
            _ => return Err(parser.expected(&[S_mavis, S_none])),
        };
        parser.advance()
    }

    pub(super) fn finish(self) -> Result<Option<Authorization>, ConfigError> {
        match self.wanted {
            Some(place) if !self.module => {
                Err(place.error("authorization = mavis: no mavis module is configured"))
            }
            wanted => Ok(wanted.map(|_| self.settings)),
        }
    }
}
