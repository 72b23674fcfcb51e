//! Token kinds: which part of the monitor a descriptor or timer belongs to. They start after the
//! worker's, as both share a loop in single-process mode. The index is the part's own.

use crate::channel::local::MONITOR_KINDS;
use crate::event::Token;

pub(super) const PROBES: u8 = MONITOR_KINDS;
pub(super) const NAMES: u8 = MONITOR_KINDS + 1;
pub(super) const CONTROL: u8 = MONITOR_KINDS + 3;
pub(super) const STATUS: u8 = MONITOR_KINDS + 2;
pub(super) const STAPLES: u8 = MONITOR_KINDS + 4;
// There are few kinds, so each part should do with one.
pub(super) const TETHER: u8 = MONITOR_KINDS + 5;

const _: () = assert!(TETHER < Token::KINDS);
