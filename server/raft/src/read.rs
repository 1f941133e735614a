//! Proof of leadership, for reads that must see every acknowledged write. It costs
//! a round of heartbeats; reads that come while one is under way share the next.

use openraft::error::{CheckIsLeaderError, RaftError};
use tokio::sync::{mpsc, oneshot, watch};

use crate::batch::fatal_text;
use crate::config::Peer;
use crate::sm::stopped;
use crate::types::{LogId, Raft, Vote};

/// What one round of proof gave.
#[derive(Debug, Clone)]
pub(crate) enum Proof {
    /// It leads; all that was acknowledged before is at or below this index.
    Index(u64),
    NotLeader(Option<Peer>),
    NoQuorum,
    Stopped(String),
}

/// What a leader that was restarted has, and must have applied before it answers.
///
/// openraft lets it lead on in its term. What it had acknowledged is in its log,
/// which is on disk before it is sent; but how far that was committed is written
/// down later, and openraft takes the older number for what was acknowledged. So
/// in that term all of the log that it began with counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resumed {
    term: u64,
    last: u64,
}

impl Resumed {
    /// `None` when it did not lead when it ended.
    pub(crate) fn of(me: u64, vote: Option<Vote>, last: Option<LogId>) -> Option<Self> {
        let vote = vote.filter(|vote| vote.committed)?;
        let leader = vote.leader_id();
        (leader.voted_for() == Some(me)).then_some(Self {
            term: leader.term,
            last: last?.index,
        })
    }

    /// The index that a read in `term` must see, where openraft says `index`.
    fn index(resumed: Option<Self>, term: u64, index: u64) -> u64 {
        match resumed {
            Some(resumed) if resumed.term == term => index.max(resumed.last),
            _ => index,
        }
    }
}

/// Answers those that wait for proof.
pub(crate) struct Prover {
    pub(crate) raft: Raft,
    pub(crate) resumed: Option<Resumed>,
    pub(crate) queue: mpsc::Receiver<oneshot::Sender<Proof>>,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Prover {
    pub(crate) async fn run(mut self) {
        loop {
            let first = tokio::select! {
                first = self.queue.recv() => first,
                () = stopped(&mut self.stop) => return,
            };
            let Some(first) = first else { return };
            let mut waiting = vec![first];
            while let Ok(next) = self.queue.try_recv() {
                waiting.push(next);
            }
            let proof = self.prove().await;
            for reader in waiting {
                let _ = reader.send(proof.clone());
            }
        }
    }

    async fn prove(&self) -> Proof {
        match self.raft.get_read_log_id().await {
            Ok((read, _)) => {
                let index = read.map_or(0, |id| id.index);
                let term = self.raft.metrics().borrow().current_term;
                Proof::Index(Resumed::index(self.resumed, term, index))
            }
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to))) => Proof::NotLeader(
                to.leader_id
                    .and_then(|id| to.leader_node.map(|n| n.peer(id))),
            ),
            Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => Proof::NoQuorum,
            Err(RaftError::Fatal(e)) => Proof::Stopped(fatal_text(&e)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use openraft::{CommittedLeaderId, LogId as Id};

    use super::*;

    fn last(index: u64) -> Option<LogId> {
        Some(Id::new(CommittedLeaderId::new(3, 1), index))
    }

    #[test]
    fn only_who_led_resumes() {
        let resumed = Some(Resumed { term: 3, last: 40 });
        assert_eq!(
            Resumed::of(1, Some(Vote::new_committed(3, 1)), last(40)),
            resumed
        );
        for vote in [None, Some(Vote::new(3, 1)), Some(Vote::new_committed(3, 2))] {
            assert_eq!(Resumed::of(1, vote, last(40)), None, "{vote:?}");
        }
        assert_eq!(Resumed::of(1, Some(Vote::new_committed(3, 1)), None), None);
    }

    #[test]
    fn in_its_term_all_that_it_had_counts() {
        let resumed = Some(Resumed { term: 3, last: 40 });
        assert_eq!(Resumed::index(resumed, 3, 39), 40);
        assert_eq!(Resumed::index(resumed, 3, 41), 41);
        // In a later term it was elected, and has a first entry of its own.
        assert_eq!(Resumed::index(resumed, 4, 39), 39);
        assert_eq!(Resumed::index(None, 3, 39), 39);
    }
}
