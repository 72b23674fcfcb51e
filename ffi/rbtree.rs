//! misc/rbtree.h, misc/rb.h: red-black trees of C structures.
//!
//! # Safety
//! A tree is null, or was set by `rbtree_init` or `rbtree_create`; a node is null, or of
//! `rbnode_alloc` or of the caller, and stays where it is while it is in a tree. Nobody else uses
//! the tree during the call, but for the functions that it calls.
#![allow(clippy::missing_safety_doc, reason = "said at the head of the file")]

use super::guard;
use super::memory::put;
use super::rbnode::rbnode_free;
use crate::library::rbtree::{self, Links, Location, Place, Side};
use crate::os::malloc::Owned;
use std::cmp::Ordering;
use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};

/// `rbnode_type`
#[repr(C)]
#[derive(Debug)]
pub struct RbNode {
    pub(super) parent: *mut RbNode,
    pub(super) left: *mut RbNode,
    pub(super) right: *mut RbNode,
    /// What the node is about.
    pub key: *const c_void,
    /// [`BLACK`] or [`RED`]; [`FREE`] in the store of free nodes.
    pub(super) colour: u8,
}

/// `rbtree_type`
#[repr(C)]
#[derive(Debug)]
pub struct RbTree {
    root: *mut RbNode,
    count: usize,
    compare: Option<Compare>,
    free: Option<Free>,
}

/// Tells how its first argument is to the second: negative, 0 or positive.
pub type Compare = unsafe extern "C" fn(*const c_void, *const c_void) -> c_int;
/// Gives back what a node is about.
pub type Free = unsafe extern "C" fn(*const c_void);

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<RbNode>() == 40 && size_of::<RbTree>() == 32);

pub(super) const BLACK: u8 = 0;
const RED: u8 = 1;
pub(super) const FREE: u8 = 0xff;

/// A tree in use. Nodes are named by their address.
pub(super) struct Tree(*mut RbTree);

impl Tree {
    /// `None` for a null pointer.
    ///
    /// # Safety
    /// As the head of this file says, as long as the result is used.
    pub(super) unsafe fn of(tree: *mut RbTree) -> Option<Tree> {
        (!tree.is_null()).then_some(Tree(tree))
    }

    /// The links of nodes whose tree does not matter.
    const UNKNOWN: Tree = Tree(ptr::null_mut());

    /// The content of a node.
    pub(super) fn key(&self, node: NonNull<RbNode>) -> *const c_void {
        // SAFETY: nodes of a tree are valid; the field is copied.
        unsafe { (*node.as_ptr()).key }
    }

    /// Searches with the tree's own function; `None` if it has none.
    fn locate(&self, key: *const c_void) -> Option<Location<NonNull<RbNode>>> {
        // SAFETY: the tree is valid; the field is copied.
        let compare = unsafe { (*self.0).compare }?;
        Some(rbtree::locate(self, |node| {
            // SAFETY: the function is for the keys of this tree, and for the one that is searched.
            unsafe { compare(key, self.key(node)) }.cmp(&0)
        }))
    }

    fn search(&self, key: *const c_void) -> Option<NonNull<RbNode>> {
        match self.locate(key) {
            Some(Location::Found(node)) => Some(node),
            _ => None,
        }
    }

    /// Searches with another function than the tree's own, which has the same order.
    pub(super) fn locate_by(
        &self,
        mut compare: impl FnMut(*const c_void) -> Ordering,
    ) -> Location<NonNull<RbNode>> {
        rbtree::locate(self, |node| compare(self.key(node)))
    }

    /// Puts a node into a place that a search has found.
    pub(super) fn insert(&mut self, node: NonNull<RbNode>, place: Place<NonNull<RbNode>>) {
        rbtree::insert(self, node, place);
        // SAFETY: the tree is valid.
        unsafe { (*self.0).count += 1 };
    }

