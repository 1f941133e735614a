//! What a transparent plane asks of whoever feeds it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Want;

/// How long an answer of the host's resolvers is waited for.
const ANSWER: Duration = Duration::from_secs(5);

/// What a transparent plane asks of whoever feeds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// What the application asked for: the whole set, whenever it changes. The
    /// next configs answer it.
    Wants(Vec<Want>),
    /// A question for the host's resolvers;
    /// [`DataPlane::dns_answer`](crate::DataPlane::dns_answer) takes the answer.
    Dns {
        /// What the answer names.
        id: u64,
        /// The message (RFC 1035, section 4).
        message: Vec<u8>,
    },
}

type Answer = Result<Vec<u8>, String>;

/// Questions that wait for others' answers. How many there are is bounded by
/// who asks them.
pub(crate) struct Questions {
    asks: Option<mpsc::UnboundedSender<Ask>>,
    next: AtomicU64,
    open: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
}

impl Questions {
    pub(crate) fn new(asks: Option<mpsc::UnboundedSender<Ask>>) -> Self {
        Self {
            asks,
            next: AtomicU64::new(1),
            open: Mutex::default(),
        }
    }

    /// Whether there is anybody to ask.
    pub(crate) fn has_anybody(&self) -> bool {
        self.asks.as_ref().is_some_and(|asks| !asks.is_closed())
    }

    /// Tells what is wanted.
    pub(crate) fn tell(&self, wants: Vec<Want>) {
        if let Some(asks) = &self.asks {
            let _ = asks.send(Ask::Wants(wants));
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// Why there is none, for the log.
    pub(crate) async fn ask(&self, message: Vec<u8>) -> Answer {
        let Some(asks) = &self.asks else {
            return Err("there is no agent to ask".to_owned());
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.open().insert(id, answer);
        let _closed_at_the_end = Closes(self, id);
        if asks.send(Ask::Dns { id, message }).is_err() {
            return Err("nobody is there to ask".to_owned());
        }
        match timeout(ANSWER, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err("it was given up".to_owned()),
            Err(_) => Err(format!("no answer within {} s", ANSWER.as_secs())),
        }
    }

    /// An answer came; one that nobody waits for any more is nothing.
    pub(crate) fn answer(&self, id: u64, answer: Answer) {
        let waits = self.open().remove(&id);
        if let Some(waits) = waits {
            let _ = waits.send(answer);
        }
    }

    /// No answer will come to what is open.
    pub(crate) fn fail(&self, reason: &str) {
        let open = std::mem::take(&mut *self.open());
        for waits in open.into_values() {
            let _ = waits.send(Err(reason.to_owned()));
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        // Nothing is left half done under this lock.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Closes<'a>(&'a Questions, u64);

impl Drop for Closes<'_> {
    fn drop(&mut self) {
        self.0.open().remove(&self.1);
    }
}
