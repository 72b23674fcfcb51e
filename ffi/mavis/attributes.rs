//! mavis/mavis.h: attribute-value pairs. Numbers that are no attribute are ignored.

use crate::config::Sym;
use crate::ffi::entry::entry;
use crate::ffi::memory::put_text;
use crate::mavis::attributes::{self, Attributes};
use crate::os::malloc::{Owned, Text};
use std::ffi::{c_char, c_int, c_void};
use std::ptr::{self, NonNull};

fn index(attribute: c_int) -> usize {
    usize::try_from(attribute).unwrap_or(usize::MAX)
}

fn value(pairs: &Attributes, attribute: usize) -> *mut c_char {
    pairs.text(attribute).map_or(ptr::null_mut(), Text::as_ptr)
}

/// References to two sets of pairs; `None` if they are the same set.
///
/// # Safety
/// Both are valid, and nobody else uses them while the result lives.
unsafe fn both<'a>(
    out: NonNull<Attributes>,
    from: NonNull<Attributes>,
) -> Option<(&'a mut Attributes, &'a mut Attributes)> {
    // SAFETY: as the caller promises, and they are not the same.
    (out != from).then(|| unsafe { (&mut *out.as_ptr(), &mut *from.as_ptr()) })
}

/// A test for attributes: true for those in `set`, or for all if `set` is null.
///
/// # Safety
/// `set` is null or an fd_set that lives as long as the result.
unsafe fn wanted(set: *const libc::fd_set) -> impl Fn(usize) -> bool {
    move |attribute| {
        // SAFETY: as the caller promises; an fd_set has room for all attributes.
        set.is_null() || unsafe { libc::FD_ISSET(attribute as c_int, set) }
    }
}

