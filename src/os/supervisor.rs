//! The protocols of service managers: socket activation (sd_listen_fds(3)) and readiness
//! (sd_notify(3)). Plain environment variables and a datagram; no library is needed.

use super::{descriptor, Listener};
use std::os::fd::RawFd;
use std::os::unix::net::UnixDatagram;

/// The first descriptor that socket activation passes.
const FIRST: RawFd = 3;

/// The sockets that the service manager opened for this process. The variables are removed so that
/// no child takes them for its own.
pub fn activated_sockets() -> Vec<Listener> {
    let number = |name| std::env::var(name).ok()?.parse::<i32>().ok();
    let (pid, count) = (number("LISTEN_PID"), number("LISTEN_FDS"));
    for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        std::env::remove_var(name);
    }
    if pid != Some(super::process::id()) {
        return Vec::new();
    }
    let count = count.unwrap_or(0).clamp(0, 4096);
    (FIRST..FIRST + count)
        .filter_map(|fd| {
            let fd = descriptor::adopt(fd).ok()?;
            descriptor::close_on_exec(&fd).ok()?;
            Some(Listener::from(fd))
        })
        .collect()
}

/// Tells the service manager that a reload has begun. It then waits for READY=1; the timestamp
/// shows it that this does not answer an earlier signal.
pub fn notify_reloading() {
    let now = super::monotonic_microseconds();
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
}

/// Tells the service manager about a change of state, such as `READY=1`. Does nothing if there is
/// no service manager.
pub fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let Ok(socket) = UnixDatagram::unbound() else {
        return;
    };
    // A service manager that does not read must not block us.
    let _ = socket.set_nonblocking(true);
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::ffi::OsStrExt;
        if let Some(name) = path.as_bytes().strip_prefix(b"@") {
            if let Ok(address) = std::os::unix::net::SocketAddr::from_abstract_name(name) {
                let _ = socket.send_to_addr(state.as_bytes(), &address);
            }
            return;
        }
    }
    let _ = socket.send_to(state.as_bytes(), path);
}
