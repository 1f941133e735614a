//! What a drain leaves behind.

use std::fmt;
use std::ops::AddAssign;

/// What was cut when a drain's time was over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Requests without their whole answer.
    pub requests: usize,
    /// Byte streams, tunnels and WebSockets.
    pub streams: usize,
}

impl Drained {
    /// Whether nothing was cut.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

impl AddAssign for Drained {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.streams += other.streams;
    }
}

impl fmt::Display for Drained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cut {} requests and {} streams",
            self.requests, self.streams
        )
    }
}
