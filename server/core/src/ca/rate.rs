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

    /// Whether there is one more; it is taken then.
    pub(crate) fn take(&self) -> bool {
        let now = self.clock.monotonic();
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = *level;
        let gained = now.saturating_sub(since).as_secs_f64() * self.per_second;
        let full = (left + gained).min(self.per_second);
        let some = full >= 1.0;
        *level = (if some { full - 1.0 } else { full }, now);
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn a_second_has_so_many_and_no_more() {
        let clock = ManualClock::default();
        let rate = Rate::new(Arc::new(clock.clone()), 10);
        let taken = |tries: usize| (0..tries).filter(|_| rate.take()).count();
        assert_eq!(taken(20), 10);
        clock.advance(Duration::from_millis(500));
        assert_eq!(taken(20), 5);
        clock.advance(Duration::from_secs(60));
        assert_eq!(taken(20), 10);
    }
}
