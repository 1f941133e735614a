//! What a stream does to the connection that carries it.
//!
//! Streams of a connection share its order: a small message waits behind what a
//! bulk one has written, and behind each packet of it that is lost. So a stream
//! that is bulk is counted on its connection, and what is not bulk begins
//! elsewhere.

use std::cell::Cell;
use std::rc::Rc;

use tokio::time::{Duration, Instant};

/// A body that is known to be so long is bulk from its beginning.
pub(crate) const BULK: u64 = 1024 * 1024;
/// Of another it shows: so many bytes within the time, that is 1 MiB/s. What
/// passes as much in hours is no bulk.
const PIECE: u32 = 256 * 1024;
const PIECE_TIME: Duration = Duration::from_millis(250);

/// How many bulk streams a connection carries.
pub(crate) type BulkCount = Rc<Cell<usize>>;

/// One stream on a connection; it counts there until it is dropped.
pub(crate) struct Carried {
    bulk_count: BulkCount,
    is_bulk: Cell<bool>,
    /// Bytes since then.
    passed: Cell<u32>,
    since: Cell<Instant>,
}

impl Carried {
    pub(crate) fn new(bulk_count: &BulkCount, is_bulk: bool, now: Instant) -> Self {
        let new = Self {
            bulk_count: bulk_count.clone(),
            is_bulk: Cell::new(false),
            passed: Cell::new(0),
            since: Cell::new(now),
        };
        new.set_bulk(is_bulk);
        new
    }

    /// Bytes went by, in either direction. The clock is looked at once a piece.
    pub(crate) fn passed(&self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let passed = self.passed.get().saturating_add(bytes);
        self.passed.set(passed);
        if passed >= PIECE {
            let now = Instant::now();
            let took = now.saturating_duration_since(self.since.get());
            self.set_bulk(took <= PIECE_TIME * (passed / PIECE));
            self.passed.set(0);
            self.since.set(now);
        }
    }

    /// Says that much will pass, or no more.
    pub(crate) fn set_bulk(&self, is: bool) {
        let was = self.is_bulk.replace(is);
        let count = self.bulk_count.get();
        self.bulk_count.set(match (was, is) {
            (false, true) => count + 1,
            (true, false) => count.saturating_sub(1),
            _ => count,
        });
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.set_bulk(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bulk_is_what_is_fast() {
        let count = BulkCount::default();
        let stream = Carried::new(&count, false, Instant::now());
        for _ in 0..100 {
            tokio::time::advance(Duration::from_millis(100)).await;
            stream.passed(20_000); // 200 kB/s
        }
        assert_eq!(count.get(), 0);
        let other = Carried::new(&count, false, Instant::now());
        other.passed(1024 * 1024);
        assert_eq!(count.get(), 1);
        other.set_bulk(true);
        assert_eq!(count.get(), 1);
        // It was, and is slow again.
        tokio::time::advance(Duration::from_secs(10)).await;
        other.passed(256 * 1024);
        assert_eq!(count.get(), 0);
        other.set_bulk(true);
        drop(other);
        assert_eq!(count.get(), 0);
    }
}
