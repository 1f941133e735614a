//! How long to wait before the next try.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
/// So short that a node has its servers again, and its sidecars their certificates, within ten
/// seconds of the servers' return, whatever they need to elect a leader.
const LONGEST: Duration = Duration::from_secs(3);

/// Twice as long after each failure, and jittered, so that a cluster that comes back is not met
/// by all its agents at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The time to wait now: between a half and the whole of the step.
    pub(crate) fn step(&mut self) -> Duration {
        let now = self.next;
        self.next = (now * 2).min(LONGEST);
        now.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// It worked: the next failure is a first one.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_a_limit() {
        let mut backoff = Backoff::default();
        let steps: Vec<_> = (0..12).map(|_| backoff.step()).collect();
        assert!(steps[0] <= FIRST && steps[0] >= FIRST / 2);
        assert!(steps[11] <= LONGEST && steps[11] >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.step() <= FIRST);
    }
}
