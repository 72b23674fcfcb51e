//! misc/rbtree.h: where nodes of red-black trees come from.

use super::guard;
use super::rbtree::{raw, RbNode, BLACK, FREE};
use crate::os::malloc::allocate;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError};

/// How many nodes are allocated at once.
const CHUNK: usize = 128;

/// Nodes that are free. Their memory stays that of nodes, so that C code that looks at one too late
/// finds no links, and nothing of others.
struct Store(Vec<NonNull<RbNode>>);

// SAFETY: nobody else has the nodes in the store.
unsafe impl Send for Store {}

static STORE: Mutex<Store> = Mutex::new(Store(Vec::new()));

/// `rbnode_type *rbnode_alloc(void)`: a node of zeroes.
#[no_mangle]
pub extern "C" fn rbnode_alloc() -> *mut RbNode {
    guard(ptr::null_mut(), || {
        let mut store = STORE.lock().unwrap_or_else(PoisonError::into_inner);
        if store.0.is_empty() {
            let first = allocate(CHUNK * size_of::<RbNode>(), "rbnode_alloc").cast::<RbNode>();
            // SAFETY: the memory has that many nodes, and zeroes are a valid node.
            store.0.extend((0..CHUNK).rev().map(|at| unsafe { first.add(at) }));
        }
        let node = store.0.pop();
        if let Some(node) = node {
            // SAFETY: the store has valid nodes that nobody else has.
            unsafe { (*node.as_ptr()).colour = BLACK };
        }
        raw(node)
    })
}

/// `void rbnode_free(rbnode_type *rbnode)`: gives a node back that is in no tree. One that was
/// given back before is left alone.
///
/// # Safety
/// The node is null or came from [`rbnode_alloc`].
#[no_mangle]
pub unsafe extern "C" fn rbnode_free(node: *mut RbNode) {
    guard((), || {
        let Some(node) = NonNull::new(node) else {
            return;
        };
        let none = ptr::null_mut();
        let free = RbNode { parent: none, left: none, right: none, key: ptr::null(), colour: FREE };
        // SAFETY: it came from `rbnode_alloc`, whose memory stays that of nodes.
        let before = unsafe { node.as_ptr().replace(free) };
        if before.colour != FREE {
            STORE.lock().unwrap_or_else(PoisonError::into_inner).0.push(node);
        }
    });
}
