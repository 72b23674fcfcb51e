//! Numbered places: finds the first place with the smallest number at once (a tournament tree).

/// The number of a place that takes no part.
pub(super) const OUT: u64 = u64::MAX;

/// A complete binary tree in an array: the root is at 1, node `n` has its children at `2n` and
/// `2n+1`, and the places are the leaves. Each inner node has the smaller number of its children.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree(Vec<u64>);

impl Tree {
    /// A tree of this many places, none of which takes part.
    pub(super) fn new(places: usize) -> Tree {
        Tree(vec![OUT; 2 * places.next_power_of_two()])
    }

    /// Gives a place its number.
    pub(super) fn set(&mut self, place: usize, number: u64) {
        let mut node = self.0.len() / 2 + place;
        self.0[node] = number;
        while node > 1 {
            node /= 2;
            let winner = self.0[2 * node].min(self.0[2 * node + 1]);
            // Nothing changes further up either.
            if std::mem::replace(&mut self.0[node], winner) == winner {
                return;
            }
        }
    }

    /// The first place with the smallest number.
    pub(super) fn first(&self) -> Option<usize> {
        let leaves = self.0.len() / 2;
        let smallest = *self.0.get(1).filter(|&&number| number != OUT)?;
        let mut node = 1;
        while node < leaves {
            node *= 2;
            node += usize::from(self.0[node] != smallest);
        }
        Some(node - leaves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_first_of_the_smallest(
            places in 1usize..40,
            steps in prop::collection::vec((any::<usize>(), prop_oneof![0u64..5, Just(OUT)]), 0..99),
        ) {
            let mut tree = Tree::new(places);
            let mut numbers = vec![OUT; places];
            prop_assert_eq!(tree.first(), None);
            for (place, number) in steps {
                tree.set(place % places, number);
                numbers[place % places] = number;
                let smallest = numbers.iter().enumerate().min_by_key(|(_, &number)| number);
                let first = smallest.filter(|(_, &number)| number != OUT).map(|(place, _)| place);
                prop_assert_eq!(tree.first(), first);
            }
        }
    }
}
