use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Default)]
struct Node {
    key: u8,
    parent: Option<usize>,
    children: [Option<usize>; 2],
    red: bool,
}

/// A tree whose nodes are in a vector.
#[derive(Default)]
struct Arena {
    root: Option<usize>,
    nodes: Vec<Node>,
}

impl Links for Arena {
    type Node = usize;

    fn root(&self) -> Option<usize> {
        self.root
    }
    fn set_root(&mut self, node: Option<usize>) {
        self.root = node;
    }
    fn parent(&self, node: usize) -> Option<usize> {
        self.nodes[node].parent
    }
    fn set_parent(&mut self, node: usize, parent: Option<usize>) {
        self.nodes[node].parent = parent;
    }
    fn child(&self, node: usize, side: Side) -> Option<usize> {
        self.nodes[node].children[side as usize]
    }
    fn set_child(&mut self, node: usize, side: Side, child: Option<usize>) {
        self.nodes[node].children[side as usize] = child;
    }
    fn is_red(&self, node: usize) -> bool {
        self.nodes[node].red
    }
    fn set_red(&mut self, node: usize, red: bool) {
        self.nodes[node].red = red;
    }
}

impl Arena {
    fn locate(&self, key: u8) -> Location<usize> {
        locate(self, |node| key.cmp(&self.nodes[node].key))
    }

    fn keys(&self, side: Side) -> Vec<u8> {
        let mut next = edge(self, side.other());
        let mut keys = Vec::new();
        while let Some(node) = next {
            keys.push(self.nodes[node].key);
            next = neighbour(self, node, side);
        }
        keys
    }

    /// The number of black nodes on every path down from a node. Checks colours and parents too.
    fn black_height(&self, node: Option<usize>, parent: Option<usize>) -> usize {
        let Some(node) = node else {
            return 0;
        };
        assert_eq!(self.parent(node), parent);
        if self.is_red(node) {
            assert!(parent.is_some_and(|parent| !self.is_red(parent)), "red below red, or root");
        }
        let [left, right] = self.nodes[node].children;
        let height = self.black_height(left, Some(node));
        assert_eq!(height, self.black_height(right, Some(node)));
        height + usize::from(!self.is_red(node))
    }

    fn postorder(&self) -> Vec<usize> {
        std::iter::successors(first_in_postorder(self), |&node| next_in_postorder(self, node))
            .collect()
    }
}

proptest! {
    #[test]
    fn tree_does_what_a_map_does(steps in prop::collection::vec((any::<bool>(), 0u8..60), 0..400)) {
        let mut arena = Arena::default();
        let mut map: BTreeMap<u8, usize> = BTreeMap::new();
        for (add, key) in steps {
            let location = arena.locate(key);
            let smaller = map.range(..key).next_back().map(|(_, &node)| node);
            match (location, add) {
                (Location::Found(node), true) => prop_assert_eq!(map.get(&key), Some(&node)),
                (Location::Missing { smaller: found, place }, true) => {
                    prop_assert_eq!(found, smaller);
                    arena.nodes.push(Node { key, ..Node::default() });
                    let node = arena.nodes.len() - 1;
                    insert(&mut arena, node, place);
                    map.insert(key, node);
                }
                (Location::Found(node), false) => {
                    remove(&mut arena, node);
                    prop_assert_eq!(map.remove(&key), Some(node));
                    prop_assert_eq!(arena.nodes[node].children, [None, None]);
                    prop_assert_eq!(arena.nodes[node].parent, None);
                }
                (Location::Missing { .. }, false) => prop_assert!(!map.contains_key(&key)),
            }
            arena.black_height(arena.root, None);
        }
        let mut keys: Vec<u8> = map.keys().copied().collect();
        prop_assert_eq!(arena.keys(Side::Right), keys.clone());
        keys.reverse();
        prop_assert_eq!(arena.keys(Side::Left), keys);
        let order = arena.postorder();
        prop_assert_eq!(order.len(), map.len());
        for (at, &node) in order.iter().enumerate() {
            for child in arena.nodes[node].children.into_iter().flatten() {
                prop_assert!(order[..at].contains(&child));
            }
        }
    }
}

#[test]
fn height_is_logarithmic() {
    let mut arena = Arena::default();
    for key in 0..=255u8 {
        let Location::Missing { place, .. } = arena.locate(key) else { panic!("a new key") };
        arena.nodes.push(Node { key, ..Node::default() });
        insert(&mut arena, usize::from(key), place);
    }
    let depth = |node: usize| std::iter::successors(Some(node), |&node| arena.parent(node)).count();
    assert!((0..256).map(depth).max() <= Some(16));
    assert_eq!(arena.postorder().len(), 256);
}
