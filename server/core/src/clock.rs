//! Time, passed in: leases, ages and the times of commands come from here, so that a test turns
//! the clock instead of waiting.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::sync::watch;

/// A clock.
#[async_trait]
pub trait Clock: Debug + Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn unix_millis(&self) -> u64;

    /// Time since some fixed moment; never runs back.
    fn monotonic(&self) -> Duration;

    /// Waits.
    async fn sleep(&self, duration: Duration);
}

/// The system's clock.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn unix_millis(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as u64)
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A clock that stands still until it is turned. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<watch::Sender<Duration>>);

impl Default for ManualClock {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Duration::ZERO)))
    }
}

impl ManualClock {
    /// What it shows at first, in milliseconds since the Unix epoch.
    const BEGIN: u64 = 1_800_000_000_000;

    /// Turns it on by so much, and wakes who slept until then.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|now| *now += by);
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn unix_millis(&self) -> u64 {
        Self::BEGIN + self.monotonic().as_millis() as u64
    }

    fn monotonic(&self) -> Duration {
        *self.0.borrow()
    }

    async fn sleep(&self, duration: Duration) {
        let mut now = self.0.subscribe();
        let until = *now.borrow() + duration;
        // The sender is in `self`, so this ends only by the time.
        let _ = now.wait_for(|now| *now >= until).await;
    }
}

/// The clock as the CA wants it.
pub(crate) fn for_ca(clock: &Arc<dyn Clock>) -> mesh_ca::Clock {
    let clock = clock.clone();
    Arc::new(move || UNIX_EPOCH + Duration::from_millis(clock.unix_millis()))
}
