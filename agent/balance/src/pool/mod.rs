//! The members of one group, and how one of them is chosen.

mod turns;
mod weights;

use rand::Rng;

use self::turns::Turns;
use self::weights::Weights;

/// Which endpoint of a group takes the next request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// In turn, each as often as its weight says and spread evenly; each set
    /// begins at another one, so that many proxies do not begin together.
    #[default]
    RoundRobin,
    /// At random, by weight.
    Random,
    /// Of two at random (by weight), the one with fewer requests in progress
    /// for its weight. It follows speed without any memory of it.
    LeastRequest,
}

/// What a choice must know of a member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) weight: u32,
    pub(crate) active: u32,
}

/// The members of one group.
#[derive(Clone, Debug)]
pub(crate) enum Pool {
    Turns(Turns),
    Random(Weights),
    Least(Weights),
}

impl Pool {
    pub(crate) fn new(policy: Policy) -> Self {
        match policy {
            Policy::RoundRobin => Self::Turns(Turns::new()),
            Policy::Random => Self::Random(Weights::new()),
            Policy::LeastRequest => Self::Least(Weights::new()),
        }
    }

    /// Makes room for the slots below `slots`.
    pub(crate) fn grow(&mut self, slots: usize) {
        match self {
            Self::Turns(turns) => turns.grow(slots),
            Self::Random(weights) | Self::Least(weights) => weights.grow(slots),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Turns(turns) => turns.len(),
            Self::Random(weights) | Self::Least(weights) => weights.len(),
        }
    }

    /// A member comes. `phase` is where in its turn it begins.
    pub(crate) fn enter(&mut self, slot: u32, weight: u32, phase: u32) {
        match self {
            Self::Turns(turns) => turns.enter(slot, weight, phase),
            Self::Random(weights) | Self::Least(weights) => weights.set(slot, weight),
        }
    }

    pub(crate) fn leave(&mut self, slot: u32) {
        match self {
            Self::Turns(turns) => turns.leave(slot),
            Self::Random(weights) | Self::Least(weights) => weights.set(slot, 0),
        }
    }

    /// Chooses one that is not excluded.
    pub(crate) fn choose(
        &mut self,
        rng: &mut impl Rng,
        exclude: impl Iterator<Item = u32> + Clone,
        load: impl Fn(u32) -> Load,
    ) -> Option<u32> {
        match self {
            Self::Turns(turns) => turns.choose(exclude, load),
            Self::Random(weights) => weights.without(exclude, |weights| weights.sample(rng)),
            Self::Least(weights) => weights.without(exclude, |weights| {
                let first = weights.sample(rng)?;
                let one_less = std::iter::once(first);
                let Some(second) = weights.without(one_less, |weights| weights.sample(rng)) else {
                    return Some(first);
                };
                // first.active / first.weight <= second.active / second.weight;
                // at a tie the first stays, so that idle ones go by weight.
                let (a, b) = (load(first), load(second));
                let first_is_less = u64::from(a.active) * u64::from(b.weight)
                    <= u64::from(b.active) * u64::from(a.weight);
                Some(if first_is_less { first } else { second })
            }),
        }
    }
}
