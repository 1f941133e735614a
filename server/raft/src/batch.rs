//! Writes: many commands in one log entry.
//!
//! openraft waits for each append's fsync before it begins the next, so one command
//! an entry would mean one command an fsync. Here those that came while two entries
//! were under way go together into the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use openraft::error::{ClientWriteError, Fatal};
use openraft::raft::ClientWriteResult;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::config::{Peer, RaftConfig};
use crate::contact::Contacts;
use crate::error::WriteError;
use crate::sm::stopped;
use crate::types::{Batch, Flag, Metrics, Raft};

/// Entries under way at once.
const IN_FLIGHT: usize = 2;

/// What a write gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Index of the log entry that holds the command. Commands that came together
    /// share one.
    pub index: u64,
    /// What [`crate::Machine::apply`] answered.
    pub answer: Bytes,
}

pub(crate) struct PendingWrite {
    pub(crate) command: Bytes,
    pub(crate) answer: oneshot::Sender<Result<Written, WriteError>>,
    pub(crate) since: Instant,
    pub(crate) deadline: Instant,
    /// Whose it is to decide: the batcher's, once it goes on with it, or the
    /// writer's, once its time is over.
    pub(crate) claim: Claim,
}

/// Taken by the first who asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claim(Arc<AtomicBool>);

impl Claim {
    pub(crate) fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

impl PendingWrite {
    fn give(self, result: Result<Written, WriteError>) {
        // The writer may have given up.
        let _ = self.answer.send(result);
    }
}

/// Proposes what comes through a queue.
pub(crate) struct Batcher {
    pub(crate) config: Arc<RaftConfig>,
    pub(crate) raft: Raft,
    pub(crate) metrics: watch::Receiver<Metrics>,
    pub(crate) contacts: Arc<Contacts>,
    pub(crate) queue: mpsc::Receiver<PendingWrite>,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Batcher {
    pub(crate) async fn run(mut self) {
        let slots = Arc::new(Semaphore::new(IN_FLIGHT));
        let mut held: Option<PendingWrite> = None;
        loop {
            let first = match held.take() {
                Some(write) => write,
                None => tokio::select! {
                    write = self.queue.recv() => match write {
                        Some(write) => write,
                        None => return,
                    },
                    () = stopped(&mut self.stop) => return,
                },
            };
            let slot = tokio::select! {
                slot = Arc::clone(&slots).acquire_owned() => slot,
                () = stopped(&mut self.stop) => return,
            };
            let Ok(slot) = slot else { return };
            let batch;
            (batch, held) = self.gather(first);
            if !batch.is_empty() {
                self.propose(batch, slot).await;
            }
        }
    }

    /// All that waits and fits into one entry, and the first that no longer fits.
    fn gather(&mut self, first: PendingWrite) -> (Vec<PendingWrite>, Option<PendingWrite>) {
        let limits = &self.config.limits;
        let now = Instant::now();
        let mut batch: Vec<PendingWrite> = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(write) = next {
            if write.deadline <= now {
                let waited = now - write.since;
                write.give(Err(WriteError::TimedOut { waited }));
            } else if !batch.is_empty() && bytes + write.command.len() > limits.batch_bytes {
                return (batch, Some(write));
            } else if !write.answer.is_closed() && write.claim.take() {
                bytes += write.command.len();
                batch.push(write);
            }
            if batch.len() >= limits.batch_commands {
                break;
            }
            next = self.queue.try_recv().ok();
        }
        (batch, None)
    }

    async fn propose(&self, batch: Vec<PendingWrite>, slot: OwnedSemaphorePermit) {
        if let Some(e) = refusal(&self.config, &self.metrics.borrow(), &self.contacts) {
            batch.into_iter().for_each(|w| w.give(Err(e.clone())));
            return;
        }
        let entry = Batch {
            commands: batch.iter().map(|w| w.command.clone()).collect(),
            proposed: Flag::default(),
        };
        let proposed = entry.proposed.clone();
        match self.raft.client_write_ff(entry).await {
            Ok(result) => {
                tokio::spawn(async move {
                    answer(batch, result.await.ok(), &proposed);
                    drop(slot);
                });
            }
            Err(e) => {
                let e = WriteError::Stopped {
                    reason: fatal_text(&e),
                };
                batch.into_iter().for_each(|w| w.give(Err(e.clone())));
            }
        }
    }
}

/// Why this node cannot take a write at the moment.
pub(crate) fn refusal(
    config: &RaftConfig,
    metrics: &Metrics,
    contacts: &Contacts,
) -> Option<WriteError> {
    if let Err(e) = &metrics.running_state {
        return Some(WriteError::Stopped {
            reason: fatal_text(e),
        });
    }
    if !metrics.state.is_leader() {
        return Some(WriteError::NotLeader {
            leader: leader_of(metrics).filter(|peer| peer.id != config.me.id),
        });
    }
    quorum_lost(config, metrics, contacts).then_some(WriteError::NoQuorum)
}

/// Whether a leader has not heard from a majority for so long that there may be
/// another one. (openraft 0.9 does not make it step down.)
pub(crate) fn quorum_lost(config: &RaftConfig, metrics: &Metrics, contacts: &Contacts) -> bool {
    let age = contacts.age(metrics);
    metrics.state.is_leader() && age.is_some_and(|age| age > config.quorum_lost_after())
}

pub(crate) fn leader_of(metrics: &Metrics) -> Option<Peer> {
    let id = metrics.current_leader?;
    let node = metrics.membership_config.membership().get_node(&id)?;
    Some(node.peer(id))
}

pub(crate) fn fatal_text(e: &Fatal<u64>) -> String {
    match e {
        Fatal::StorageError(e) => e.to_string(),
        Fatal::Panicked => "its consensus task panicked".to_owned(),
        Fatal::Stopped => "it was shut down".to_owned(),
    }
}

fn answer(
    batch: Vec<PendingWrite>,
    result: Option<ClientWriteResult<crate::types::TypeConfig>>,
    proposed: &Flag,
) {
    let error = match result {
        Some(Ok(response)) => {
            let index = response.log_id.index;
            let mut answers = response.data.0.into_iter();
            for write in batch {
                write.give(match answers.next() {
                    Some(answer) => Ok(Written { index, answer }),
                    None => Err(WriteError::Unknown {
                        reason: "it was written, but has no answer".to_owned(),
                    }),
                });
            }
            return;
        }
        // The same error comes for a write that was refused at once, and for one
        // that was logged here and cut off by another leader. The second may stand
        // in a third node's log, and be committed from there.
        Some(Err(ClientWriteError::ForwardToLeader(to))) if !proposed.is_raised() => {
            WriteError::NotLeader {
                leader: to
                    .leader_id
                    .and_then(|id| to.leader_node.map(|n| n.peer(id))),
            }
        }
        Some(Err(_)) => WriteError::Unknown {
            reason: "this server lost its leadership before the write was committed".to_owned(),
        },
        None if !proposed.is_raised() => WriteError::Stopped {
            reason: "it stopped before the write was begun".to_owned(),
        },
        None => WriteError::Unknown {
            reason: "this server stopped before the write was committed".to_owned(),
        },
    };
    batch
        .into_iter()
        .for_each(|write| write.give(Err(error.clone())));
}
