//! `control { }`: the socket of tcprelayctl.

use super::listen::{socket_file, Listener};
use super::token::*;
use super::{ConfigError, Parser};

/// Who may connect, unless the configuration says otherwise: the owner.
const MODE: u32 = 0o600;
/// How many clients may wait.
const BACKLOG: i32 = 16;
/// How often binding is tried again, in seconds.
const RETRY_DELAY: u32 = 5;

/// `control [=] { … }`, with the word `control` current: a listener for its path.
pub(super) fn control(parser: &mut Parser<'_>) -> Result<Listener, ConfigError> {
    let begin = parser.position();
    let mut listener = Listener {
        mode: Some(MODE),
        backlog: BACKLOG,
        overload_backlog: BACKLOG,
        empty: false,
        ..Listener::new(RETRY_DELAY)
    };
    parser.advance()?;
    parser.accept(S_equal)?;
    parser.expect(S_openbra)?;
    parser.block(|parser| {
        if parser.code() == S_path {
            let path = parser.assigned()?;
            if !path.text.starts_with('/') {
                return Err(path.error("The path of the control socket must be absolute"));
            }
            listener.address = Some(path);
        } else if !socket_file(parser, &mut listener)? {
            return Err(parser.expected_words(&["group", "mode", "owner", "path"]));
        }
        Ok(())
    })?;
    parser.advance()?;
    if listener.address.is_none() {
        let message = "control { path = … } is missing".to_owned();
        return Err(ConfigError { position: begin, message });
    }
    Ok(listener)
}
