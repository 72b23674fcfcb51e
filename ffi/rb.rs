//! misc/rb.h: rbtree.h under other names, and the function that frees the nodes of a tree.

use super::entry::entry;
use super::layout::rbtree::{RbNode, Tree};
use std::ffi::c_void;
use std::ptr::NonNull;

entry! {
    /// `void rbtree_freefunc(rbnode_type *rbnode, void *data)`: frees a node, and its key with the
    /// free function of the tree that `data` points to. A callback for `traverse_postorder`.
    pub fn rbtree_freefunc(node: NonNull<RbNode>, tree: *mut c_void) {
        // SAFETY: `data` is null or a tree; its function is for its keys, and the node came from
        // `rbnode_alloc`.
        unsafe {
            if let Some(free) = Tree::at(tree).and_then(|tree| tree.free()) {
                free(node.as_ref().key);
            }
            RbNode::give_back(node);
        }
    }
}
