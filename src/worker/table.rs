//! A table of values, numbered by small integers that do not change while the value is there.
//!
//! It grows by chunks, so values are never copied to a larger table, and no memory is held for
//! values that may never come.

/// Small, so that chunks fit where tables that have grown left memory unused.
const CHUNK: usize = 64;

/// A part of the table.
#[derive(Debug)]
struct Chunk<T> {
    /// [`CHUNK`] places, or none: the memory of an unused chunk may be given back.
    places: Box<[Option<T>]>,
    used: usize,
}

/// The table.
#[derive(Debug)]
pub(super) struct Table<T> {
    chunks: Vec<Chunk<T>>,
    /// Chunks whose places are allocated.
    present: usize,
    vacant: Vec<u32>,
    /// Numbers below this one have been in use.
    limit: u32,
    length: usize,
}

impl<T> Table<T> {
    pub(super) fn new() -> Table<T> {
        Table { chunks: Vec::new(), present: 0, vacant: Vec::new(), limit: 0, length: 0 }
    }

    /// The number of values.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Stores a value and returns its number.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        let index = self.vacant.pop().unwrap_or_else(|| {
            if self.limit as usize == self.chunks.len() * CHUNK {
                self.chunks.push(Chunk { places: Box::default(), used: 0 });
            }
            self.limit += 1;
            self.limit - 1
        });
        let chunk = &mut self.chunks[index as usize / CHUNK];
        if chunk.places.is_empty() {
            chunk.places = (0..CHUNK).map(|_| None).collect();
            self.present += 1;
        }
        chunk.places[index as usize % CHUNK] = Some(value);
        chunk.used += 1;
        self.length += 1;
        index
    }

    /// The value of that number, if there is one.
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let chunk = self.chunks.get_mut(index as usize / CHUNK)?;
        chunk.places.get_mut(index as usize % CHUNK)?.as_mut()
    }

    /// All values, with their numbers.
    #[cfg(test)]
    pub(super) fn all(&self) -> Vec<(u32, &T)> {
        let places = self.chunks.iter().zip((0..).step_by(CHUNK)).flat_map(|(chunk, first)| {
            chunk.places.iter().zip(first..).map(|(place, index)| (index, place))
        });
        places.filter_map(|(index, place)| Some((index, place.as_ref()?))).collect()
    }

    /// Takes a value out; its number may be reused. Frees unused chunks when more than four times
    /// as many places are allocated as are needed. With the last value all chunks are freed, unless
    /// there is only one.
    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let chunk = self.chunks.get_mut(index as usize / CHUNK)?;
        let value = chunk.places.get_mut(index as usize % CHUNK)?.take()?;
        chunk.used -= 1;
        self.length -= 1;
        if chunk.used == 0 && self.length > 0 && 4 * self.length < self.present * CHUNK {
            for chunk in self.chunks.iter_mut().filter(|chunk| chunk.used == 0) {
                chunk.places = Box::default();
            }
            self.present = self.chunks.iter().filter(|chunk| chunk.used > 0).count();
        }
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
        let mut indices = Vec::with_capacity(self.length);
        for (chunk, first) in self.chunks.iter().zip((0..).step_by(CHUNK)) {
            if indices.len() == self.length {
                break;
            }
            let used = chunk.places.iter().zip(first..).filter(|(place, _)| place.is_some());
            indices.extend(used.map(|(_, index)| index).take(chunk.used));
        }
        indices
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

    #[test]
    fn a_peak_is_given_back_while_others_stay() {
        let mut table = Table::new();
        let indices: Vec<u32> = (0..100 * CHUNK).map(|value| table.insert(value)).collect();
        assert_eq!(table.present, 100);
        for &index in &indices[10..] {
            table.remove(index);
        }
        assert_eq!((table.len(), table.present), (10, 1));
        let index = table.insert(7);
        assert_eq!(table.get_mut(index), Some(&mut 7));
        assert_eq!(table.get_mut(indices[3]), Some(&mut 3));
    }
}
