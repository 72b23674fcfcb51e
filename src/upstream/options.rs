//! Socket options of upstream connections.

use crate::config::relay::{LocalAddress, Relay, Remote};
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

/// Makes sure that this process may connect from its clients' addresses, if it is to (`local address
/// = client`). Fails with what to do about it.
pub fn try_transparent(settings: &Relay) -> Result<(), String> {
    if settings.local != LocalAddress::Client {
        return Ok(());
    }
    for remote in &settings.remotes {
        let family = remote.address.family();
        if family == Family::Unix {
            continue;
        }
        // If the protocol is missing, connecting fails as well and logs that.
        let Ok(socket) = Socket::new(family, Kind::Stream, remote.protocol) else {
            continue;
        };
        socket.set_foreign_address(family).map_err(|error| {
            let what = match error.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) if cfg!(target_os = "linux") => {
                    "workers need the capability CAP_NET_RAW to use addresses that are not this \
                     host's"
                }
                Some(libc::EPERM | libc::EACCES) => {
                    "workers must run as root to use addresses that are not this host's"
                }
                _ => "this system has no addresses but its own",
            };
            format!("local address = client: {}: {what}", os::reason(&error))
        })?;
    }
    Ok(())
}
