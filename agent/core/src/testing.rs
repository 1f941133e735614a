//! What this crate's tests share.

#![allow(clippy::unwrap_used)]

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use crate::clock::Clock;

/// A clock that a test sets. It begins at the machine's time, since certificates are made by it.
#[derive(Debug)]
pub(crate) struct TestClock(Mutex<SystemTime>);

impl Default for TestClock {
    fn default() -> Self {
        Self(Mutex::new(SystemTime::now()))
    }
}

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}
