//! Pools: blocks of memory that are given back together.
//!
//! Only the bookkeeping is here. A block is the number of its address; whoever keeps a pool
//! allocates and frees.

use std::collections::BTreeSet;

/// The blocks of a pool, and what is to be called when it ends.
#[derive(Debug)]
pub struct Pool<Action> {
    blocks: BTreeSet<usize>,
    actions: Vec<Action>,
}

impl<Action> Default for Pool<Action> {
    fn default() -> Self {
        Pool { blocks: BTreeSet::new(), actions: Vec::new() }
    }
}

impl<Action> Pool<Action> {
    /// Makes a block part of the pool. The null address is none.
    pub fn attach(&mut self, block: usize) {
        if block != 0 {
            self.blocks.insert(block);
        }
    }

    /// Takes a block out. False if it was not in the pool.
    pub fn detach(&mut self, block: usize) -> bool {
        self.blocks.remove(&block)
    }

    /// Calls for `action` at the end.
    pub fn at_end(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// All blocks. The pool has none then.
    pub fn take_blocks(&mut self) -> BTreeSet<usize> {
        std::mem::take(&mut self.blocks)
    }

    /// All actions in the order they were called for. The pool has none then.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_kept_once() {
        let mut pool: Pool<()> = Pool::default();
        pool.attach(0);
        pool.attach(16);
        pool.attach(16);
        pool.attach(8);
        assert!(pool.detach(8) && !pool.detach(8) && !pool.detach(0));
        assert_eq!(pool.take_blocks().into_iter().collect::<Vec<_>>(), [16]);
        assert!(pool.take_blocks().is_empty());
    }

    #[test]
    fn actions_keep_their_order() {
        let mut pool = Pool::default();
        pool.at_end(2);
        pool.at_end(1);
        assert_eq!((pool.take_actions(), pool.take_actions()), (vec![2, 1], vec![]));
    }
}
