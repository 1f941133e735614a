//! The time of day, passed in so that a test can set it.
//!
//! Waiting goes by tokio's clock, which a test pauses; this one is for what has a date:
//! certificates and tickets.

use std::fmt::Debug;
use std::time::SystemTime;

/// What time it is.
pub trait Clock: Debug + Send + Sync {
    /// Now.
    fn now(&self) -> SystemTime;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}
