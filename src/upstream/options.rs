//! Socket options of upstream connections.

use crate::config::relay::Remote;
use crate::os::address::Family;
use crate::os::socket::{Keepalive, Kind, Options, Protocol};
use crate::os::{self, log, Socket};
use std::io;

/// Sets keepalive and the user timeout as configured. Only TCP has them.
pub fn apply(socket: &Socket, remote: &Remote) -> io::Result<()> {
    if remote.protocol == Protocol::Sctp || remote.address.family() == Family::Unix {
        return Ok(());
    }
    let keepalive = socket.set_keepalive_parameters(remote.keepalive);
    keepalive.and(socket.set_user_timeout(remote.keepalive))
}

/// Tries the options of each remote on a socket of its kind, and logs which are refused.
/// Connections go on without those, and do not log it again.
pub fn try_all(remotes: &[Remote]) {
    for remote in remotes.iter().filter(|remote| remote.keepalive != Keepalive::default()) {
        // If the protocol is missing, connecting fails as well and logs that.
        let family = remote.address.family();
        let fresh = Socket::new(family, Kind::Stream, remote.protocol);
        if let Err(error) = fresh.map_or(Ok(()), |fresh| apply(&fresh, remote)) {
            let reason = os::reason(&error);
            log::message(&format!(
                "remote {}: tcp keepalive or user timeout: {reason}",
                remote.address
            ));
        }
    }
}
