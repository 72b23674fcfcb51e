//! A radix tree of address prefixes, for the longest match.
//!
//! Addresses are four words in host byte order, IPv4 as `::ffff:a.b.c.d`. A payload is a number,
//! which means nothing here.

use super::network::{bit, common_length, network, Address};

/// A node: a prefix that was added, or the common part of two prefixes.
#[derive(Debug)]
struct Node {
    prefix: Address,
    length: u8,
    payload: Option<usize>,
    /// Indexed by the first bit after the prefix. Every child's prefix is longer.
    children: [Option<Box<Node>>; 2],
}

impl Node {
    fn boxed(prefix: Address, length: u8, payload: Option<usize>) -> Option<Box<Node>> {
        Some(Box::new(Node { prefix, length, payload, children: [None, None] }))
    }

    fn collect(&self, entries: &mut Vec<Entry>) {
        for child in self.children.iter().flatten() {
            child.collect(entries);
        }
        if let Some(payload) = self.payload {
            entries.push(Entry { prefix: self.prefix, length: self.length, payload });
        }
    }
}

/// A prefix of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The address, host bits clear.
    pub prefix: Address,
    /// Length of the prefix in bits, up to 128.
    pub length: u8,
    /// The payload that was added with it.
    pub payload: usize,
}

/// Prefixes and their payloads.
#[derive(Debug, Default)]
pub struct Tree {
    root: Option<Box<Node>>,
}

impl Tree {
    /// Adds a prefix; host bits of `address` are ignored. If the tree already has the prefix,
    /// nothing changes, and its payload is returned. A `length` above 128 means 128.
    pub fn add(&mut self, address: &Address, length: u8, payload: usize) -> Option<usize> {
        let length = length.min(128);
        let prefix = network(address, i32::from(length));
        let mut slot = &mut self.root;
        loop {
            let (other, limit) = match slot {
                None => break,
                Some(node) => (node.prefix, node.length),
            };
            let common = common_length(&prefix, &other, i32::from(length.min(limit))) as u8;
            if common < limit {
                // The node moves below the common part, which may be the new prefix itself.
                let below = slot.take();
                *slot = Node::boxed(network(&prefix, i32::from(common)), common, None);
                if let Some(parent) = slot {
                    parent.children[bit(&other, common)] = below;
                }
            }
            if common == length {
                return slot.as_mut().and_then(|node| match node.payload {
                    None => {
                        node.payload = Some(payload);
                        None
                    }
                    there => there,
                });
            }
            match slot {
                Some(node) => slot = &mut node.children[bit(&prefix, common)],
                None => break,
            }
        }
        *slot = Node::boxed(prefix, length, Some(payload));
        None
    }

    /// The payloads of all prefixes that contain `address`, the shortest prefix first.
    pub fn matches<'a>(&'a self, address: &'a Address) -> impl Iterator<Item = usize> + 'a {
        let mut next = self.root.as_deref();
        std::iter::from_fn(move || {
            while let Some(node) = next {
                if network(address, i32::from(node.length)) != node.prefix {
                    next = None;
                    break;
                }
                next = match node.length {
                    128 => None,
                    length => node.children[bit(address, length)].as_deref(),
                };
                if node.payload.is_some() {
                    return node.payload;
                }
            }
            None
        })
    }

    /// All prefixes, longer ones before those that contain them.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        if let Some(root) = &self.root {
            root.collect(&mut entries);
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::super::network::contains;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn longest_prefix_wins() {
        let mut tree = Tree::default();
        let v4 = |last: u32| [0, 0, 0xffff, 0x0a00_0000 | last];
        assert_eq!(tree.add(&v4(5), 104, 1), None);
        assert_eq!(tree.add(&v4(5), 128, 2), None);
        assert_eq!(tree.add(&v4(6), 104, 3), Some(1));
        assert_eq!(tree.matches(&v4(5)).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(tree.matches(&v4(6)).collect::<Vec<_>>(), [1]);
        assert_eq!(tree.matches(&[0; 4]).count(), 0);
        assert_eq!(tree.add(&[0; 4], 0, 9), None);
        assert_eq!(tree.matches(&[0; 4]).last(), Some(9));
        assert_eq!(tree.entries().iter().map(|entry| entry.payload).collect::<Vec<_>>(), [2, 1, 9]);
    }

    proptest! {
        #[test]
        fn tree_does_what_a_list_does(
            // Few bits, so that prefixes overlap.
            prefixes in prop::collection::vec((0u32..16, 0u32..16, 0u8..=128), 0..40),
            asked in prop::collection::vec((0u32..16, 0u32..16), 20),
        ) {
            let address = |high: u32, low: u32| [high << 28, 0, 0, low];
            let mut tree = Tree::default();
            let mut list: Vec<Entry> = Vec::new();
            for (payload, &(high, low, length)) in prefixes.iter().enumerate() {
                let prefix = network(&address(high, low), i32::from(length));
                let there = list.iter().find(|e| e.prefix == prefix && e.length == length);
                let there = there.map(|entry| entry.payload);
                prop_assert_eq!(tree.add(&address(high, low), length, payload), there);
                if there.is_none() {
                    list.push(Entry { prefix, length, payload });
                }
            }
            list.sort_by_key(|entry| entry.length);
            for (high, low) in asked {
                let address = address(high, low);
                let matching = |entry: &&Entry| {
                    contains(&entry.prefix, i32::from(entry.length), &address)
                };
                let expected: Vec<_> = list.iter().filter(matching).map(|e| e.payload).collect();
                prop_assert_eq!(tree.matches(&address).collect::<Vec<_>>(), expected);
            }
            let mut entries = tree.entries();
            entries.sort_by_key(|entry| entry.payload);
            list.sort_by_key(|entry| entry.payload);
            prop_assert_eq!(entries, list);
        }
    }
}
