//! How who runs it hears of it, and ends it.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::error::ProvisionError;

/// Takes a line of progress: what is done, or waited for. No secret is ever in one.
pub type Progress<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// Who is told, and until when it may go on.
#[derive(Clone)]
pub struct Control<'a> {
    progress: Progress<'a>,
    cancel: CancellationToken,
    /// How long one thing is waited for.
    pub(crate) step: Duration,
    deadline: Instant,
}

impl<'a> Control<'a> {
    /// `total` is how long all of it may take, `step` how long one thing is waited for.
    pub fn new(
        progress: Progress<'a>,
        cancel: CancellationToken,
        total: Duration,
        step: Duration,
    ) -> Self {
        Self {
            progress,
            cancel,
            step,
            deadline: Instant::now() + total,
        }
    }

    pub(crate) fn say(&self, text: impl AsRef<str>) {
        (self.progress)(text.as_ref());
    }

    /// Whether to go on.
    pub(crate) fn check(&self) -> Result<(), ProvisionError> {
        match self.cancel.is_cancelled() {
            true => Err(ProvisionError::Cancelled),
            false => Ok(()),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Lets some time pass.
    pub(crate) async fn pause(&self, time: Duration) -> Result<(), ProvisionError> {
        tokio::select! {
            () = self.cancel.cancelled() => Err(ProvisionError::Cancelled),
            () = tokio::time::sleep(time) => Ok(()),
        }
    }
}