    fn remove(&mut self, node: NonNull<RbNode>) {
        // A node without parent that is not the root is in no tree.
        if self.parent(node).is_none() && self.root() != Some(node) {
            return;
        }
        rbtree::remove(self, node);
        // SAFETY: the tree is valid.
        unsafe { (*self.0).count = (*self.0).count.saturating_sub(1) };
    }
}

/// A null pointer for `None`.
pub(super) fn raw(node: Option<NonNull<RbNode>>) -> *mut RbNode {
    node.map_or(ptr::null_mut(), NonNull::as_ptr)
}

impl Links for Tree {
    type Node = NonNull<RbNode>;

    fn root(&self) -> Option<Self::Node> {
        // SAFETY: the tree is valid, if there is one; the field is copied.
        (!self.0.is_null()).then(|| NonNull::new(unsafe { (*self.0).root }))?
    }
    fn set_root(&mut self, node: Option<Self::Node>) {
        if !self.0.is_null() {
            // SAFETY: as above.
            unsafe { (*self.0).root = raw(node) };
        }
    }
    fn parent(&self, node: Self::Node) -> Option<Self::Node> {
        // SAFETY: nodes of a tree are valid; the field is copied.
        NonNull::new(unsafe { (*node.as_ptr()).parent })
    }
    fn set_parent(&mut self, node: Self::Node, parent: Option<Self::Node>) {
        // SAFETY: as above.
        unsafe { (*node.as_ptr()).parent = raw(parent) };
    }
    fn child(&self, node: Self::Node, side: Side) -> Option<Self::Node> {
        // SAFETY: as above.
        NonNull::new(unsafe {
            match side {
                Side::Left => (*node.as_ptr()).left,
                Side::Right => (*node.as_ptr()).right,
            }
        })
    }
    fn set_child(&mut self, node: Self::Node, side: Side, child: Option<Self::Node>) {
        // SAFETY: as above.
        unsafe {
            match side {
                Side::Left => (*node.as_ptr()).left = raw(child),
                Side::Right => (*node.as_ptr()).right = raw(child),
            }
        }
    }
    fn is_red(&self, node: Self::Node) -> bool {
        // SAFETY: as above.
        unsafe { (*node.as_ptr()).colour == RED }
    }
    fn set_red(&mut self, node: Self::Node, red: bool) {
        // SAFETY: as above.
        unsafe { (*node.as_ptr()).colour = if red { RED } else { BLACK } };
    }
}

/// `rbtree_type *rbtree_create(int (*cmpf)(const void *, const void *), void (*freef)(const void
/// *))`: an empty tree, to be given back with free(3).
#[no_mangle]
pub extern "C" fn rbtree_create(compare: Option<Compare>, free: Option<Free>) -> *mut RbTree {
    guard(ptr::null_mut(), || {
        Owned::new(RbTree { root: ptr::null_mut(), count: 0, compare, free }).into_raw()
    })
}

/// `void rbtree_init(rbtree_type *rbtree, ...)`: makes memory of the caller an empty tree.
#[no_mangle]
pub unsafe extern "C" fn rbtree_init(
    tree: *mut RbTree,
    compare: Option<Compare>,
    free: Option<Free>,
) {
    // SAFETY: as the caller promises.
    guard((), || unsafe { put(tree, RbTree { root: ptr::null_mut(), count: 0, compare, free }) });
}

/// `rbnode_type *rbtree_insert(rbtree_type *rbtree, rbnode_type *data)`: inserts a node whose key
/// is set, and returns it; null if the key is in the tree already.
#[no_mangle]
pub unsafe extern "C" fn rbtree_insert(tree: *mut RbTree, node: *mut RbNode) -> *mut RbNode {
    guard(ptr::null_mut(), || {
        // SAFETY: as the caller promises.
        let (Some(mut tree), Some(node)) = (unsafe { Tree::of(tree) }, NonNull::new(node)) else {
            return ptr::null_mut();
        };
        match tree.locate(tree.key(node)) {
            Some(Location::Missing { place, .. }) => {
                tree.insert(node, place);
                node.as_ptr()
            }
            _ => ptr::null_mut(),
        }
    })
}

