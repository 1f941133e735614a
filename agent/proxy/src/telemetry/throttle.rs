//! Keeps the log readable when what others do would fill it.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// So often something is said
const MOST: u32 = 10;
/// in so much time.
const WINDOW: Duration = Duration::from_secs(10);

/// How often one kind of thing may be said.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    began: Cell<Option<Instant>>,
    said: Cell<u32>,
    kept_back: Cell<u64>,
}

impl Throttle {
    /// Whether to say it; then how many times it was not said since the last.
    pub(crate) fn may_say(&self, now: Instant) -> Option<u64> {
        let fresh = (self.began.get()).is_none_or(|began| now.duration_since(began) >= WINDOW);
        if fresh {
            self.began.set(Some(now));
            self.said.set(0);
        }
        if self.said.get() >= MOST {
            self.kept_back.set(self.kept_back.get() + 1);
            return None;
        }
        self.said.set(self.said.get() + 1);
        Some(self.kept_back.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_and_then_how_many_more_there_were() {
        let throttle = Throttle::default();
        let now = Instant::now();
        let said = (0..25).filter(|_| throttle.may_say(now).is_some());
        assert_eq!(said.count(), MOST as usize);
        let later = now + WINDOW;
        assert_eq!(throttle.may_say(later), Some(15));
        assert_eq!(throttle.may_say(later), Some(0));
    }
}
