//! `tls …` of a listener: whether its clients speak TLS or DTLS, and which versions.

use super::{flag, set_flag, Listener};
use crate::config::token::*;
use crate::config::{ConfigError, Parser};

/// The low byte of the protocol number of a TLS version (RFC 8446 section 4.2.1).
fn tls_version(code: Code) -> Option<u32> {
    match code {
        S_TLS1_2 => Some(3),
        S_TLS1_3 => Some(4),
        _ => None,
    }
}

/// The low byte of the protocol number of a DTLS version. DTLS 1.3 is a reserved word but refused,
/// because no TLS library in use supports it.
fn dtls_version(code: Code) -> Option<u32> {
    match code {
        S_DTLS1_0 => Some(0xff),
        S_DTLS1_2 => Some(0xfd),
        _ => None,
    }
}

/// TLS 1.2 and 1.3.
pub const TLS_DEFAULT: u32 = 0x0403;

/// DTLS 1.0 and 1.2.
const DTLS_DEFAULT: u32 = 0x00fd_00ff;

/// `tls [= VALUE]` and `tls psk = BOOL`, with the keyword current.
pub(super) fn tls(parser: &mut Parser<'_>, listener: &mut Listener) -> Result<(), ConfigError> {
    parser.advance()?;
    match parser.code() {
        S_psk => {
            let on = parser.assigned_boolean()?;
            set_flag(&mut listener.flags, flag::TLS_PSK, on);
            return Ok(());
        }
        S_equal => parser.advance()?,
        S_eof => return Err(parser.expected(&[S_equal, S_psk])),
        // spawnd's documentation uses the bare word for yes.
        _ => {
            (listener.tls_versions, listener.dtls_versions) = (TLS_DEFAULT, DTLS_DEFAULT);
            return Ok(());
        }
    }
    set_flag(&mut listener.flags, flag::TLS_AUTO | flag::TLS_INSPECT, false);
    match parser.code() {
        S_yes | S_true | S_permit => {
            (listener.tls_versions, listener.dtls_versions) = (TLS_DEFAULT, DTLS_DEFAULT);
        }
        S_no | S_false | S_deny => (listener.tls_versions, listener.dtls_versions) = (0, 0),
        S_auto => {
            (listener.tls_versions, listener.dtls_versions) = (TLS_DEFAULT, DTLS_DEFAULT);
            set_flag(&mut listener.flags, flag::TLS_AUTO, true);
        }
        _ if parser.is_word("inspect") => {
            (listener.tls_versions, listener.dtls_versions) = (0, 0);
            set_flag(&mut listener.flags, flag::TLS_INSPECT, true);
        }
        S_TLS1_2 | S_TLS1_3 => {
            listener.tls_versions = version_list(parser, tls_version, &[S_TLS1_2, S_TLS1_3], 8)?;
            return Ok(());
        }
        S_DTLS1_0 | S_DTLS1_2 | S_DTLS1_3 => {
            listener.dtls_versions =
                version_list(parser, dtls_version, &[S_DTLS1_0, S_DTLS1_2], 16)?;
            return Ok(());
        }
        _ => {
            return Err(parser.expected_words(&[
                "DTLSv1.0", "DTLSv1.2", "DTLSv1.3", "TLSv1.2", "TLSv1.3", "auto", "deny", "false",
                "inspect", "no", "permit", "true", "yes",
            ]))
        }
    }
    parser.advance()
}

/// Comma-separated versions; each one shifts those before it to the left.
fn version_list(
    parser: &mut Parser<'_>,
    number: fn(Code) -> Option<u32>,
    known: &[Code],
    shift: u32,
) -> Result<u32, ConfigError> {
    let mut list = 0u32;
    loop {
        let Some(version) = number(parser.code()) else {
            return Err(parser.expected(known));
        };
        list = list << shift | version;
        parser.advance()?;
        if !parser.accept(S_comma)? {
            return Ok(list);
        }
    }
}
