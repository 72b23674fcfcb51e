//! A substitute for the DNS channel, which asks nobody.

use super::{Addresses, Failure, Family, Name, Services, Watch};
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::time::Duration;

/// Knows no names.
pub struct Channel(());

impl Channel {
    /// Always succeeds.
    pub fn new(_watch: Watch) -> Option<Channel> {
        Some(Channel(()))
    }

    /// As [`new`](Self::new).
    pub fn for_hosts(watch: Watch) -> Option<Channel> {
        Channel::new(watch)
    }

    /// Answers at once that nothing is known.
    pub fn addresses(
        &self,
        _host: &str,
        _family: Family,
        answer: impl FnOnce(Result<Addresses, Failure>) + 'static,
    ) {
        answer(Err(Failure::Unknown("built without DNS".to_owned())));
    }

    /// Answers at once that nothing is known.
    pub fn services(&self, _name: &str, answer: impl FnOnce(Result<Services, Failure>) + 'static) {
        answer(Err(Failure::Unknown("built without DNS".to_owned())));
    }

    /// Answers at once that there is no name.
    pub fn ask(&self, _address: IpAddr, answer: impl FnOnce(Option<Name>) + 'static) {
        answer(None);
    }

    /// Does nothing.
    pub fn process(&self, _readable: Option<RawFd>, _writable: Option<RawFd>) {}

    /// There is nothing to wait for.
    pub fn timeout(&self) -> Option<Duration> {
        None
    }

    /// Refuses: no server would be asked.
    pub fn set_servers(&self, _servers: &std::ffi::CStr) -> i32 {
        const ARES_ENOTIMP: i32 = 5;
        ARES_ENOTIMP
    }

    /// Does nothing.
    pub fn set_vrf(&self, _name: Option<String>) {}
}
