//! misc/rbtree.h: red-black trees of C structures, and the allocation of their nodes.

use super::entry::{entry, Out};
use super::layout::rbtree::{raw, Compare, Free, RbNode, RbTree, Tree};
use crate::library::rbtree::{self, Location, Side};
use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};

entry! {
    /// `rbtree_type *rbtree_create(int (*cmpf)(const void *, const void *), void (*freef)(const
    /// void *))`: an empty tree, to be freed with free(3).
    #[otherwise(ptr::null_mut())]
    pub fn rbtree_create(compare: Option<Compare>, free: Option<Free>) -> *mut RbTree {
        Tree::allocate(compare, free)
    }

    /// `void rbtree_init(rbtree_type *rbtree, ...)`: makes an empty tree in the caller's memory.
    pub fn rbtree_init(tree: Out<RbTree>, compare: Option<Compare>, free: Option<Free>) {
        tree.put(RbTree::new(compare, free));
    }

    /// `rbnode_type *rbtree_insert(rbtree_type *rbtree, rbnode_type *data)`: inserts a node whose
    /// key is set, and returns it; null if the tree already has the key.
    #[otherwise(ptr::null_mut())]
    pub fn rbtree_insert(tree: Tree, node: NonNull<RbNode>) -> *mut RbNode {
        match tree.locate(tree.key(node)) {
            Some(Location::Missing { place, .. }) => {
                tree.insert(node, place);
                node.as_ptr()
            }
            _ => ptr::null_mut(),
        }
    }

    /// `rbnode_type *rbtree_search(rbtree_type *rbtree, const void *key)`: the node with a key, or
    /// null.
    #[otherwise(ptr::null_mut())]
    pub fn rbtree_search(tree: Tree, key: *const c_void) -> *mut RbNode {
        raw(tree.search(key))
    }

    /// `int rbtree_find_less_equal(rbtree_type *rbtree, const void *key, rbnode_type **result)`: 1
    /// and the node with this key; otherwise 0 and the node with the largest smaller key, or null.
    #[otherwise(0)]
    pub fn rbtree_find_less_equal(
        tree: Option<Tree>,
        key: *const c_void,
        result: Out<*mut RbNode>,
    ) -> c_int {
        let (found, node) = match tree.and_then(|tree| tree.locate(key)) {
            Some(Location::Found(node)) => (1, Some(node)),
            Some(Location::Missing { smaller, .. }) => (0, smaller),
            None => (0, None),
        };
        result.put(raw(node));
        found
    }

    /// `rbnode_type *rbtree_first(rbtree_type *rbtree)`: the node with the smallest key, or null.
    #[otherwise(ptr::null_mut())]
    pub fn rbtree_first(tree: Tree) -> *mut RbNode {
        raw(rbtree::edge(&tree, Side::Left))
    }

    /// `rbnode_type *rbtree_last(rbtree_type *rbtree)`: the node with the largest key, or null.
    #[otherwise(ptr::null_mut())]
    pub fn rbtree_last(tree: Tree) -> *mut RbNode {
        raw(rbtree::edge(&tree, Side::Right))
    }

    /// `rbnode_type *rbtree_next(rbnode_type *node)`: the node with the next larger key, or null.
    #[otherwise(ptr::null_mut())]
    pub fn rbtree_next(node: NonNull<RbNode>) -> *mut RbNode {
        raw(rbtree::neighbour(&Tree::UNKNOWN, node, Side::Right))
    }

    /// `rbnode_type *rbtree_previous(rbnode_type *node)`: the node with the next smaller key, or
    /// null.
    #[otherwise(ptr::null_mut())]
    pub fn rbtree_previous(node: NonNull<RbNode>) -> *mut RbNode {
        raw(rbtree::neighbour(&Tree::UNKNOWN, node, Side::Left))
    }

    /// `rbnode_type *rbtree_delete_node(rbtree_type *rbtree, rbnode_type *to_delete)`: unlinks a
    /// node and returns it. Other nodes are relinked, and keep their addresses and keys.
    #[otherwise(node)]
    pub fn rbtree_delete_node(tree: Tree, node: *mut RbNode) -> *mut RbNode {
        if let Some(node) = NonNull::new(node) {
            tree.remove(node);
        }
        node
    }

    /// `rbnode_type *rbtree_delete(rbtree_type *rbtree, const void *key)`: unlinks the node with a
    /// key and returns it, or null.
    #[otherwise(ptr::null_mut())]
    pub fn rbtree_delete(tree: Tree, key: *const c_void) -> *mut RbNode {
        let node = tree.search(key);
        if let Some(node) = node {
            tree.remove(node);
        }
        raw(node)
    }

    /// `void traverse_postorder(rbtree_type *tree, void (*func)(rbnode_type *, void *), void
    /// *arg)`: calls `func` for every node, children first. `func` may free the node.
    pub fn traverse_postorder(
        tree: Tree,
        function: unsafe extern "C" fn(*mut RbNode, *mut c_void),
        argument: *mut c_void,
    ) {
        let mut next = rbtree::first_in_postorder(&tree);
        while let Some(node) = next {
            next = rbtree::next_in_postorder(&tree, node);
            // SAFETY: the caller passed the function for the nodes of this tree. The node is not
            // used after the call, as the function may free it.
            unsafe { function(node.as_ptr(), argument) };
        }
    }

    /// `rbnode_type *rbnode_alloc(void)`: a zeroed node.
    #[otherwise(ptr::null_mut())]
    pub fn rbnode_alloc() -> *mut RbNode {
        RbNode::allocate().as_ptr()
    }

    /// `void rbnode_free(rbnode_type *rbnode)`: frees a node that is in no tree. A node that was
    /// freed before is left alone.
    pub fn rbnode_free(node: NonNull<RbNode>) {
        // SAFETY: the node came from `rbnode_alloc`.
        unsafe { RbNode::give_back(node) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::rb::rbtree_freefunc;
    use super::*;

    unsafe extern "C" fn by_address(a: *const c_void, b: *const c_void) -> c_int {
        a.addr().cmp(&b.addr()) as c_int
    }

    #[test]
    fn nodes_go_in_and_out_by_their_keys() {
        let key = |number: usize| ptr::without_provenance::<c_void>(number);
        // SAFETY: each function gets the arguments it requires; the keys are only compared.
        unsafe {
            let tree = rbtree_create(Some(by_address), None);
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
