//! The Rust half of av_add, whose text the C side has formatted.

use super::bytes;
use crate::mavis::attributes::Attributes;
use std::ffi::{c_char, c_int, c_void};

pub(super) unsafe extern "C" fn av_add(
    ac: *mut c_void,
    attribute: c_int,
    separator: *const c_char,
    text: *const c_char,
) {
    super::guard((), || {
        // SAFETY: the C side passes on what its caller gave: null or an av_ctx, null or
        // NUL-terminated texts. They are copied, as they may be values of the pairs.
        unsafe {
            let separator = bytes(separator).unwrap_or(b"").to_vec();
            let text = bytes(text).unwrap_or(b"").to_vec();
            if let (Some(pairs), Ok(attribute)) =
                (ac.cast::<Attributes>().as_mut(), usize::try_from(attribute))
            {
                pairs.add(attribute, &separator, &text);
            }
        }
    });
}
