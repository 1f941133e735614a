//! What goes on around an operation: the log, warnings, interruption, time.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Diagnostic, Diagnostics};

/// The provider as a whole: whether it is to stop.
#[derive(Clone, Debug, Default)]
pub struct Stop(CancellationToken);

impl Stop {
    /// Everything that runs is to end soon.
    pub fn stop(&self) {
        self.0.cancel();
    }
}

/// One operation's surroundings.
#[derive(Debug)]
pub struct Context {
    stop: Stop,
    subject: String,
    deadline: Option<Instant>,
    said: Mutex<Diagnostics>,
}

impl Context {
    /// The surroundings of an operation on `subject` (a resource's type, for the
    /// log), which may take `time`.
    pub fn new(stop: &Stop, subject: &str, time: Option<Duration>) -> Self {
        Self {
            stop: stop.clone(),
            subject: subject.to_owned(),
            deadline: time.map(|time| Instant::now() + time),
            said: Mutex::default(),
        }
    }

    /// Says in Terraform's log what is being done. Nothing secret may be in it.
    pub fn progress(&self, text: impl AsRef<str>) {
        tracing::info!(target: "mesh_terraform", subject = self.subject, "{}", text.as_ref());
    }

    /// Says something to the user, whether the operation succeeds or not.
    pub fn warn(&self, one: Diagnostic) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.push(one);
    }

    /// When the user interrupts.
    pub async fn stopped(&self) {
        self.stop.0.cancelled().await;
    }

    /// Whether the user has interrupted.
    pub fn is_stopped(&self) -> bool {
        self.stop.0.is_cancelled()
    }

    /// How much time is left; `None`: there is no limit.
    pub fn remaining(&self) -> Option<Duration> {
        let deadline = self.deadline?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// Waits for something, unless the user interrupts.
    pub async fn until<T>(&self, wait: impl Future<Output = T>) -> Result<T, Diagnostic> {
        tokio::select! {
            biased;
            () = self.stopped() => Err(interrupted()),
            done = wait => Ok(done),
        }
    }

    /// Waits for a time, unless the user interrupts.
    pub async fn sleep(&self, time: Duration) -> Result<(), Diagnostic> {
        self.until(tokio::time::sleep(time)).await
    }

    /// What was said.
    pub(crate) fn into_said(self) -> Diagnostics {
        self.said
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn interrupted() -> Diagnostic {
    let detail = "What was done until then is in the state; the next apply goes on from there.";
    Diagnostic::error("Interrupted", detail)
}
