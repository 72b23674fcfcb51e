//! Who owns a descriptor or timer of the broker. Kinds from [`LOCAL_KINDS`] on belong to the relay of
//! single-process mode.

use crate::channel::local::LOCAL_KINDS;

pub(super) const SIGNALS: u8 = 0;
pub(super) const LISTENER: u8 = 1;
pub(super) const WORKER: u8 = 2;
pub(super) const CHECK: u8 = 3;
pub(super) const BIND_RETRY: u8 = 4;
pub(super) const RESTART: u8 = 5;
pub(super) const TRIM: u8 = 6;
pub(super) const RESUME: u8 = 7;
pub(super) const CHECK_TIMEOUT: u8 = 8;
pub(super) const WATCH: u8 = 9;
pub(super) const CHECK_DUE: u8 = 10;

const _: () = assert!(CHECK_DUE < LOCAL_KINDS);
