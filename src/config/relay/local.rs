//! `local address`: where connections to remotes come from.

use super::not_an_address;
use crate::config::token::*;
use crate::config::{ConfigError, Parser};
use crate::os::address::Address;

/// Where connections to remotes come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LocalAddress {
    /// The system chooses.
    #[default]
    System,
    /// One of these, at most one per family.
    Own(Vec<Address>),
    /// The address of the client, which is not this host's.
    Client,
}

/// `local address = ADDRESS`, once per family, or `local address = client`.
pub(super) fn local_address(
    parser: &mut Parser<'_>,
    local: &mut LocalAddress,
) -> Result<(), ConfigError> {
    parser.advance()?;
    if parser.code() != S_address {
        return Err(parser.expected(&[S_address]));
    }
    let value = parser.assigned()?;
    if value.text == "client" {
        *local = LocalAddress::Client;
        return Ok(());
    }
    let address = Address::parse(&value.text)
        .map_err(|reason| not_an_address(&value, "an IP address or 'client'", &reason))?;
    let mut own = match std::mem::take(local) {
        LocalAddress::Own(own) => own,
        LocalAddress::System | LocalAddress::Client => Vec::new(),
    };
    own.retain(|other| other.family() != address.family());
    own.push(address);
    *local = LocalAddress::Own(own);
    Ok(())
}
