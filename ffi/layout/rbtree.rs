//! Red-black trees of C structures: `rbtree_type` and `rbnode_type`.
//!
//! A tree was initialised by `rbtree_init` or `rbtree_create`. A node came from `rbnode_alloc` or
//! is the caller's memory, and keeps its address while it is in a tree. The tree's callbacks may
//! use the tree, so no reference to it may be held while one runs.

use crate::ffi::entry::Argument;
use crate::library::rbtree::{self, Links, Location, Place, Side};
use crate::os::malloc::{allocate, Owned};
use std::cmp::Ordering;
use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError};

/// `rbnode_type`
#[repr(C)]
#[derive(Debug)]
pub struct RbNode {
    pub(crate) parent: *mut RbNode,
    pub(crate) left: *mut RbNode,
    pub(crate) right: *mut RbNode,
    /// The payload, which the tree's functions compare and free.
    pub key: *const c_void,
    /// [`BLACK`] or [`RED`]; [`FREE`] in the store of free nodes.
    pub(crate) colour: u8,
}

/// `rbtree_type`
#[repr(C)]
#[derive(Debug)]
pub struct RbTree {
    root: *mut RbNode,
    /// Number of nodes in the tree.
    pub(crate) count: usize,
    compare: Option<Compare>,
    free: Option<Free>,
}

/// Compares its arguments: negative, 0 or positive if the first is less than, equal to or greater
/// than the second.
pub type Compare = unsafe extern "C" fn(*const c_void, *const c_void) -> c_int;
/// Frees the payload of a node.
pub type Free = unsafe extern "C" fn(*const c_void);

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<RbNode>() == 40 && size_of::<RbTree>() == 32);

const BLACK: u8 = 0;
const RED: u8 = 1;
const FREE: u8 = 0xff;

impl RbTree {
    /// An empty tree.
    pub(crate) fn new(compare: Option<Compare>, free: Option<Free>) -> RbTree {
        RbTree { root: ptr::null_mut(), count: 0, compare, free }
    }
}

/// A pointer to a tree. Nodes are identified by their address.
pub struct Tree(*mut RbTree);

/// The tree must be valid, as the head of this file says.
impl Argument for Tree {
    type Raw = *mut RbTree;
    unsafe fn take(raw: *mut RbTree) -> Option<Tree> {
        (!raw.is_null()).then_some(Tree(raw))
    }
}

impl Tree {
    /// A tree that C code passes as an untyped pointer; `None` for a null pointer.
    ///
    /// # Safety
    /// The tree is valid, as the head of this file says, while the result is used.
    pub(crate) unsafe fn at(tree: *mut c_void) -> Option<Tree> {
        // SAFETY: as the caller promises.
        unsafe { Tree::take(tree.cast()) }
    }

    /// An empty tree, to be freed with free(3).
    pub(crate) fn allocate(compare: Option<Compare>, free: Option<Free>) -> *mut RbTree {
        Owned::new(RbTree::new(compare, free)).into_raw()
    }

    /// Access to the links of nodes whose tree is not known, and not needed.
    pub(crate) const UNKNOWN: Tree = Tree(ptr::null_mut());

    /// The function that frees keys.
    pub(crate) fn free(&self) -> Option<Free> {
        // SAFETY: the tree is valid, if there is one; the field is copied.
        (!self.0.is_null()).then(|| unsafe { (*self.0).free })?
    }

    /// The key of a node.
    pub(crate) fn key(&self, node: NonNull<RbNode>) -> *const c_void {
        // SAFETY: nodes of a tree are valid; the field is copied.
        unsafe { (*node.as_ptr()).key }
    }

    /// Searches with the tree's own function; `None` if it has none.
    pub(crate) fn locate(&self, key: *const c_void) -> Option<Location<NonNull<RbNode>>> {
        // SAFETY: the tree is valid; the field is copied.
        let compare = unsafe { (*self.0).compare }?;
        Some(rbtree::locate(self, |node| {
            // SAFETY: the function is for the keys of this tree and the searched key.
            unsafe { compare(key, self.key(node)) }.cmp(&0)
        }))
    }

    pub(crate) fn search(&self, key: *const c_void) -> Option<NonNull<RbNode>> {
        match self.locate(key) {
            Some(Location::Found(node)) => Some(node),
            _ => None,
        }
    }

    /// Searches with a function other than the tree's own; it must have the same order.
    pub(crate) fn locate_by(
        &self,
        mut compare: impl FnMut(*const c_void) -> Ordering,
    ) -> Location<NonNull<RbNode>> {
        rbtree::locate(self, |node| compare(self.key(node)))
    }

    /// Inserts a node at the place that a search has found.
    pub(crate) fn insert(&mut self, node: NonNull<RbNode>, place: Place<NonNull<RbNode>>) {
        rbtree::insert(self, node, place);
        // SAFETY: the tree is valid.
        unsafe { (*self.0).count += 1 };
    }

    pub(crate) fn remove(&mut self, node: NonNull<RbNode>) {
        // A node that has no parent and is not the root is in no tree.
        if self.parent(node).is_none() && self.root() != Some(node) {
            return;
        }
        rbtree::remove(self, node);
        // SAFETY: the tree is valid.
        unsafe { (*self.0).count = (*self.0).count.saturating_sub(1) };
    }
}

/// A null pointer for `None`.
pub(crate) fn raw(node: Option<NonNull<RbNode>>) -> *mut RbNode {
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

/// Number of nodes in one allocation.
const CHUNK: usize = 128;

/// Free nodes. Their memory is used for nodes only, never for other data: C code that reads a node
/// after freeing it finds no links, and nothing else.
struct Store(Vec<NonNull<RbNode>>);

// SAFETY: nobody else has the nodes in the store.
unsafe impl Send for Store {}

static STORE: Mutex<Store> = Mutex::new(Store(Vec::new()));

impl RbNode {
    /// A zeroed node.
    pub(crate) fn allocate() -> NonNull<RbNode> {
        let mut store = STORE.lock().unwrap_or_else(PoisonError::into_inner);
        let node = store.0.pop().unwrap_or_else(|| {
            let first = allocate(CHUNK * size_of::<RbNode>(), "rbnode_alloc").cast::<RbNode>();
            // SAFETY: the memory has that many nodes, and zeroes are a valid node.
            store.0.extend((1..CHUNK).rev().map(|at| unsafe { first.add(at) }));
            first
        });
        // SAFETY: the store has valid nodes that nobody else has.
        unsafe { (*node.as_ptr()).colour = BLACK };
        node
    }

    /// Frees a node that is in no tree. A node that was freed before is left alone.
    ///
    /// # Safety
    /// The node came from [`allocate`](Self::allocate).
    pub(crate) unsafe fn give_back(node: NonNull<RbNode>) {
        let none = ptr::null_mut();
        let free = RbNode { parent: none, left: none, right: none, key: ptr::null(), colour: FREE };
        // SAFETY: as the caller promises, and memory of nodes is never used for anything else.
        let before = unsafe { node.as_ptr().replace(free) };
        if before.colour != FREE {
            STORE.lock().unwrap_or_else(PoisonError::into_inner).0.push(node);
        }
    }
}
