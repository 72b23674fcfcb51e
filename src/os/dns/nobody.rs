//! A channel to nobody.

use super::{Name, Watch};
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::time::Duration;

/// Knows no names.
pub struct Channel(());

impl Channel {
    /// Never fails.
    pub fn new(_watch: Watch) -> Option<Channel> {
        Some(Channel(()))
    }

    /// Answers at once.
    pub fn ask(&self, _address: IpAddr, answer: impl FnOnce(Option<Name>) + 'static) {
        answer(None);
    }

    /// There is nothing to process.
    pub fn process(&self, _readable: Option<RawFd>, _writable: Option<RawFd>) {}

    /// Nothing is waited for.
    pub fn timeout(&self) -> Option<Duration> {
        None
    }

    /// Refused: nobody would be asked.
    pub fn set_servers(&self, _servers: &std::ffi::CStr) -> i32 {
        const ARES_ENOTIMP: i32 = 5;
        ARES_ENOTIMP
    }

    /// Of no effect.
    pub fn set_vrf(&self, _name: Option<String>) {}
}
