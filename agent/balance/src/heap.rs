//! A binary heap that knows where each member stands, so that any member can
//! leave or move in O(log n). Members are slot numbers.

/// The smallest key comes first. Keys must differ, or the order is arbitrary
/// (but always the same).
#[derive(Clone, Debug)]
pub(crate) struct Heap<K> {
    entries: Vec<(K, u32)>,
    /// For each slot, one more than its place in `entries`; 0 is none.
    places: Vec<u32>,
}

impl<K: Ord + Copy> Heap<K> {
    pub(crate) fn new() -> Self {
        Self {
            entries: Vec::new(),
            places: Vec::new(),
        }
    }

    /// Makes room for the slots below `slots`, so that nothing later allocates.
    pub(crate) fn grow(&mut self, slots: usize) {
        if slots > self.places.len() {
            self.places.resize(slots, 0);
            self.entries.reserve(slots - self.entries.len());
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn first(&self) -> Option<(K, u32)> {
        self.entries.first().copied()
    }

    /// Puts a slot in, or moves it to another key.
    pub(crate) fn set(&mut self, slot: u32, key: K) {
        match self.place(slot) {
            Some(place) => {
                self.entries[place].0 = key;
                self.restore(place);
            }
            None => {
                self.entries.push((key, slot));
                let place = self.entries.len() - 1;
                self.note(place);
                self.restore(place);
            }
        }
    }

    pub(crate) fn remove(&mut self, slot: u32) {
        if let Some(place) = self.place(slot) {
            self.entries.swap_remove(place);
            self.places[slot as usize] = 0;
            if place < self.entries.len() {
                self.note(place);
                self.restore(place);
            }
        }
    }

    fn place(&self, slot: u32) -> Option<usize> {
        match self.places.get(slot as usize) {
            Some(&place) if place > 0 => Some(place as usize - 1),
            _ => None,
        }
    }

    fn note(&mut self, place: usize) {
        let slot = self.entries[place].1;
        self.places[slot as usize] = place as u32 + 1;
    }

    /// Moves an entry to where its key belongs.
    fn restore(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.entries[parent].0 <= self.entries[place].0 {
                break;
            }
            self.swap(place, parent);
            place = parent;
        }
        loop {
            let left = 2 * place + 1;
            let Some(&(left_key, _)) = self.entries.get(left) else {
                return;
            };
            let child = match self.entries.get(left + 1) {
                Some(&(right_key, _)) if right_key < left_key => left + 1,
                _ => left,
            };
            if self.entries[place].0 <= self.entries[child].0 {
                return;
            }
            self.swap(place, child);
            place = child;
        }
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.entries.swap(one, other);
        self.note(one);
        self.note(other);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// It agrees with an ordered map after any changes.
        #[test]
        fn like_a_map(changes in prop::collection::vec((0u32..20, prop::option::of(0u32..1000)), 0..200)) {
            let mut heap = Heap::new();
            heap.grow(20);
            let mut map = BTreeMap::new();
            for (slot, key) in changes {
                match key {
                    Some(key) => {
                        heap.set(slot, (key, slot));
                        map.insert(slot, key);
                    }
                    None => {
                        heap.remove(slot);
                        map.remove(&slot);
                    }
                }
                let least = map.iter().map(|(slot, key)| ((*key, *slot), *slot)).min();
                prop_assert_eq!(heap.first(), least);
                prop_assert_eq!(heap.len(), map.len());
            }
        }
    }
}
