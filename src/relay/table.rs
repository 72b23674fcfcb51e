//! A table of values by small numbers that stay the same as long as the value is there.
//!
//! It grows by chunks, so that nothing is ever copied, nor memory held for what may come.

const CHUNK: usize = 256;

/// The table.
#[derive(Debug)]
pub(super) struct Table<T> {
    chunks: Vec<Box<[Option<T>]>>,
    vacant: Vec<u32>,
    /// Numbers below this one have been in use.
    limit: u32,
    length: usize,
}

impl<T> Table<T> {
    pub(super) fn new() -> Table<T> {
        Table { chunks: Vec::new(), vacant: Vec::new(), limit: 0, length: 0 }
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Stores a value and returns its number.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        let index = self.vacant.pop().unwrap_or_else(|| {
            if self.limit as usize == self.chunks.len() * CHUNK {
                self.chunks.push((0..CHUNK).map(|_| None).collect());
            }
            self.limit += 1;
            self.limit - 1
        });
        self.chunks[index as usize / CHUNK][index as usize % CHUNK] = Some(value);
        self.length += 1;
        index
    }

    /// The value of that number, if there is one.
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.chunks.get_mut(index as usize / CHUNK)?[index as usize % CHUNK].as_mut()
    }

    /// Takes a value out; its number may be given to another one. Memory goes when the table
    /// is empty.
    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let value = self.chunks.get_mut(index as usize / CHUNK)?[index as usize % CHUNK].take()?;
        self.length -= 1;
        if self.length > 0 {
            self.vacant.push(index);
        } else if self.chunks.len() > 1 {
            *self = Table::new();
        } else {
            self.vacant.clear();
            self.limit = 0;
        }
        Some(value)
    }

    /// The numbers in use.
    pub(super) fn indices(&self) -> Vec<u32> {
        let all = self.chunks.iter().flat_map(|chunk| chunk.iter()).zip(0..);
        all.filter_map(|(value, index)| value.is_some().then_some(index)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec((0u8..3, any::<usize>()), 0..2000)) {
            let mut table = Table::new();
            let mut model: HashMap<u32, usize> = HashMap::new();
            for (step, value) in steps {
                if step < 2 {
                    let index = table.insert(value);
                    prop_assert_eq!(model.insert(index, value), None);
                } else if let Some(&index) = model.keys().min_by_key(|&&index| index as usize ^ value)
                {
                    prop_assert_eq!(table.remove(index), model.remove(&index));
                    prop_assert_eq!(table.remove(index), None);
                }
                prop_assert_eq!(table.len(), model.len());
            }
            let mut indices: Vec<u32> = model.keys().copied().collect();
            indices.sort_unstable();
            prop_assert_eq!(table.indices(), indices);
            for (index, mut value) in model {
                prop_assert_eq!(table.get_mut(index), Some(&mut value));
            }
        }
    }
}
