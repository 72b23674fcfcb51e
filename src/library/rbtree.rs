//! Red-black trees (Guibas and Sedgewick, 1978; Cormen et al., Introduction to Algorithms, chapter
//! 13) over nodes that the caller stores.
//!
//! A node keeps its identity: removing one relinks the others and moves no content between them. So
//! an iteration may remove the node that it has just left.

use std::cmp::Ordering;

/// One of the two children of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The side of smaller keys.
    Left,
    /// The side of larger keys.
    Right,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Side {
        match self {
            Side::Left => Side::Right,
            Side::Right => Side::Left,
        }
    }
}

/// Access to the nodes and their links, wherever the caller stores them.
pub trait Links {
    /// Identifies a node.
    type Node: Copy + Eq;

    /// The root of the tree.
    fn root(&self) -> Option<Self::Node>;
    /// Makes a node the root.
    fn set_root(&mut self, node: Option<Self::Node>);
    /// The parent of a node; `None` for the root.
    fn parent(&self, node: Self::Node) -> Option<Self::Node>;
    /// Sets the parent of a node.
    fn set_parent(&mut self, node: Self::Node, parent: Option<Self::Node>);
    /// A child of a node.
    fn child(&self, node: Self::Node, side: Side) -> Option<Self::Node>;
    /// Sets a child of a node.
    fn set_child(&mut self, node: Self::Node, side: Side, child: Option<Self::Node>);
    /// The colour of a node.
    fn is_red(&self, node: Self::Node) -> bool;
    /// Sets the colour of a node.
    fn set_red(&mut self, node: Self::Node, red: bool);
}

/// A free place in the tree: a node and the side of it; `None` is the root of an empty tree.
pub type Place<Node> = Option<(Node, Side)>;

/// The result of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location<Node> {
    /// The node with the key.
    Found(Node),
    /// No node has the key.
    Missing {
        /// The node with the largest smaller key.
        smaller: Option<Node>,
        /// Where a node with the key belongs.
        place: Place<Node>,
    },
}

/// Searches for a key. `compare` compares the searched key with that of a node.
pub fn locate<L: Links>(
    links: &L,
    mut compare: impl FnMut(L::Node) -> Ordering,
) -> Location<L::Node> {
    let (mut smaller, mut place, mut next) = (None, None, links.root());
    while let Some(node) = next {
        let side = match compare(node) {
            Ordering::Equal => return Location::Found(node),
            Ordering::Less => Side::Left,
            Ordering::Greater => {
                smaller = Some(node);
                Side::Right
            }
        };
        place = Some((node, side));
        next = links.child(node, side);
    }
    Location::Missing { smaller, place }
}

/// The first (`Side::Left`) or last node.
pub fn edge<L: Links>(links: &L, side: Side) -> Option<L::Node> {
    links.root().map(|root| descend(links, root, side))
}

fn descend<L: Links>(links: &L, mut node: L::Node, side: Side) -> L::Node {
    while let Some(child) = links.child(node, side) {
        node = child;
    }
    node
}

/// The node after (`Side::Right`) or before `node` in the order of keys.
pub fn neighbour<L: Links>(links: &L, mut node: L::Node, side: Side) -> Option<L::Node> {
    if let Some(child) = links.child(node, side) {
        return Some(descend(links, child, side.other()));
    }
    while let Some(parent) = links.parent(node) {
        if links.child(parent, side) != Some(node) {
            return Some(parent);
        }
        node = parent;
    }
    None
}

/// The first node of a postorder traversal, which visits children before their parent.
pub fn first_in_postorder<L: Links>(links: &L) -> Option<L::Node> {
    links.root().map(|root| leaf(links, root))
}

/// The node after `node` in that traversal. Looks only at nodes not visited yet, so a node may be
/// freed as soon as its successor is known.
pub fn next_in_postorder<L: Links>(links: &L, node: L::Node) -> Option<L::Node> {
    let parent = links.parent(node)?;
    let right = links.child(parent, Side::Right).filter(|&right| right != node);
    Some(right.map_or(parent, |right| leaf(links, right)))
}

fn leaf<L: Links>(links: &L, mut node: L::Node) -> L::Node {
    while let Some(child) = links.child(node, Side::Left).or_else(|| links.child(node, Side::Right))
    {
        node = child;
    }
    node
}

/// Links a node into the place that [`locate`] has found.
pub fn insert<L: Links>(links: &mut L, node: L::Node, place: Place<L::Node>) {
    links.set_parent(node, place.map(|(parent, _)| parent));
    links.set_child(node, Side::Left, None);
    links.set_child(node, Side::Right, None);
    links.set_red(node, true);
    match place {
        Some((parent, side)) => links.set_child(parent, side, Some(node)),
        None => links.set_root(Some(node)),
    }
    part_red_nodes(links, node);
    if let Some(root) = links.root() {
        links.set_red(root, false);
    }
}

