//! Who is at the other end of a UNIX socket.

use super::Socket;
use std::io;
use std::os::fd::AsRawFd;

impl Socket {
    /// The effective user id that the process at the other end had when it connected.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn peer_user(&self) -> io::Result<u32> {
        // struct ucred (unix(7)): process, user and group, each of 32 bits.
        let [_, user, _]: [u32; 3] =
            super::get_option(self.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED)?;
        Ok(user)
    }

    /// The effective user id that the process at the other end had when it connected.
    #[cfg(any(target_os = "solaris", target_os = "illumos"))]
    pub fn peer_user(&self) -> io::Result<u32> {
        let mut credentials = std::ptr::null_mut();
        // SAFETY: getpeerucred(3C) allocates the credentials, which are read and freed once.
        unsafe {
            crate::os::check(libc::getpeerucred(self.as_raw_fd(), &mut credentials))?;
            let user = libc::ucred_geteuid(credentials);
            libc::ucred_free(credentials);
            Ok(user)
        }
    }

    /// The effective user id that the process at the other end had when it connected.
    #[cfg(not(any(
        target_os = "linux",
        target_os = "android",
        target_os = "solaris",
        target_os = "illumos"
    )))]
    pub fn peer_user(&self) -> io::Result<u32> {
        let (mut user, mut group) = (0, 0);
        // SAFETY: getpeereid(3) writes the two numbers, which outlive the call.
        crate::os::check(unsafe { libc::getpeereid(self.as_raw_fd(), &mut user, &mut group) })?;
        Ok(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_other_end_has_a_user() {
        let (one, _other) = UnixStream::pair().expect("two sockets");
        let user = Socket::from(one).peer_user().expect("a user");
        assert_eq!(user, nix::unistd::geteuid().as_raw());
    }
}