/// `rbnode_type *rbtree_search(rbtree_type *rbtree, const void *key)`: the node with a key, or
/// null.
#[no_mangle]
pub unsafe extern "C" fn rbtree_search(tree: *mut RbTree, key: *const c_void) -> *mut RbNode {
    // SAFETY: as the caller promises.
    guard(ptr::null_mut(), || raw(unsafe { Tree::of(tree) }.and_then(|tree| tree.search(key))))
}

/// `int rbtree_find_less_equal(rbtree_type *rbtree, const void *key, rbnode_type **result)`: 1 and
/// the node with the key, or 0 and the one with the largest smaller key, or null.
#[no_mangle]
pub unsafe extern "C" fn rbtree_find_less_equal(
    tree: *mut RbTree,
    key: *const c_void,
    result: *mut *mut RbNode,
) -> c_int {
    guard(0, || {
        // SAFETY: as the caller promises.
        let location = unsafe { Tree::of(tree) }.and_then(|tree| tree.locate(key));
        let (found, node) = match location {
            Some(Location::Found(node)) => (1, Some(node)),
            Some(Location::Missing { smaller, .. }) => (0, smaller),
            None => (0, None),
        };
        // SAFETY: as above; the result is null or writable.
        unsafe { put(result, raw(node)) };
        found
    })
}

unsafe fn edge(tree: *mut RbTree, side: Side) -> *mut RbNode {
    guard(ptr::null_mut(), || {
        // SAFETY: as the caller promises.
        let tree = unsafe { Tree::of(tree) };
        raw(tree.and_then(|tree| rbtree::edge(&tree, side)))
    })
}

/// `rbnode_type *rbtree_first(rbtree_type *rbtree)`: the node with the smallest key, or null.
#[no_mangle]
pub unsafe extern "C" fn rbtree_first(tree: *mut RbTree) -> *mut RbNode {
    // SAFETY: as the caller promises.
    unsafe { edge(tree, Side::Left) }
}

/// `rbnode_type *rbtree_last(rbtree_type *rbtree)`: the node with the largest key, or null.
#[no_mangle]
pub unsafe extern "C" fn rbtree_last(tree: *mut RbTree) -> *mut RbNode {
    // SAFETY: as the caller promises.
    unsafe { edge(tree, Side::Right) }
}

fn neighbour(node: *mut RbNode, side: Side) -> *mut RbNode {
    guard(ptr::null_mut(), || {
        let node = NonNull::new(node);
        raw(node.and_then(|node| rbtree::neighbour(&Tree::UNKNOWN, node, side)))
    })
}

/// `rbnode_type *rbtree_next(rbnode_type *node)`: the node with the next larger key, or null.
#[no_mangle]
pub unsafe extern "C" fn rbtree_next(node: *mut RbNode) -> *mut RbNode {
    neighbour(node, Side::Right)
}

/// `rbnode_type *rbtree_previous(rbnode_type *node)`: the node with the next smaller key, or null.
#[no_mangle]
pub unsafe extern "C" fn rbtree_previous(node: *mut RbNode) -> *mut RbNode {
    neighbour(node, Side::Left)
}

/// `rbnode_type *rbtree_delete_node(rbtree_type *rbtree, rbnode_type *to_delete)`: unlinks a node
/// and returns it. Other nodes keep their keys.
#[no_mangle]
pub unsafe extern "C" fn rbtree_delete_node(tree: *mut RbTree, node: *mut RbNode) -> *mut RbNode {
    guard(node, || {
        // SAFETY: as the caller promises.
        if let (Some(mut tree), Some(node)) = (unsafe { Tree::of(tree) }, NonNull::new(node)) {
            tree.remove(node);
        }
        node
    })
}