/// Restores the rule that no red node has a red child: `node` is red, and its parent may be.
fn part_red_nodes<L: Links>(links: &mut L, mut node: L::Node) {
    while let Some(parent) = links.parent(node).filter(|&parent| links.is_red(parent)) {
        let Some(grandparent) = links.parent(parent) else {
            return;
        };
        let side = side_of(links, parent, grandparent);
        links.set_red(grandparent, true);
        match links.child(grandparent, side.other()).filter(|&uncle| links.is_red(uncle)) {
            Some(uncle) => {
                links.set_red(parent, false);
                links.set_red(uncle, false);
                node = grandparent;
            }
            None => {
                let mut top = parent;
                if side_of(links, node, parent) != side {
                    rotate(links, parent, side);
                    top = node;
                }
                links.set_red(top, false);
                rotate(links, grandparent, side.other());
                return;
            }
        }
    }
}

/// Unlinks a node. Its own links are cleared.
pub fn remove<L: Links>(links: &mut L, node: L::Node) {
    // The node that leaves its place must have at most one child: it is this one, or the next in
    // order, which then takes over the place and the colour of this one.
    let (hole, child, red);
    match (links.child(node, Side::Left), links.child(node, Side::Right)) {
        (Some(left), Some(right)) => {
            let heir = descend(links, right, Side::Left);
            child = links.child(heir, Side::Right);
            red = links.is_red(heir);
            if heir == right {
                hole = Some((heir, Side::Right));
            } else {
                hole = links.parent(heir).map(|parent| (parent, Side::Left));
                replace(links, heir, child);
                adopt(links, heir, Side::Right, right);
            }
            replace(links, node, Some(heir));
            adopt(links, heir, Side::Left, left);
            links.set_red(heir, links.is_red(node));
        }
        (left, right) => {
            child = left.or(right);
            red = links.is_red(node);
            hole = links.parent(node).map(|parent| (parent, side_of(links, node, parent)));
            replace(links, node, child);
        }
    }
    links.set_parent(node, None);
    links.set_child(node, Side::Left, None);
    links.set_child(node, Side::Right, None);
    links.set_red(node, false);
    match child {
        _ if red => {}
        Some(child) => links.set_red(child, false),
        None => fill_hole(links, hole),
    }
}

/// Restores the rule that all paths have as many black nodes: those through the hole have one too
/// few.
fn fill_hole<L: Links>(links: &mut L, mut hole: Place<L::Node>) {
    while let Some((parent, side)) = hole {
        let Some(mut sibling) = links.child(parent, side.other()) else {
            return;
        };
        if links.is_red(sibling) {
            links.set_red(sibling, false);
            links.set_red(parent, true);
            rotate(links, parent, side);
            match links.child(parent, side.other()) {
                Some(next) => sibling = next,
                None => return,
            }
        }
        let red_child =
            |links: &L, side| links.child(sibling, side).filter(|&child| links.is_red(child));
        match (red_child(links, side), red_child(links, side.other())) {
            (None, None) => {
                links.set_red(sibling, true);
                if links.is_red(parent) {
                    links.set_red(parent, false);
                    return;
                }
                let above = links.parent(parent);
                hole = above.map(|above| (above, side_of(links, parent, above)));
            }
            (near, far) => {
                match (near, far) {
                    (Some(near), None) => {
                        rotate(links, sibling, side.other());
                        links.set_red(near, links.is_red(parent));
                    }
                    (_, far) => {
                        links.set_red(sibling, links.is_red(parent));
                        if let Some(far) = far {
                            links.set_red(far, false);
                        }
                    }
                }
                links.set_red(parent, false);
                rotate(links, parent, side);
                return;
            }
        }
    }
}

fn side_of<L: Links>(links: &L, node: L::Node, parent: L::Node) -> Side {
    match links.child(parent, Side::Left) == Some(node) {
        true => Side::Left,
        false => Side::Right,
    }
}

/// Puts `new`, with its subtree, in the place of `old`.
fn replace<L: Links>(links: &mut L, old: L::Node, new: Option<L::Node>) {
    let parent = links.parent(old);
    match parent {
        Some(parent) => links.set_child(parent, side_of(links, old, parent), new),
        None => links.set_root(new),
    }
    if let Some(new) = new {
        links.set_parent(new, parent);
    }
}

fn adopt<L: Links>(links: &mut L, parent: L::Node, side: Side, child: L::Node) {
    links.set_child(parent, side, Some(child));
    links.set_parent(child, Some(parent));
}

/// Moves `node` down to `side`, and its child on the other side up.
fn rotate<L: Links>(links: &mut L, node: L::Node, side: Side) {
    let Some(up) = links.child(node, side.other()) else {
        return;
    };
    let between = links.child(up, side);
    replace(links, node, Some(up));
    adopt(links, up, side, node);
    links.set_child(node, side.other(), between);
    if let Some(between) = between {
        links.set_parent(between, Some(node));
    }
}

#[cfg(test)]
mod tests;
