//! Choice by weight: a Fenwick tree of weights, in which a random number below
//! their sum finds its member, in O(log n), while weights come and go.

use rand::Rng;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    /// `tree[i]` (from 1) is the sum of the `i & -i` weights that end at `i`.
    /// Its length less one is a power of two.
    tree: Vec<u64>,
    weights: Vec<u32>,
    /// Members that the tree leaves out for the moment.
    hidden: Vec<bool>,
    members: usize,
}

impl Weights {
    pub(crate) fn new() -> Self {
        Self {
            tree: vec![0; 2],
            weights: vec![0],
            hidden: vec![false],
            members: 0,
        }
    }

    /// Makes room for the slots below `slots`.
    pub(crate) fn grow(&mut self, slots: usize) {
        if slots <= self.weights.len() {
            return;
        }
        let size = slots.next_power_of_two();
        let weights = std::mem::replace(&mut self.weights, vec![0; size]);
        self.tree = vec![0; size + 1];
        self.hidden = vec![false; size];
        self.members = 0;
        for (slot, weight) in weights.into_iter().enumerate() {
            self.set(slot as u32, weight);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.members
    }

    /// Gives a slot a weight; 0 takes it out.
    pub(crate) fn set(&mut self, slot: u32, weight: u32) {
        let Some(old) = self.weights.get_mut(slot as usize) else {
            return;
        };
        let before = std::mem::replace(old, weight);
        if before == weight {
            return;
        }
        self.members += usize::from(before == 0);
        self.members -= usize::from(weight == 0);
        self.change(slot, u64::from(before), u64::from(weight));
    }

    /// A member, each as likely as its weight says.
    pub(crate) fn sample(&self, rng: &mut impl Rng) -> Option<u32> {
        let size = self.weights.len();
        let total = self.tree[size];
        if total == 0 {
            return None;
        }
        let mut target = rng.random_range(0..total);
        // The last slot whose predecessors weigh no more than the target.
        let mut slot = 0;
        let mut step = size / 2;
        while step > 0 {
            let sum = self.tree[slot + step];
            if sum <= target {
                target -= sum;
                slot += step;
            }
            step /= 2;
        }
        Some(slot as u32)
    }

    /// Runs `choose` with some members taken out.
    pub(crate) fn without<T>(
        &mut self,
        exclude: impl Iterator<Item = u32> + Clone,
        choose: impl FnOnce(&mut Self) -> T,
    ) -> T {
        for slot in exclude.clone() {
            self.hide(slot);
        }
        let result = choose(self);
        for slot in exclude {
            self.show(slot);
        }
        result
    }

    fn hide(&mut self, slot: u32) {
        if let Some(hidden @ false) = self.hidden.get_mut(slot as usize) {
            *hidden = true;
            self.change(slot, u64::from(self.weights[slot as usize]), 0);
        }
    }

    fn show(&mut self, slot: u32) {
        if let Some(hidden @ true) = self.hidden.get_mut(slot as usize) {
            *hidden = false;
            self.change(slot, 0, u64::from(self.weights[slot as usize]));
        }
    }

    fn change(&mut self, slot: u32, before: u64, after: u64) {
        let mut at = slot as usize + 1;
        while let Some(sum) = self.tree.get_mut(at) {
            *sum = *sum + after - before;
            at += at & at.wrapping_neg();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    proptest! {
        /// Sums stay right through any changes, and only members are found.
        #[test]
        fn sums_and_members(
            changes in prop::collection::vec((0u32..40, 0u32..6), 0..100),
            excluded in prop::collection::vec(0u32..60, 0..6),
            seed: u64,
        ) {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut weights = Weights::new();
            let mut expected = [0; 40];
            for (slot, weight) in changes {
                weights.grow(slot as usize + 1);
                weights.set(slot, weight);
                expected[slot as usize] = weight;
            }
            let total = |weights: &Weights| *weights.tree.last().unwrap();
            let sum = expected.iter().map(|weight| u64::from(*weight)).sum::<u64>();
            prop_assert_eq!(total(&weights), sum);
            prop_assert_eq!(weights.len(), expected.iter().filter(|weight| **weight > 0).count());
            let found = weights.without(excluded.iter().copied(), |weights| weights.sample(&mut rng));
            let left = |slot: u32| expected[slot as usize] > 0 && !excluded.contains(&slot);
            match found {
                Some(slot) => prop_assert!(left(slot)),
                None => prop_assert!(!(0..40).any(left)),
            }
            prop_assert_eq!(total(&weights), sum, "all are back");
        }
    }

    #[test]
    fn each_weight_has_its_part() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut weights = Weights::new();
        weights.grow(5);
        for (slot, weight) in [(0, 1), (2, 2), (4, 7)] {
            weights.set(slot, weight);
        }
        let mut counts = [0; 5];
        for _ in 0..10_000 {
            counts[weights.sample(&mut rng).unwrap() as usize] += 1;
        }
        for (slot, part) in [(0, 1000), (1, 0), (2, 2000), (3, 0), (4, 7000i32)] {
            assert!((counts[slot] - part).abs() < 200, "{counts:?}");
        }
    }
}
