//! Places that are taken and given back in any order.

/// See the module.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    places: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slots<T> {
    /// Takes a place; its number gives it back.
    pub(crate) fn insert(&mut self, value: T) -> usize {
        if let Some(at) = self.free.pop()
            && let Some(place) = self.places.get_mut(at)
        {
            *place = Some(value);
            return at;
        }
        self.places.push(Some(value));
        self.places.len() - 1
    }

    /// What is at a place that was taken.
    pub(crate) fn at(&self, at: usize) -> Option<&T> {
        self.places.get(at)?.as_ref()
    }

    pub(crate) fn remove(&mut self, at: usize) {
        if self
            .places
            .get_mut(at)
            .is_some_and(|place| place.take().is_some())
        {
            self.free.push(at);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again() {
        let mut slots = Slots::default();
        let (a, b) = (slots.insert('a'), slots.insert('b'));
        slots.remove(a);
        slots.remove(a);
        assert_eq!(slots.insert('c'), a);
        assert_eq!(slots.insert('d'), b + 1);
        assert_eq!((slots.at(a), slots.at(9)), (Some(&'c'), None));
        assert_eq!(slots.iter().collect::<String>(), "cbd");
    }
}
