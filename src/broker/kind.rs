//! Token kinds: who owns a descriptor or timer of the broker. Kinds from [`LOCAL_KINDS`] on belong
//! to the relay of single-process mode.

use crate::channel::local::LOCAL_KINDS;

pub(in crate::broker) const SIGNALS: u8 = 0;
pub(in crate::broker) const LISTENER: u8 = 1;
pub(in crate::broker) const WORKER: u8 = 2;
pub(in crate::broker) const CHECK: u8 = 3;
pub(in crate::broker) const BIND_RETRY: u8 = 4;
pub(in crate::broker) const RESTART: u8 = 5;
pub(in crate::broker) const TRIM: u8 = 6;
pub(in crate::broker) const RESUME: u8 = 7;
pub(in crate::broker) const CHECK_TIMEOUT: u8 = 8;
pub(in crate::broker) const WATCH: u8 = 9;
pub(in crate::broker) const CHECK_DUE: u8 = 10;
pub(in crate::broker) const MONITOR: u8 = 11;
/// A descriptor, where the other is a timer.
pub(in crate::broker) const SIGNER: u8 = TRIM;
/// A timer, where the other is a descriptor.
pub(in crate::broker) const SIGNER_PAUSE: u8 = CHECK;
/// A timer, where the other is a descriptor.
pub(in crate::broker) const FILES: u8 = SIGNALS;
/// A descriptor, where the other is a timer: the control socket.
pub(in crate::broker) const DESK: u8 = RESTART;
/// A timer, where the other is a descriptor.
pub(in crate::broker) const DESK_RETRY: u8 = LISTENER;

const _: () = assert!(MONITOR < LOCAL_KINDS);
