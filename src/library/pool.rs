//! Pools: blocks of memory that are freed together.
//!
//! Only the bookkeeping is here, and a block is just an address as a number. The owner of the pool
//! allocates and frees.

use std::collections::BTreeSet;

/// The blocks of a pool, and the actions for its end.
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
    /// Adds a block to the pool. The null address is ignored.
    pub fn attach(&mut self, block: usize) {
        if block != 0 {
            self.blocks.insert(block);
        }
    }

    /// Takes a block out. False if it was not in the pool.
    pub fn detach(&mut self, block: usize) -> bool {
        self.blocks.remove(&block)
    }

    /// Registers an action for the end of the pool.
    pub fn at_end(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Takes all blocks out of the pool.
    pub fn take_blocks(&mut self) -> BTreeSet<usize> {
        std::mem::take(&mut self.blocks)
    }

    /// Takes all actions out of the pool, in the order of their registration.
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
