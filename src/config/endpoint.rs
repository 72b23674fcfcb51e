//! `status = { … }`: a socket at which the monitor answers.

use super::error::Position;
use super::listen::{socket_file, Listener};
use super::network::is_host_name;
use super::token::*;
use super::values::{parse_port, Value};
use super::{ConfigError, Parser};
use crate::os::address::Address;

/// A socket at which the monitor answers.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where it listens. The address is set.
    pub listener: Listener,
    /// The place of its directive.
    pub position: Position,
}

/// Without an address only this host is answered: what is shown there is not for everybody.
const LOOPBACK: &str = "127.0.0.1";
/// Of a UNIX socket, if nothing else is said.
const MODE: u32 = 0o600;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// `status = { … }`, with the keyword current.
pub(super) fn status(parser: &mut Parser<'_>) -> Result<Endpoint, ConfigError> {
    let mut endpoint = Endpoint { listener: Listener::new(0), position: parser.position() };
    let listener = &mut endpoint.listener;
    (listener.backlog, listener.overload_backlog) = (BACKLOG, BACKLOG);
    let place = here(parser);
    let (mut port, mut file) = (None, None);
    parser.advance()?;
    parser.expect(S_equal)?;
    parser.expect(S_openbra)?;
    parser.block(|parser| {
        match parser.code() {
            S_address | S_path => listener.address = Some(parser.assigned()?),
            S_port => port = Some(parser.assigned()?),
            _ => {
                let place = here(parser);
                if !socket_file(parser, listener)? {
                    let words = ["address", "group", "mode", "owner", "path", "port"];
                    return Err(parser.expected_words(&words));
                }
                file.get_or_insert(place);
            }
        }
        Ok(())
    })?;
    parser.advance()?;
    let address = listener.address.clone();
    let parsed = address.as_ref().map(|address| Address::parse(&address.text));
    match (&parsed, &port, &file) {
        (None, None, _) => {
            return Err(place.error("'status' needs a port, an address and a port, or a path"))
        }
        (Some(Ok(Address::Unix(_))), Some(port), _) => {
            return Err(port.error("A UNIX-domain socket has no ports"))
        }
        (Some(Ok(Address::Unix(_))), None, _) => {}
        (_, _, Some(file)) => {
            return Err(file.error("mode, owner and group are for a UNIX-domain socket: 'path'"))
        }
        (Some(Err(reason)), ..) if !address.as_ref().is_some_and(is_name) => {
            let address = address.unwrap_or(place);
            let text =
                format!("Expected an address to listen on, but got '{}': {reason}", address.text);
            return Err(address.error(text));
        }
        (Some(_), None, _) => return Err(place.error("'status' needs a port")),
        (_, Some(port), None) => {
            listener.port = parse_port(port, &*parser.system())?;
            if address.is_none() {
                let text = LOOPBACK.to_owned();
                listener.address = Some(Value { text, ..port.clone() });
            }
        }
    }
    listener.empty = false;
    listener.mode.get_or_insert(MODE);
    Ok(endpoint)
}

fn is_name(address: &Value) -> bool {
    is_host_name(&address.text)
}

/// The current word, for a message that points at it.
fn here(parser: &Parser<'_>) -> Value {
    Value { text: String::new(), position: parser.position() }
}
