//! Socket options of upstream connections.

use crate::config::relay::Remote;
use crate::os::address::Family;
use crate::os::socket::{self, Keepalive, Kind, Protocol};
use crate::os::{self, log};
use std::io;
use std::os::fd::OwnedFd;

/// Sets keepalive and the user timeout as configured. Only TCP has them.
pub fn apply(socket: &OwnedFd, remote: &Remote) -> io::Result<()> {
    if remote.protocol == Protocol::Sctp || remote.address.family() == Family::Unix {
        return Ok(());
    }
    let keepalive = socket::set_keepalive_parameters(socket, remote.keepalive);
    keepalive.and(socket::set_user_timeout(socket, remote.keepalive))
}

/// Tries the options of each remote on a socket of its kind, and logs which are refused.
/// Connections go on without those, and do not log it again.
pub fn try_all(remotes: &[Remote]) {
    for remote in remotes.iter().filter(|remote| remote.keepalive != Keepalive::default()) {
        // If the protocol is missing, connecting fails as well and logs that.
        let family = remote.address.family();
        let fresh = socket::create(family, Kind::Stream, remote.protocol);
        if let Err(error) = fresh.map_or(Ok(()), |fresh| apply(&fresh, remote)) {
            let reason = os::reason(&error);
            log::message(&format!(
                "remote {}: tcp keepalive or user timeout: {reason}",
                remote.address
            ));
        }
    }
}
