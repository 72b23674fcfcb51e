//! mavis/av_send.h: queries to remote backends.

use super::entry::entry;
use crate::library::blowfish::Key;
use crate::mavis::attributes::Attributes;
use crate::os::socket;
use std::ffi::{c_int, c_void};

/// The query was sent to a server, and the answer will come later.
const DEFERRED: c_int = 1;
/// The query could not be sent.
const IGNORE: c_int = 2;

entry! {
    /// `int av_send(av_ctx *, int sock, sockaddr_union *, struct blowfish_ctx *)`: sends the wire
    /// text as one datagram, encrypted, with its NUL, if there is a key. Returns DEFERRED, or
    /// IGNORE if it was not sent.
    #[otherwise(IGNORE)]
    pub fn av_send(
        pairs: &Attributes,
        sock: c_int,
        address: *const c_void,
        key: Option<&Key>,
    ) -> c_int {
        let Some(text) = pairs.datagram(key) else {
            return IGNORE;
        };
        // SAFETY: the address is null or a sockaddr_union.
        match unsafe { socket::send_datagram(sock, &text, address.cast()) } {
            Ok(sent) if sent == text.len() => DEFERRED,
            _ => IGNORE,
        }
    }
}
