//! When a leaf is asked for again.
//!
//! All of it runs by the monotonic clock, so that a clock that is set back renews no later. A clock
//! that is set forward may show that the leaf has less time than was thought (it was slow
//! before): therefore it is looked at now and then, and what is due by it is due.

use std::time::{Duration, SystemTime};

use mesh_tls::Leaf;
use tokio::time::Instant;

/// How often the clock is looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(15);
/// After the first try that brings nothing; then twice as long each time,
const FIRST: Duration = Duration::from_secs(2);
/// up to this, and to an eighth of what the leaf has left.
const LONGEST: Duration = Duration::from_secs(60);

/// When the leaf in use is replaced, and when that is late.
#[derive(Debug, Default)]
pub(crate) struct Renewal {
    due: Option<Instant>,
    tries: u32,
    held: Option<Held>,
}

/// Of the leaf in use.
#[derive(Debug)]
struct Held {
    ends: Instant,
    due: SystemTime,
    late: Instant,
    late_by_clock: SystemTime,
    told: bool,
}

impl Renewal {
    /// When to ask; `None`: there is no leaf, and nobody to ask yet.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether to ask an agent that has just come: one that could not help before may now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.tries > 0 || self.due.is_none_or(|due| due <= now)
    }

    /// A leaf is in use: it is replaced at a jittered half of what it has left, and should have
    /// been by two thirds. `jitter` is random in 0..1.
    pub(crate) fn taken(&mut self, leaf: &Leaf, now: Instant, clock: SystemTime, jitter: f64) {
        // From now, not from its beginning, which lies before it was signed.
        let since = |at: SystemTime| at.duration_since(clock).unwrap_or_default();
        let (half, life) = (since(leaf.renew_at(clock, jitter)), since(leaf.not_after));
        let late = life / 3 * 2;
        self.tries = 0;
        self.due = Some(now + half.max(FIRST.min(life / 8)));
        self.held = Some(Held {
            ends: now + life,
            due: clock + half,
            late: now + late,
            late_by_clock: clock + late,
            told: false,
        });
    }

    /// It was asked for one, or none came: when to ask again.
    pub(crate) fn asked(&mut self, now: Instant, jitter: f64) {
        let wait = FIRST.saturating_mul(1 << self.tries.min(10)).min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        let left = self.held.as_ref();
        let left = left.map(|held| held.ends.saturating_duration_since(now) / 8);
        let wait = match left {
            Some(left) if left < wait => left.max(FIRST / 2),
            _ => wait,
        };
        // Between a half and the whole of it, so that not all come at once.
        self.due = Some(now + wait.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0));
    }

    /// Asks at this moment at the latest.
    pub(crate) fn by(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Looks at the clock, which may have been set forward.
    pub(crate) fn look(&mut self, now: Instant, clock: SystemTime) {
        // What was tried goes on by its back-off.
        if self.tries == 0 && self.held.as_ref().is_some_and(|held| held.due <= clock) {
            self.by(now);
        }
    }

    /// When the last third of the leaf's life begins; `None`: there is no leaf, or it was told.
    pub(crate) fn late(&self) -> Option<Instant> {
        let held = self.held.as_ref().filter(|held| !held.told);
        held.map(|held| held.late)
    }

    /// Whether the last third of its life has begun without another one; once.
    pub(crate) fn is_late(&mut self, now: Instant, clock: SystemTime) -> bool {
        let Some(held) = &mut self.held else {
            return false;
        };
        let late = !held.told && (held.late <= now || held.late_by_clock <= clock);
        held.told |= late;
        late
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn leaf(begin: SystemTime, life: Duration) -> Leaf {
        let mut params = CertificateParams::default();
        params.not_before = (begin - Duration::from_secs(60)).into();
        params.not_after = (begin + life).into();
        let signed = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Leaf::parse("test", vec![signed.der().clone()]).unwrap()
    }

    /// A leaf of a day, taken now; whole seconds, as certificates have.
    fn taken() -> (Renewal, Instant, SystemTime) {
        let clock = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let (mut renewal, now) = (Renewal::default(), Instant::now());
        renewal.taken(&leaf(clock, 24 * HOUR), now, clock, 0.5);
        (renewal, now, clock)
    }

    #[test]
    fn half_of_its_life_and_late_at_two_thirds_once() {
        let (mut renewal, now, clock) = taken();
        assert_eq!(renewal.due(), Some(now + 12 * HOUR));
        assert!(!renewal.is_due(now + 11 * HOUR) && renewal.is_due(now + 12 * HOUR));
        assert!(!renewal.is_late(now + 15 * HOUR, clock + 15 * HOUR));
        assert_eq!(renewal.late(), Some(now + 16 * HOUR));
        assert!(renewal.is_late(now + 16 * HOUR, clock + 16 * HOUR));
        assert!(!renewal.is_late(now + 17 * HOUR, clock + 17 * HOUR));
        assert_eq!(renewal.late(), None, "nobody waits for what was told");
        // The next one has its own.
        let then = (now + 17 * HOUR, clock + 17 * HOUR);
        renewal.taken(&leaf(then.1, HOUR), then.0, then.1, 0.0);
        assert_eq!(renewal.due(), Some(then.0 + HOUR.mul_f64(0.45)));
        assert!(!renewal.is_late(then.0, then.1));
        assert!(renewal.is_late(then.0 + HOUR, then.1 + HOUR));
    }

    #[test]
    fn tries_are_farther_and_farther_apart() {
        let (mut renewal, now, clock) = taken();
        let mut at = now + 12 * HOUR;
        let mut waits = Vec::new();
        for _ in 0..8 {
            renewal.asked(at, 1.0);
            waits.push((renewal.due().unwrap() - at).as_secs());
            at = renewal.due().unwrap();
            // The clock says the same all the while, and does not make it hurry.
            renewal.look(at, clock + 20 * HOUR);
            assert_eq!(renewal.due(), Some(at));
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 60]);
        renewal.asked(at, 0.0);
        assert_eq!(renewal.due().unwrap() - at, LONGEST / 2);
        // Near the end often, and after it still.
        renewal.asked(now + 24 * HOUR - Duration::from_secs(80), 1.0);
        let left = renewal.due().unwrap() - (now + 24 * HOUR - Duration::from_secs(80));
        assert_eq!(left, Duration::from_secs(10));
        renewal.asked(now + 30 * HOUR, 1.0);
        assert_eq!(
            renewal.due().unwrap() - (now + 30 * HOUR),
            Duration::from_secs(1)
        );
    }

    #[test]
    fn a_clock_that_jumps() {
        // Back, for good: half of its life is what passes, not what the clock says.
        let (mut renewal, now, clock) = taken();
        renewal.look(now + HOUR, clock - 48 * HOUR);
        assert_eq!(renewal.due(), Some(now + 12 * HOUR));
        assert!(renewal.is_late(now + 16 * HOUR, clock - 32 * HOUR));
        // Forward: what is due by the clock is due at once, and told.
        let (mut renewal, now, clock) = taken();
        renewal.look(now + HOUR, clock + 11 * HOUR);
        assert_eq!(renewal.due(), Some(now + 12 * HOUR), "not by half yet");
        renewal.look(now + HOUR, clock + 20 * HOUR);
        assert_eq!(renewal.due(), Some(now + HOUR));
        assert!(renewal.is_late(now + HOUR, clock + 20 * HOUR));
        // Forward and back again before it was asked for: one leaf too many, and no more.
        renewal.asked(now + HOUR, 1.0);
        renewal.look(now + HOUR, clock + HOUR);
        assert!(renewal.due().unwrap() > now + HOUR);
    }

    #[test]
    fn a_leaf_of_seconds_is_not_asked_for_without_a_pause() {
        let (mut renewal, now, clock) = taken();
        let short = leaf(clock, Duration::from_secs(4));
        renewal.taken(&short, now, clock, 0.5);
        assert_eq!(renewal.due(), Some(now + Duration::from_secs(2)));
        // One that is over when it comes.
        renewal.taken(&short, now, clock + HOUR, 0.5);
        assert_eq!(renewal.due(), Some(now));
        renewal.asked(now, 1.0);
        assert_eq!(renewal.due(), Some(now + FIRST / 2));
    }
}
