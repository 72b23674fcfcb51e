//! mavis/mavis.h: attribute-value pairs.
//!
//! Each function takes null pointers, and ignores what is no attribute.

use super::{bytes, guard};
use crate::config::Sym;
use crate::library::blowfish::{encrypted_length, Key};
use crate::mavis::attributes::{self, Attributes};
use crate::os::malloc::{Owned, Text};
use crate::os::socket;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;

/// The longest text that is sent (BUFSIZE_MAVIS).
const LONGEST: usize = 65535;
/// A query that was sent to a server: the answer comes later.
const DEFERRED: c_int = 1;
/// A query that could not be sent.
const IGNORE: c_int = 2;

fn index(attribute: c_int) -> usize {
    usize::try_from(attribute).unwrap_or(usize::MAX)
}

/// Runs `action` on the pairs behind `ac`.
///
/// # Safety
/// `ac` is null or an av_ctx that nobody else uses during the call.
unsafe fn with<T: Copy>(
    ac: *mut Attributes,
    fallback: T,
    action: impl FnOnce(&mut Attributes) -> T,
) -> T {
    // SAFETY: as the caller promises.
    guard(fallback, || unsafe { ac.as_mut() }.map_or(fallback, action))
}

/// `av_ctx *av_new(void *callback, void *context)`: no pairs, and whom to tell of an answer.
#[no_mangle]
pub extern "C" fn av_new(callback: *mut c_void, context: *mut c_void) -> *mut Attributes {
    guard(ptr::null_mut(), || {
        let mut pairs = Attributes::default();
        (pairs.callback, pairs.context) = (callback, context);
        Owned::new(pairs).into_raw()
    })
}

/// `void av_setcb(av_ctx *, void *callback, void *context)`
///
/// # Safety
/// `ac` is null or an av_ctx.
#[no_mangle]
pub unsafe extern "C" fn av_setcb(
    ac: *mut Attributes,
    callback: *mut c_void,
    context: *mut c_void,
) {
    // SAFETY: as the caller promises.
    unsafe { with(ac, (), |pairs| (pairs.callback, pairs.context) = (callback, context)) }
}

/// `void av_free(av_ctx *)`: the pairs and their memory.
///
/// # Safety
/// `ac` is null or an av_ctx on the heap of malloc(3), not used afterwards.
#[no_mangle]
pub unsafe extern "C" fn av_free(ac: *mut Attributes) {
    // SAFETY: as the caller promises.
    guard((), || drop(unsafe { Owned::from_raw(ac) }));
}

/// `void av_free_private(av_ctx *)`: unsets what is no part of a profile.
///
/// # Safety
/// `ac` is null or an av_ctx.
#[no_mangle]
pub unsafe extern "C" fn av_free_private(ac: *mut Attributes) {
    // SAFETY: as the caller promises.
    unsafe { with(ac, (), Attributes::clear_private) }
}

/// `char *av_get(av_ctx *, int)`: the value, good until the attribute changes; NULL if unset.
///
/// # Safety
/// `ac` is null or an av_ctx.
#[no_mangle]
pub unsafe extern "C" fn av_get(ac: *mut Attributes, attribute: c_int) -> *mut c_char {
    // SAFETY: as the caller promises.
    unsafe {
        with(ac, ptr::null_mut(), |pairs| {
            pairs.text(index(attribute)).map_or(ptr::null_mut(), Text::as_ptr)
        })
    }
}

/// `void av_set(av_ctx *, int, char *)`: sets, with NULL unsets. The value may be the old one.
///
/// # Safety
/// `ac` is null or an av_ctx; `value` is null or NUL-terminated.
#[no_mangle]
pub unsafe extern "C" fn av_set(ac: *mut Attributes, attribute: c_int, value: *const c_char) {
    // SAFETY: as the caller promises. The value is copied before the pairs are touched, as it may
    // be one of them.
    unsafe {
        let value = bytes(value).map(<[u8]>::to_vec);
        with(ac, (), |pairs| match value {
            Some(value) => pairs.set(index(attribute), &value),
            None => pairs.unset(index(attribute)),
        })
    }
}

/// `void av_clear(av_ctx *)`: unsets all.
///
/// # Safety
/// `ac` is null or an av_ctx.
#[no_mangle]
pub unsafe extern "C" fn av_clear(ac: *mut Attributes) {
    // SAFETY: as the caller promises.
    unsafe { with(ac, (), Attributes::clear) }
}

/// Runs `action` on two different sets of pairs.
///
/// # Safety
/// As for [`with`].
unsafe fn with_both(
    out: *mut Attributes,
    other: *mut Attributes,
    action: fn(&mut Attributes, &mut Attributes),
) {
    if ptr::eq(out, other) {
        return;
    }
    // SAFETY: as the caller promises, and they are not the same.
    unsafe { with(out, (), |out| with(other, (), |other| action(out, other))) }
}

/// `void av_move(av_ctx *out, av_ctx *in)`: `in` has no pairs afterwards.
///
/// # Safety
/// Both are null or an av_ctx.
#[no_mangle]
pub unsafe extern "C" fn av_move(out: *mut Attributes, from: *mut Attributes) {
    // SAFETY: as the caller promises.
    unsafe { with_both(out, from, Attributes::take_values) }
}

/// `void av_copy(av_ctx *out, av_ctx *in)`
///
/// # Safety
/// Both are null or an av_ctx.
#[no_mangle]
pub unsafe extern "C" fn av_copy(out: *mut Attributes, from: *mut Attributes) {
    // SAFETY: as the caller promises.
    unsafe { with_both(out, from, |out, from| out.copy_values(from)) }
}

