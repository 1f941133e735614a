//! Takes a snapshot from the leader, piece by piece, into a file. Nothing of it
//! counts before the whole was verified.

use openraft::Snapshot;
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;

use crate::codec;
use crate::config::Limits;
use crate::pb;
use crate::snapshot::{Incoming, SnapshotHandle, SnapshotStore, verify};
use crate::transport::Refusal;
use crate::types::{Raft, Vote};

/// The snapshot that is coming in; one at a time.
#[derive(Default)]
pub(crate) struct Receiver {
    session: Mutex<Option<Session>>,
}

struct Session {
    vote: Vote,
    id: String,
    total: u64,
    next: u64,
    file: tokio::fs::File,
    incoming: Incoming,
}

impl Receiver {
    pub(crate) async fn piece(
        &self,
        raft: &Raft,
        store: &SnapshotStore,
        limits: &Limits,
        piece: pb::SnapshotRequest,
    ) -> Result<pb::SnapshotReply, Refusal> {
        let refuse = |why: &dyn std::fmt::Display| Refusal(format!("snapshot: {why}"));
        let vote = codec::vote_in(piece.vote).map_err(|e| refuse(&e))?;
        let mine = raft.with_raft_state(|state| *state.vote_ref()).await;
        let mine = mine.map_err(|e| refuse(&e))?;
        let reply = |vote: &Vote, next: u64, installed: bool| pb::SnapshotReply {
            vote: Some(codec::vote_out(vote)),
            next,
            installed,
        };
        if mine > vote {
            return Ok(reply(&mine, 0, false));
        }
        if piece.total > limits.snapshot_bytes {
            let limit = limits.snapshot_bytes;
            return Err(refuse(&format!(
                "it has {} bytes; at most {limit} are taken",
                piece.total
            )));
        }
        if piece.data.len() > limits.message_bytes() {
            return Err(refuse(&"the piece is too large"));
        }

        let mut session = self.session.lock().await;
        if piece.offset == 0 {
            let incoming = store.incoming().map_err(|e| refuse(&e))?;
            let file = incoming.open().map_err(|e| refuse(&e))?.into();
            *session = Some(Session {
                vote,
                id: piece.id.clone(),
                total: piece.total,
                next: 0,
                file,
                incoming,
            });
        }
        let ours = |s: &&mut Session| s.vote == vote && s.id == piece.id && s.total == piece.total;
        let Some(current) = session.as_mut().filter(ours) else {
            return Ok(reply(&vote, 0, false));
        };
        if piece.offset != current.next {
            return Ok(reply(&vote, current.next, false));
        }
        let next = current.next + piece.data.len() as u64;
        if next > current.total || (piece.data.is_empty() && next < current.total) {
            *session = None;
            return Err(refuse(&"its pieces do not fit its length"));
        }
        let written = async {
            current.file.write_all(&piece.data).await?;
            current.file.flush().await
        };
        if let Err(e) = written.await {
            let e = refuse(&format!("{}: {e}", current.incoming.path().display()));
            *session = None;
            return Err(e);
        }
        current.next = next;
        if next < current.total {
            return Ok(reply(&vote, next, false));
        }
        let Some(done) = session.take() else {
            return Err(refuse(&"it is gone"));
        };
        let theirs = install(raft, done).await?;
        Ok(reply(&theirs, next, true))
    }
}

async fn install(raft: &Raft, session: Session) -> Result<Vote, Refusal> {
    let failed = |e: &dyn std::fmt::Display| Refusal(format!("snapshot: {e}"));
    session.file.sync_all().await.map_err(|e| failed(&e))?;
    let path = session.incoming.path().to_owned();
    let file = session.incoming.open().map_err(|e| failed(&e))?;
    let check = tokio::task::spawn_blocking(move || verify(&path, file).map(|(h, _)| h));
    let header = check
        .await
        .map_err(|e| failed(&e))?
        .map_err(|e| failed(&e))?;
    let snapshot = Snapshot {
        meta: header.meta(),
        snapshot: Box::new(SnapshotHandle::received(session.incoming, session.file)),
    };
    let reply = raft.install_full_snapshot(session.vote, snapshot).await;
    reply.map(|r| r.vote).map_err(|e| failed(&e))
}
