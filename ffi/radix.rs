//! misc/radix.h: longest prefix match.
//!
//! # Safety
//! A tree is null, or came from `radix_new` and was not dropped; addresses are null or four words
//! in host byte order; texts are null or NUL-terminated.
#![allow(clippy::missing_safety_doc, reason = "said at the head of the file")]

use super::memory::put;
use super::{bytes, guard};
use crate::library::network::{self, Address};
use crate::library::radix::{Entry, Tree};
use std::ffi::{c_char, c_int, c_void};
use std::ptr;

/// Gives a payload back; the second argument is that of `radix_drop`.
type Free = unsafe extern "C" fn(*mut c_void, *mut c_void);
/// Compares payloads: 0 if they are the same.
type Compare = unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int;
/// Takes an address, its prefix length, the payload and the argument of `radix_walk`.
type Visit = unsafe extern "C" fn(*mut Address, c_int, *mut c_void, *mut c_void);

/// `struct radixtree`. C code has only its address.
#[derive(Default)]
pub struct RadixTree {
    tree: Tree,
    free: Option<Free>,
    compare: Option<Compare>,
}

fn number(payload: *mut c_void) -> usize {
    payload.expose_provenance()
}

fn pointer(payload: usize) -> *mut c_void {
    ptr::with_exposed_provenance_mut(payload)
}

/// `struct radixtree *radix_new(void (*f)(void *, void *), int (*c)(void *, void *))`: an empty
/// tree, whose payloads are given back with `f` and compared with `c`.
#[no_mangle]
pub extern "C" fn radix_new(free: Option<Free>, compare: Option<Compare>) -> *mut RadixTree {
    guard(ptr::null_mut(), || {
        Box::into_raw(Box::new(RadixTree { free, compare, ..RadixTree::default() }))
    })
}

/// `void *radix_add(struct radixtree *rt, struct in6_addr *a, int m, void *d)`: clears the host
/// bits of `*a` and adds the prefix. Null if it is new, or there with the same payload, as pointers
/// or `c` tell; otherwise the payload that is there, and stays.
#[no_mangle]
pub unsafe extern "C" fn radix_add(
    tree: *mut RadixTree,
    address: *mut Address,
    length: c_int,
    payload: *mut c_void,
) -> *mut c_void {
    guard(ptr::null_mut(), || {
        // SAFETY: as the caller promises. The references end before anybody is called.
        let (compare, there) = unsafe {
            let (Some(radix), Some(address)) = (tree.as_mut(), address.as_mut()) else {
                return ptr::null_mut();
            };
            *address = network::network(address, length);
            let there = radix.tree.add(address, length.clamp(0, 128) as u8, number(payload));
            (radix.compare, there.map(pointer))
        };
        match (there, compare) {
            (None, _) => ptr::null_mut(),
            (Some(there), _) if there == payload => ptr::null_mut(),
            // SAFETY: the function is for the payloads of this tree.
            (Some(there), Some(compare)) if unsafe { compare(there, payload) } == 0 => {
                ptr::null_mut()
            }
            (Some(there), _) => there,
        }
    })
}

/// `int radix_add_str(struct radixtree *rt, char *cidr, void *payload)`: as `radix_add`; 0 if the
/// prefix is new, 1 if it is there with another payload, -1 if the text is no network.
#[no_mangle]
pub unsafe extern "C" fn radix_add_str(
    tree: *mut RadixTree,
    text: *const c_char,
    payload: *mut c_void,
) -> c_int {
    guard(-1, || {
        // SAFETY: as the caller promises.
        let Some((mut address, length)) = (unsafe { parse(text) }) else {
            return -1;
        };
        // SAFETY: as above.
        c_int::from(!unsafe { radix_add(tree, &mut address, length, payload) }.is_null())
    })
}

unsafe fn parse(text: *const c_char) -> Option<(Address, i32)> {
    // SAFETY: as the caller promises.
    let text = unsafe { bytes(text) }?;
    network::parse_network(std::str::from_utf8(text).ok()?)
}

/// `void *radix_lookup(struct radixtree *rt, struct in6_addr *a, void **arr)`: the payload of the
/// longest prefix that contains the address, or null. With `arr`, for which 129 places are enough
/// for any tree, all payloads are written there, the shortest prefix first, without an end mark.
#[no_mangle]
pub unsafe extern "C" fn radix_lookup(
    tree: *mut RadixTree,
    address: *const Address,
    all: *mut *mut c_void,
) -> *mut c_void {
    guard(ptr::null_mut(), || {
        // SAFETY: as the caller promises; there is room for all payloads, which are 129 at most.
        unsafe {
            let (Some(radix), Some(address)) = (tree.as_ref(), address.as_ref()) else {
                return ptr::null_mut();
            };
            let (mut last, mut next) = (ptr::null_mut(), all);
            for payload in radix.tree.matches(address).map(pointer) {
                last = payload;
                if !all.is_null() && !payload.is_null() {
                    next.write(payload);
                    next = next.add(1);
                }
            }
            last
        }
    })
}

/// `void *radix_lookup_str(struct radixtree *rt, char *addr, void **arr)`: as `radix_lookup`; null
/// if the text is no address.
#[no_mangle]
pub unsafe extern "C" fn radix_lookup_str(
    tree: *mut RadixTree,
    text: *const c_char,
    all: *mut *mut c_void,
) -> *mut c_void {
    // SAFETY: as the caller promises.
    guard(ptr::null_mut(), || unsafe {
        match parse(text) {
            Some((address, _)) => radix_lookup(tree, &address, all),
            None => ptr::null_mut(),
        }
    })
}

/// The prefixes of a tree, which may change while they are visited.
unsafe fn entries(tree: *mut RadixTree) -> Vec<Entry> {
    // SAFETY: as the caller promises. The reference ends before anybody is called.
    unsafe { tree.as_ref() }.map(|radix| radix.tree.entries()).unwrap_or_default()
}

/// `void radix_walk(struct radixtree *rt, void (*f)(struct in6_addr *, int, void *, void *), void
/// *data)`: calls `f` for every prefix, longer ones before those that contain them.
#[no_mangle]
pub unsafe extern "C" fn radix_walk(tree: *mut RadixTree, visit: Option<Visit>, data: *mut c_void) {
    guard((), || {
        let Some(visit) = visit else {
            return;
        };
        // SAFETY: as the caller promises.
        for Entry { mut prefix, length, payload } in unsafe { entries(tree) } {
            // SAFETY: the function is the caller's; the address lives as long as the call.
            unsafe { visit(&mut prefix, c_int::from(length), pointer(payload), data) };
        }
    });
}

/// `void radix_drop(struct radixtree **rt, void *data)`: gives back all payloads and the tree, and
/// clears the pointer.
#[no_mangle]
pub unsafe extern "C" fn radix_drop(handle: *mut *mut RadixTree, data: *mut c_void) {
    guard((), || {
        // SAFETY: as the caller promises; the tree came from `radix_new`.
        unsafe {
            if handle.is_null() || (*handle).is_null() {
                return;
            }
            let radix = Box::from_raw(*handle);
            put(handle, ptr::null_mut());
            if let Some(free) = radix.free {
                for entry in radix.tree.entries() {
                    free(pointer(entry.payload), data);
                }
            }
        }
    });
}
