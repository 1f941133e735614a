//! Weighted round robin: each member has a time when it is due, in a time that
//! only picks move, and the one that is due first is picked. After a pick it is
//! due again a stride later, and strides are inverse to weights. So picks of a
//! heavy member are spread between those of light ones, as with nginx's "smooth"
//! round robin, at O(log n) instead of O(n).

use super::Load;
use crate::heap::Heap;

/// The stride of weight 1. As 128 bits, time does not wrap.
const UNIT: u128 = 1 << 40;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    /// When each member is due; the number of the entry settles ties.
    due: Heap<(u128, u64)>,
    now: u128,
    entries: u64,
    /// Excluded members, while a choice goes on.
    aside: Vec<((u128, u64), u32)>,
}

impl Turns {
    pub(crate) fn new() -> Self {
        Self {
            due: Heap::new(),
            now: 0,
            entries: 0,
            aside: Vec::new(),
        }
    }

    pub(crate) fn grow(&mut self, slots: usize) {
        self.due.grow(slots);
        self.aside.reserve(slots.min(16));
    }

    pub(crate) fn len(&self) -> usize {
        self.due.len()
    }

    /// A member comes, and is due within one stride: the fraction `phase` of it.
    pub(crate) fn enter(&mut self, slot: u32, weight: u32, phase: u32) {
        let wait = (stride(weight) * u128::from(phase)) >> 32;
        self.set(slot, self.now + wait);
    }

    pub(crate) fn leave(&mut self, slot: u32) {
        self.due.remove(slot);
    }

    pub(crate) fn choose(
        &mut self,
        exclude: impl Iterator<Item = u32> + Clone,
        load: impl Fn(u32) -> Load,
    ) -> Option<u32> {
        // Who is excluded and due steps aside, and keeps its time.
        let chosen = loop {
            let Some((key, slot)) = self.due.first() else {
                break None;
            };
            if exclude.clone().any(|excluded| excluded == slot) {
                self.due.remove(slot);
                self.aside.push((key, slot));
            } else {
                // One that was aside may be due since long ago.
                self.now = self.now.max(key.0);
                self.set(slot, key.0 + stride(load(slot).weight));
                break Some(slot);
            }
        };
        while let Some((key, slot)) = self.aside.pop() {
            self.due.set(slot, key);
        }
        chosen
    }

    fn set(&mut self, slot: u32, due: u128) {
        self.entries += 1;
        self.due.set(slot, (due, self.entries));
    }
}

fn stride(weight: u32) -> u128 {
    UNIT / u128::from(weight.max(1))
}