entry! {
    /// `av_ctx *av_new(void *callback, void *context)`: an empty set of pairs, with the callback
    /// for a deferred answer.
    #[otherwise(ptr::null_mut())]
    pub fn av_new(callback: *mut c_void, context: *mut c_void) -> *mut Attributes {
        let mut pairs = Attributes::default();
        (pairs.callback, pairs.context) = (callback, context);
        Owned::new(pairs).into_raw()
    }

    /// `void av_setcb(av_ctx *, void *callback, void *context)`
    pub fn av_setcb(pairs: &mut Attributes, callback: *mut c_void, context: *mut c_void) {
        (pairs.callback, pairs.context) = (callback, context);
    }

    /// `void av_free(av_ctx *)`: frees the pairs and their values.
    pub fn av_free(pairs: *mut Attributes) {
        // SAFETY: the pairs are null or allocated with malloc(3), and not used afterwards.
        drop(unsafe { Owned::from_raw(pairs) });
    }

    /// `void av_free_private(av_ctx *)`: unsets the attributes that are not part of a user's
    /// profile.
    pub fn av_free_private(pairs: &mut Attributes) {
        pairs.clear_private();
    }

    /// `char *av_get(av_ctx *, int)`: the value, valid until the attribute changes; NULL if unset.
    #[otherwise(ptr::null_mut())]
    pub fn av_get(pairs: &Attributes, attribute: c_int) -> *mut c_char {
        value(pairs, index(attribute))
    }

    /// `void av_set(av_ctx *, int, char *)`: sets an attribute, or unsets it for NULL. The new
    /// value may be the old one, or a part of it.
    pub fn av_set(pairs: &mut Attributes, attribute: c_int, value: Option<&[u8]>) {
        match value {
            Some(value) => pairs.set(index(attribute), value),
            None => pairs.unset(index(attribute)),
        }
    }

    /// `void av_add(av_ctx *, int, char *separator, char *format, ...)`: appends a text that the C
    /// half has formatted. Separator and text may be values of the pairs.
    pub(in crate::ffi) fn av_add(
        pairs: &mut Attributes,
        attribute: c_int,
        separator: Option<&[u8]>,
        text: Option<&[u8]>,
    ) {
        pairs.add(index(attribute), separator.unwrap_or_default(), text.unwrap_or_default());
    }

    /// `void av_clear(av_ctx *)`: unsets all attributes.
    pub fn av_clear(pairs: &mut Attributes) {
        pairs.clear();
    }

    /// `void av_move(av_ctx *out, av_ctx *in)`: moves all pairs from `in` to `out`.
    pub fn av_move(out: NonNull<Attributes>, from: NonNull<Attributes>) {
        // SAFETY: both sets are valid.
        if let Some((out, from)) = unsafe { both(out, from) } {
            out.take_values(from);
        }
    }

    /// `void av_copy(av_ctx *out, av_ctx *in)`
    pub fn av_copy(out: NonNull<Attributes>, from: NonNull<Attributes>) {
        // SAFETY: both sets are valid.
        if let Some((out, from)) = unsafe { both(out, from) } {
            out.copy_values(from);
        }
    }

    /// `void av_merge(av_ctx *out, av_ctx *in)`: copies the attributes that are unset in `out`.
    pub fn av_merge(out: NonNull<Attributes>, from: NonNull<Attributes>) {
        // SAFETY: both sets are valid.
        if let Some((out, from)) = unsafe { both(out, from) } {
            out.merge_values(from);
        }
    }

    /// `void av_dump(av_ctx *)`: prints the pairs to standard error.
    pub fn av_dump(pairs: &Attributes) {
        crate::os::log::stderr_bytes(&pairs.dump());
    }

    /// `int av_attribute_to_i(char *)`: the attribute with this name; -1 if there is none.
    #[otherwise(-1)]
    pub fn av_attribute_to_i(name: &[u8]) -> c_int {
        attributes::by_name(name).map_or(-1, |found| found as c_int)
    }

    /// `int av_attr_token_to_i(struct sym *)`: the attribute that the current token names; -1 if it
    /// names none.
    #[otherwise(-1)]
    pub fn av_attr_token_to_i(sym: &Sym) -> c_int {
        attributes::by_token(sym.token(), sym.c_text()).map_or(-1, |found| found as c_int)
    }

    /// `size_t av_array_to_char_len(av_ctx *)`: the buffer size for the wire text and its NUL.
    #[otherwise(1)]
    pub fn av_array_to_char_len(pairs: &Attributes) -> usize {
        pairs.encode(|_| true).len() + 1
    }

    /// `int av_array_to_char(av_ctx *, char *buffer, size_t size, fd_set *set)`: writes the wire
    /// text of the attributes in `set`. Returns its length, or -1 if it does not fit with a NUL.
    #[otherwise(-1)]
    pub fn av_array_to_char(
        pairs: &Attributes,
        buffer: *mut c_char,
        size: usize,
        set: *const libc::fd_set,
    ) -> c_int {
        // SAFETY: the set is null or an fd_set; there is that room.
        unsafe {
            let text = pairs.encode(wanted(set));
            match put_text(buffer, size, &text) {
                true => c_int::try_from(text.len()).unwrap_or(-1),
                false => -1,
            }
        }
    }

    /// `int av_char_to_array(av_ctx *, char *buffer, fd_set *set)`: sets those attributes of the
    /// wire text that are in `set`. Returns 0.
    #[otherwise(0)]
    pub fn av_char_to_array(
        pairs: &mut Attributes,
        buffer: Option<&[u8]>,
        set: *const libc::fd_set,
    ) -> c_int {
        // The text may be a value of the pairs.
        let text = buffer.unwrap_or_default().to_vec();
        // SAFETY: the set is null or an fd_set.
        pairs.decode(&text, unsafe { wanted(set) });
        0
    }

    /// `char *av_addserial(av_ctx *)`: sets the attribute SERIAL if it is unset, and returns its
    /// value.
    #[otherwise(ptr::null_mut())]
    pub fn av_addserial(pairs: &mut Attributes) -> *mut c_char {
        pairs.add_serial();
        value(pairs, attributes::SERIAL)
    }
}
