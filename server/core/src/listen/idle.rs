//! Whether anything is asked on a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Counts what is being answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Activity(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    asked: AtomicUsize,
    changed: Notify,
}

/// One request; it counts until this is dropped.
#[derive(Debug)]
pub(super) struct Asked(Activity);

impl Activity {
    pub(super) fn begin(&self) -> Asked {
        self.0.asked.fetch_add(1, Ordering::AcqRel);
        self.0.changed.notify_one();
        Asked(self.clone())
    }

    /// Returns when nothing was asked for so long.
    pub(super) async fn idle(&self, limit: Duration) {
        loop {
            let changed = self.0.changed.notified();
            if self.0.asked.load(Ordering::Acquire) > 0 {
                changed.await;
            } else if tokio::time::timeout(limit, changed).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.0.asked.fetch_sub(1, Ordering::AcqRel);
        self.0.0.changed.notify_one();
    }
}
