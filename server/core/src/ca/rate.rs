//! So many leaves in a second, so that a rotation of all leaves room for everything else.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;

/// A bucket that fills with time, and holds one second's worth.
#[derive(Debug)]
pub(crate) struct Rate {
    clock: Arc<dyn Clock>,
    per_second: f64,
    /// What is in it, and since when.
    level: Mutex<(f64, Duration)>,
}

impl Rate {
    pub(crate) fn new(clock: Arc<dyn Clock>, per_second: u32) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self {
            level: Mutex::new((per_second, clock.monotonic())),
            clock,
            per_second,
        }
    }

    /// Takes one: after this time it may be used. `None` where that would be longer than `longest`;
    /// then nothing is taken.
    pub(crate) fn take(&self, longest: Duration) -> Option<Duration> {
        let now = self.clock.monotonic();
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = *level;
        let gained = now.saturating_sub(since).as_secs_f64() * self.per_second;
        let full = (left + gained).min(self.per_second);
        // Below zero it is owed to those who wait.
        let wait = Duration::from_secs_f64((1.0 - full).max(0.0) / self.per_second);
        let some = wait <= longest;
        *level = (if some { full - 1.0 } else { full }, now);
        some.then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn a_second_has_so_many_and_who_comes_later_waits_its_turn() {
        let clock = ManualClock::default();
        let rate = Rate::new(Arc::new(clock.clone()), 10);
        let longest = Duration::from_secs(1);
        let mut waits = (0..25).map(|_| rate.take(longest));
        for _ in 0..10 {
            assert_eq!(waits.next(), Some(Some(Duration::ZERO)));
        }
        let then: Vec<u128> = waits.by_ref().flatten().map(|it| it.as_millis()).collect();
        assert_eq!(then, [100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]);
        // Nobody has taken what was refused.
        clock.advance(Duration::from_secs(1));
        assert_eq!(rate.take(longest), Some(Duration::from_millis(100)));
        clock.advance(Duration::from_secs(60));
        let at_once = (0..20).filter(|_| rate.take(Duration::ZERO).is_some());
        assert_eq!(at_once.count(), 10);
    }
}
