//! Takes a snapshot from the leader, piece by piece, into a file. Nothing of it
//! counts before the whole was verified.
//!
//! A caller that gives up takes its request away, at any point. So a piece is
//! written at its own offset, and the whole is verified and installed by a task of
//! its own: a large one would else never get there within one request's time.

use std::sync::Arc;

use openraft::Snapshot;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::sync::{Mutex, watch};

use crate::codec;
use crate::config::Limits;
use crate::pb;
use crate::snapshot::{Incoming, SnapshotHandle, SnapshotStore, verify};
use crate::transport::Refusal;
use crate::types::{Raft, Vote};

/// What comes in; one snapshot at a time.
pub(crate) struct Receiver {
    raft: Raft,
    store: Arc<SnapshotStore>,
    limits: Limits,
    state: Mutex<State>,
}

enum State {
    Idle,
    Receiving(Session),
    /// All pieces of it are here.
    Whole(Which, watch::Receiver<Outcome>),
}

type Outcome = Option<Result<Vote, Refusal>>;

/// One sending of one snapshot.
#[derive(Debug, Clone, PartialEq)]
struct Which {
    vote: Vote,
    id: String,
    total: u64,
}

struct Session {
    which: Which,
    next: u64,
    file: tokio::fs::File,
    incoming: Incoming,
}

impl Receiver {
    pub(crate) fn new(raft: Raft, store: Arc<SnapshotStore>, limits: Limits) -> Self {
        Self {
            raft,
            store,
            limits,
            state: Mutex::new(State::Idle),
        }
    }

    pub(crate) async fn piece(
        &self,
        piece: pb::SnapshotRequest,
    ) -> Result<pb::SnapshotReply, Refusal> {
        let which = Which {
            vote: codec::vote_in(piece.vote).map_err(refuse)?,
            id: piece.id,
            total: piece.total,
        };
        let mine = self.raft.with_raft_state(|state| *state.vote_ref()).await;
        let mine = mine.map_err(refuse)?;
        if mine > which.vote {
            return Ok(reply(&mine, 0, false));
        }
        let limit = self.limits.snapshot_bytes;
        if which.total > limit {
            let bytes = which.total;
            return Err(refuse(format!(
                "it has {bytes} bytes; at most {limit} are taken"
            )));
        }

        let mut state = self.state.lock().await;
        if let State::Whole(known, outcome) = &*state {
            let failed = matches!(&*outcome.borrow(), Some(Err(_)));
            if *known == which && !failed {
                let outcome = outcome.clone();
                drop(state);
                return whole(which, outcome).await;
            }
        }
        if piece.offset == 0 {
            let incoming = self.store.incoming().map_err(refuse)?;
            let file = incoming.open().map_err(refuse)?.into();
            *state = State::Receiving(Session {
                which: which.clone(),
                next: 0,
                file,
                incoming,
            });
        }
        let session = match &mut *state {
            State::Receiving(session) if session.which == which => session,
            _ => return Ok(reply(&which.vote, 0, false)),
        };
        if piece.offset != session.next {
            return Ok(reply(&which.vote, session.next, false));
        }
        if let Err(e) = session.take(&piece.data).await {
            *state = State::Idle;
            return Err(e);
        }
        let next = session.next;
        if next < which.total {
            return Ok(reply(&which.vote, next, false));
        }
        let (sender, outcome) = watch::channel(None);
        let before = std::mem::replace(&mut *state, State::Whole(which.clone(), outcome.clone()));
        drop(state);
        if let State::Receiving(session) = before {
            let raft = self.raft.clone();
            tokio::spawn(async move { sender.send_replace(Some(install(&raft, session).await)) });
        }
        whole(which, outcome).await
    }
}

impl Session {
    async fn take(&mut self, data: &[u8]) -> Result<(), Refusal> {
        let next = self.next + data.len() as u64;
        if next > self.which.total || (data.is_empty() && next < self.which.total) {
            return Err(refuse("its pieces do not fit its length"));
        }
        let written = async {
            self.file.seek(std::io::SeekFrom::Start(self.next)).await?;
            self.file.write_all(data).await?;
            self.file.flush().await
        };
        let path = self.incoming.path();
        let failed = |e| refuse(format!("{}: {e}", path.display()));
        written.await.map_err(failed)?;
        self.next = next;
        Ok(())
    }
}

/// The answer to one that sent the last piece.
async fn whole(
    which: Which,
    mut outcome: watch::Receiver<Outcome>,
) -> Result<pb::SnapshotReply, Refusal> {
    let done = outcome.wait_for(Option::is_some).await;
    match done.ok().and_then(|outcome| outcome.clone()) {
        Some(Ok(vote)) => Ok(reply(&vote, which.total, true)),
        Some(Err(e)) => Err(e),
        None => Err(refuse("this server stops")),
    }
}

async fn install(raft: &Raft, session: Session) -> Result<Vote, Refusal> {
    session.file.sync_all().await.map_err(refuse)?;
    let path = session.incoming.path().to_owned();
    let file = session.incoming.open().map_err(refuse)?;
    let check = tokio::task::spawn_blocking(move || verify(&path, file).map(|(h, _)| h));
    let header = check.await.map_err(refuse)?.map_err(refuse)?;
    let snapshot = Snapshot {
        meta: header.meta(),
        snapshot: Box::new(SnapshotHandle::received(session.incoming, session.file)),
    };
    let reply = raft
        .install_full_snapshot(session.which.vote, snapshot)
        .await;
    reply.map(|r| r.vote).map_err(refuse)
}

fn reply(vote: &Vote, next: u64, installed: bool) -> pb::SnapshotReply {
    pb::SnapshotReply {
        vote: Some(codec::vote_out(vote)),
        next,
        installed,
    }
}

fn refuse(e: impl std::fmt::Display) -> Refusal {
    Refusal(format!("snapshot: {e}"))
}