/// `rbnode_type *rbtree_delete(rbtree_type *rbtree, const void *key)`: unlinks the node with a key
/// and returns it, or null.
#[no_mangle]
pub unsafe extern "C" fn rbtree_delete(tree: *mut RbTree, key: *const c_void) -> *mut RbNode {
    guard(ptr::null_mut(), || {
        // SAFETY: as the caller promises.
        let Some(mut tree) = (unsafe { Tree::of(tree) }) else {
            return ptr::null_mut();
        };
        let node = tree.search(key);
        if let Some(node) = node {
            tree.remove(node);
        }
        raw(node)
    })
}

/// `void traverse_postorder(rbtree_type *tree, void (*func)(rbnode_type *, void *), void *arg)`:
/// calls `func` for every node, children first. It may give the node back.
#[no_mangle]
pub unsafe extern "C" fn traverse_postorder(
    tree: *mut RbTree,
    function: Option<unsafe extern "C" fn(*mut RbNode, *mut c_void)>,
    argument: *mut c_void,
) {
    guard((), || {
        // SAFETY: as the caller promises.
        let (Some(tree), Some(function)) = (unsafe { Tree::of(tree) }, function) else {
            return;
        };
        let mut next = rbtree::first_in_postorder(&tree);
        while let Some(node) = next {
            next = rbtree::next_in_postorder(&tree, node);
            // SAFETY: the function is the caller's, and for nodes of this tree. What it may give
            // back is not looked at any more.
            unsafe { function(node.as_ptr(), argument) };
        }
    });
}

/// `void rbtree_freefunc(rbnode_type *rbnode, void *data)`: gives a node back, and its key with the
/// function of the tree, which is `data`. Made for [`traverse_postorder`].
#[no_mangle]
pub unsafe extern "C" fn rbtree_freefunc(node: *mut RbNode, tree: *mut c_void) {
    guard((), || {
        // SAFETY: as the caller promises; the function is for the keys of the tree.
        unsafe {
            if node.is_null() {
                return;
            }
            let tree: *mut RbTree = tree.cast();
            if !tree.is_null() {
                if let Some(free) = (*tree).free {
                    free((*node).key);
                }
            }
            rbnode_free(node);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::rbnode::rbnode_alloc;
    use super::*;

    unsafe extern "C" fn by_address(a: *const c_void, b: *const c_void) -> c_int {
        a.addr().cmp(&b.addr()) as c_int
    }

    #[test]
    fn nodes_go_in_and_out_by_their_keys() {
        let key = |number: usize| ptr::without_provenance::<c_void>(number);
        let tree = rbtree_create(Some(by_address), None);
        // SAFETY: each function gets what it asks for; the keys are only compared.
        unsafe {
            for number in [5, 3, 9, 3] {
                let node = rbnode_alloc();
                (*node).key = key(number);
                if rbtree_insert(tree, node).is_null() {
                    assert_eq!(number, 3);
                    rbnode_free(node);
                }
            }
            assert_eq!((*tree).count, 3);
            let (first, last) = (rbtree_first(tree), rbtree_last(tree));
            assert_eq!(((*first).key, (*last).key), (key(3), key(9)));
            assert_eq!(rbtree_previous(last), rbtree_next(first));
            let mut found = ptr::null_mut();
            assert_eq!(rbtree_find_less_equal(tree, key(8), &mut found), 0);
            assert_eq!((*found).key, key(5));
            assert_eq!(rbtree_delete(tree, key(5)), found);
            // A node that is in no tree is left alone.
            assert_eq!(rbtree_delete_node(tree, found), found);
            rbnode_free(found);
            rbnode_free(found);
            assert_ne!(rbnode_alloc(), rbnode_alloc());
            assert_eq!((*tree).count, 2);
            traverse_postorder(tree, Some(rbtree_freefunc), tree.cast());
            libc::free(tree.cast());
        }
    }
}
