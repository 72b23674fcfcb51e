//! misc/radix.h: longest prefix match. Addresses are four words in host byte order.

use super::entry::entry;
use crate::library::network::{self, Address};
use crate::library::radix::{Entry, Tree};
use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};

/// Frees a payload; the second argument is the one passed to `radix_drop`.
type Free = unsafe extern "C" fn(*mut c_void, *mut c_void);
/// Compares payloads: 0 if they are the same.
type Compare = unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int;
/// Takes an address, its prefix length, the payload and the argument of `radix_walk`.
type Visit = unsafe extern "C" fn(*mut Address, c_int, *mut c_void, *mut c_void);

/// `struct radixtree`, opaque to C code.
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

fn parse(text: &[u8]) -> Option<(Address, i32)> {
    network::parse_network(std::str::from_utf8(text).ok()?)
}

/// Adds a prefix. Returns null, or the different payload that the prefix already has.
///
/// # Safety
/// The tree is valid, and nobody has a reference to it: its callbacks may use it.
unsafe fn add(
    tree: NonNull<RadixTree>,
    address: &mut Address,
    length: c_int,
    payload: *mut c_void,
) -> *mut c_void {
    *address = network::network(address, length);
    // SAFETY: as the caller promises. The reference ends before any callback runs.
    let (compare, there) = unsafe {
        let radix = &mut *tree.as_ptr();
        let there = radix.tree.add(address, length.clamp(0, 128) as u8, number(payload));
        (radix.compare, there.map(pointer))
    };
    match (there, compare) {
        (None, _) => ptr::null_mut(),
        (Some(there), _) if there == payload => ptr::null_mut(),
        // SAFETY: the function is for the payloads of this tree.
        (Some(there), Some(compare)) if unsafe { compare(there, payload) } == 0 => ptr::null_mut(),
        (Some(there), _) => there,
    }
}

/// The payload of the longest match; all payloads of the search go to `all`, if that is not null.
///
/// # Safety
/// `all` is null or has room for all payloads, which are 129 at most.
unsafe fn look_up(tree: &RadixTree, address: &Address, all: *mut *mut c_void) -> *mut c_void {
    let (mut last, mut next) = (ptr::null_mut(), all);
    for payload in tree.tree.matches(address).map(pointer) {
        last = payload;
        if !all.is_null() && !payload.is_null() {
            // SAFETY: as the caller promises.
            unsafe {
                next.write(payload);
                next = next.add(1);
            }
        }
    }
    last
}

entry! {
    /// `struct radixtree *radix_new(void (*f)(void *, void *), int (*c)(void *, void *))`: an empty
    /// tree, whose payloads are freed with `f` and compared with `c`.
    #[otherwise(ptr::null_mut())]
    pub fn radix_new(free: Option<Free>, compare: Option<Compare>) -> *mut RadixTree {
        Box::into_raw(Box::new(RadixTree { free, compare, ..RadixTree::default() }))
    }

    /// `void *radix_add(struct radixtree *rt, struct in6_addr *a, int m, void *d)`: clears the host
    /// bits of `*a` and adds the prefix. Null if the prefix is new, or already has the same payload
    /// (the same pointer, or `c` says so); otherwise the existing payload, which is kept.
    #[otherwise(ptr::null_mut())]
    pub fn radix_add(
        tree: NonNull<RadixTree>,
        address: &mut Address,
        length: c_int,
        payload: *mut c_void,
    ) -> *mut c_void {
        // SAFETY: the tree came from `radix_new`.
        unsafe { add(tree, address, length, payload) }
    }

    /// `int radix_add_str(struct radixtree *rt, char *cidr, void *payload)`: as `radix_add`; 0 if
    /// the prefix was added, 1 if it already has another payload, -1 if the text is not a network.
    #[otherwise(-1)]
    pub fn radix_add_str(
        tree: Option<NonNull<RadixTree>>,
        text: &[u8],
        payload: *mut c_void,
    ) -> c_int {
        let Some((mut address, length)) = parse(text) else {
            return -1;
        };
        let Some(tree) = tree else {
            return 0;
        };
        // SAFETY: as above.
        c_int::from(!unsafe { add(tree, &mut address, length, payload) }.is_null())
    }

    /// `void *radix_lookup(struct radixtree *rt, struct in6_addr *a, void **arr)`: the payload of
    /// the longest prefix that contains the address, or null. If `arr` is not null, the payloads of
    /// all matching prefixes are written there, the shortest prefix first, without an end mark; 129
    /// places are enough for any tree.
    #[otherwise(ptr::null_mut())]
    pub fn radix_lookup(tree: &RadixTree, address: &Address, all: *mut *mut c_void) -> *mut c_void {
        // SAFETY: there is room for all payloads.
        unsafe { look_up(tree, address, all) }
    }

    /// `void *radix_lookup_str(struct radixtree *rt, char *addr, void **arr)`: as `radix_lookup`;
    /// null if the text is not an address.
    #[otherwise(ptr::null_mut())]
    pub fn radix_lookup_str(tree: &RadixTree, text: &[u8], all: *mut *mut c_void) -> *mut c_void {
        match parse(text) {
            // SAFETY: as above.
            Some((address, _)) => unsafe { look_up(tree, &address, all) },
            None => ptr::null_mut(),
        }
    }

    /// `void radix_walk(struct radixtree *rt, void (*f)(struct in6_addr *, int, void *, void *),
    /// void *data)`: calls `f` for every prefix, longer ones before those that contain them. `f`
    /// may change the tree.
    pub fn radix_walk(tree: NonNull<RadixTree>, visit: Visit, data: *mut c_void) {
        // SAFETY: the tree came from `radix_new`. The reference ends before any callback runs.
        let entries = unsafe { tree.as_ref() }.tree.entries();
        for Entry { mut prefix, length, payload } in entries {
            // SAFETY: the caller passed the function for this; the address lives as long as the
            // call.
            unsafe { visit(&mut prefix, c_int::from(length), pointer(payload), data) };
        }
    }

    /// `void radix_drop(struct radixtree **rt, void *data)`: frees all payloads and the tree, and
    /// sets the pointer to null.
    pub fn radix_drop(handle: &mut *mut RadixTree, data: *mut c_void) {
        let tree = *handle;
        *handle = ptr::null_mut();
        if tree.is_null() {
            return;
        }
        // SAFETY: the tree came from `radix_new`, and the function is for its payloads.
        unsafe {
            let radix = Box::from_raw(tree);
            if let Some(free) = radix.free {
                for entry in radix.tree.entries() {
                    free(pointer(entry.payload), data);
                }
            }
        }
    }
}
