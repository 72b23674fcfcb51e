//! The addresses of listeners: literals, paths, and names to be resolved.

use crate::config::broker::Broker;
use crate::config::listen::Listener;
use crate::config::network::is_host_name;
use crate::config::ConfigError;
use crate::os::address::{Address, NotAnAddress};
use crate::os::{self, names};

/// Resolves the addresses of listeners one after the other. The listeners of a port range share an
/// address, which is looked up once.
#[derive(Debug, Default)]
pub struct Resolver {
    last: Option<(Option<String>, Result<Address, String>)>,
}

impl Resolver {
    /// The address to bind: a literal, a path, or the first address of a name.
    pub fn resolve(&mut self, listener: &Listener) -> Result<Address, String> {
        let text = listener.address.as_ref().map(|value| &value.text);
        let known = self.last.as_ref().filter(|(last, _)| last.as_ref() == text);
        let address = match known {
            Some((_, address)) => address.clone(),
            None => {
                let address = resolve(text.map(String::as_str));
                self.last = Some((text.cloned(), address.clone()));
                address
            }
        };
        address.map(|address| address.with_port(listener.port))
    }
}

/// Finds a mistake in the addresses of listeners.
pub fn check(config: &Broker) -> Result<(), ConfigError> {
    let mut resolver = Resolver::default();
    for listener in &config.listeners {
        if let (Err(reason), Some(address)) = (resolver.resolve(listener), &listener.address) {
            return Err(address.error(format!(
                "Expected an address to listen on, but got '{}': {reason}",
                address.text
            )));
        }
    }
    Ok(())
}

fn resolve(text: Option<&str>) -> Result<Address, String> {
    let wildcard = || if names::has_ipv6() { "::" } else { "0.0.0.0" };
    let text = text.unwrap_or_else(wildcard);
    match Address::parse(text) {
        Ok(address) => return Ok(address),
        Err(NotAnAddress::Malformed) if is_host_name(text) => {}
        Err(reason) => return Err(reason.to_string()),
    }
    let found = names::resolve(text).map_err(|error| os::reason(&error))?;
    let first = found.first().ok_or("the name has no address")?;
    Ok(Address::Ip(*first))
}