/// `void av_merge(av_ctx *out, av_ctx *in)`: copies what is unset in `out`.
///
/// # Safety
/// Both are null or an av_ctx.
#[no_mangle]
pub unsafe extern "C" fn av_merge(out: *mut Attributes, from: *mut Attributes) {
    // SAFETY: as the caller promises.
    unsafe { with_both(out, from, |out, from| out.merge_values(from)) }
}

/// `void av_dump(av_ctx *)`: shows the pairs on standard error.
///
/// # Safety
/// `ac` is null or an av_ctx.
#[no_mangle]
pub unsafe extern "C" fn av_dump(ac: *mut Attributes) {
    // SAFETY: as the caller promises.
    unsafe { with(ac, (), |pairs| crate::os::log::stderr_bytes(&pairs.dump())) }
}

/// `int av_attribute_to_i(char *)`: the attribute of that name; -1 if there is none.
///
/// # Safety
/// `name` is null or NUL-terminated.
#[no_mangle]
pub unsafe extern "C" fn av_attribute_to_i(name: *const c_char) -> c_int {
    // SAFETY: as the caller promises.
    let name = unsafe { bytes(name) };
    guard(-1, || name.and_then(attributes::by_name).map_or(-1, |found| found as c_int))
}

/// `int av_attr_token_to_i(struct sym *)`: the attribute that the current token names; -1 if it
/// names none.
///
/// # Safety
/// `sym` is null or a `struct sym`.
#[no_mangle]
pub unsafe extern "C" fn av_attr_token_to_i(sym: *mut Sym) -> c_int {
    guard(-1, || {
        // SAFETY: as the caller promises.
        let Some(sym) = (unsafe { sym.as_ref() }) else {
            return -1;
        };
        attributes::by_token(sym.token(), sym.c_text()).map_or(-1, |found| found as c_int)
    })
}

/// True for what `set` has, or if there is none.
///
/// # Safety
/// `set` is null or an fd_set that lives as long as the result.
unsafe fn wanted(set: *const libc::fd_set) -> impl Fn(usize) -> bool {
    move |attribute| {
        // SAFETY: as the caller promises; an fd_set has room for all attributes.
        set.is_null() || unsafe { libc::FD_ISSET(attribute as c_int, set) }
    }
}

/// `size_t av_array_to_char_len(av_ctx *)`: room for the wire text and its NUL.
///
/// # Safety
/// `ac` is null or an av_ctx.
#[no_mangle]
pub unsafe extern "C" fn av_array_to_char_len(ac: *mut Attributes) -> usize {
    // SAFETY: as the caller promises.
    unsafe { with(ac, 1, |pairs| pairs.encode(|_| true).len() + 1) }
}

/// `int av_array_to_char(av_ctx *, char *buffer, size_t size, fd_set *set)`: the wire text of what
/// `set` has; its length, or -1 if it does not fit with a NUL.
///
/// # Safety
/// `ac` is null or an av_ctx; the buffer has room for `size`; `set` is null or an fd_set.
#[no_mangle]
pub unsafe extern "C" fn av_array_to_char(
    ac: *mut Attributes,
    buffer: *mut c_char,
    size: usize,
    set: *const libc::fd_set,
) -> c_int {
    // SAFETY: as the caller promises; text and NUL fit when they are written.
    unsafe {
        with(ac, -1, |pairs| {
            let text = pairs.encode(wanted(set));
            if buffer.is_null() || text.len() >= size {
                return -1;
            }
            ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast(), text.len());
            *buffer.add(text.len()) = 0;
            c_int::try_from(text.len()).unwrap_or(-1)
        })
    }
}

/// `int av_char_to_array(av_ctx *, char *buffer, fd_set *set)`: sets what the wire text has and
/// `set` has. 0
///
/// # Safety
/// `ac` is null or an av_ctx; `buffer` is null or NUL-terminated; `set` is null or an fd_set.
#[no_mangle]
pub unsafe extern "C" fn av_char_to_array(
    ac: *mut Attributes,
    buffer: *const c_char,
    set: *const libc::fd_set,
) -> c_int {
    // SAFETY: as the caller promises.
    unsafe {
        let text = bytes(buffer).unwrap_or(b"").to_vec();
        with(ac, (), |pairs| pairs.decode(&text, wanted(set)));
    }
    0
}

/// `char *av_addserial(av_ctx *)`: sets SERIAL if it is unset, and returns it.
///
/// # Safety
/// `ac` is null or an av_ctx.
#[no_mangle]
pub unsafe extern "C" fn av_addserial(ac: *mut Attributes) -> *mut c_char {
    // SAFETY: as the caller promises.
    unsafe {
        with(ac, (), Attributes::add_serial);
        av_get(ac, attributes::SERIAL as c_int)
    }
}

/// `int av_send(av_ctx *, int sock, sockaddr_union *, struct blowfish_ctx *)`: sends the wire text
/// as one datagram, encrypted with its NUL if there is a key. DEFERRED, or IGNORE if it was not
/// sent.
///
/// # Safety
/// `ac` is null or an av_ctx; the address is a sockaddr_union; the key is null or of
/// blowfish_init.
#[no_mangle]
pub unsafe extern "C" fn av_send(
    ac: *mut Attributes,
    sock: c_int,
    address: *const c_void,
    key: *const Key,
) -> c_int {
    // SAFETY: as the caller promises.
    unsafe {
        with(ac, IGNORE, |pairs| {
            let mut text = pairs.encode(|_| true);
            if text.len() >= LONGEST {
                return IGNORE;
            }
            if let Some(key) = key.as_ref() {
                text.push(0);
                text.resize(encrypted_length(text.len()), 0);
                key.encrypt(&mut text);
            }
            match socket::send_datagram(sock, &text, address.cast()) {
                Ok(sent) if sent == text.len() => DEFERRED,
                _ => IGNORE,
            }
        })
    }
}
