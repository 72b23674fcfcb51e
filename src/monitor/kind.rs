//! Token kinds: which part of the monitor a descriptor or timer belongs to. They start after the
//! worker's, as both share a loop in single-process mode. The index is the part's own.

use crate::channel::local::MONITOR_KINDS;
use crate::event::Token;

pub(super) const PROBES: u8 = MONITOR_KINDS;
pub(super) const NAMES: u8 = MONITOR_KINDS + 1;
pub(super) const CONTROL: u8 = MONITOR_KINDS + 3;
pub(super) const STATUS: u8 = MONITOR_KINDS + 2;
// Those of the process come last: there are few kinds, and each part should do with one.
pub(super) const SIGNALS: u8 = MONITOR_KINDS + 4;
pub(super) const CHANNEL: u8 = MONITOR_KINDS + 5;
pub(super) const KEEPALIVE: u8 = MONITOR_KINDS + 6;
pub(super) const BROKER_DEATH: u8 = MONITOR_KINDS + 7;

const _: () = assert!(BROKER_DEATH < Token::KINDS);
