//! A snapshot in the place of everything, in an epoch of its own.
//!
//! It goes through the log, so that every server does it at the same point. A
//! log entry has a limit, so it comes in pieces, which are part of the state
//! until the last is there.
//!
//! The catalog is not what somebody wrote and may want back: it is the agents'
//! word of what runs. So what is known of a node now counts, and not what the
//! snapshot has of it: an instance that came since would have no endpoint until
//! its agent speaks again, and one that went would get requests. A node that only
//! the snapshot knows is silent until it is heard.
//!
//! What is revoked now stays revoked, and what the snapshot has as revoked is so again.

use std::sync::Arc;

use imbl::Vector;
use mesh_model::{Node, NodeState};
use serde::{Deserialize, Serialize};

use super::{AGENT, Draft, OnNode};
use crate::command::Restore;
use crate::outcome::{Applied, Refusal};
use crate::snapshot::SnapshotError;
use crate::state::{State, each_table_mut};
use crate::stored::Cluster;

/// Largest snapshot that can be restored, in bytes.
pub const MAX_RESTORE: usize = 512 << 20;

/// A restore that has begun.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Staging {
    pub(crate) id: String,
    pub(crate) pieces: Vector<Arc<str>>,
    pub(crate) length: usize,
}

/// A piece, as a snapshot has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Piece {
    pub(crate) restore: String,
    /// `None` in the line that says that it has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<Arc<str>>,
}

impl Staging {
    pub(crate) fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            pieces: Vector::new(),
            length: 0,
        }
    }

    pub(crate) fn push(&mut self, text: Arc<str>) -> Result<(), String> {
        self.length += text.len();
        if self.length > MAX_RESTORE {
            return Err(format!("has more than {MAX_RESTORE} bytes"));
        }
        self.pieces.push_back(text);
        Ok(())
    }
}

impl Draft {
    pub(super) fn restore(&mut self, step: &Restore) -> Result<Applied, Refusal> {
        match step {
            Restore::Begin { id } => self.state.staging = Some(Arc::new(Staging::new(id))),
            Restore::Piece { id, number, text } => self.stage(id, *number, text)?,
            Restore::Finish { id, pieces, epoch } => self.replace(id, *pieces, epoch)?,
            Restore::Abort { id } => {
                if self.staged(id).is_ok() {
                    self.state.staging = None;
                }
            }
        }
        Ok(Applied::default())
    }

    fn staged(&self, id: &str) -> Result<&Arc<Staging>, Refusal> {
        self.state
            .staging
            .as_ref()
            .filter(|staging| staging.id == id)
            .ok_or_else(|| refuse("it was given up, or another one began; begin again"))
    }

    fn stage(&mut self, id: &str, number: u64, text: &str) -> Result<(), Refusal> {
        let staging = self.staged(id)?;
        match number.cmp(&(staging.pieces.len() as u64)) {
            std::cmp::Ordering::Less => Ok(()),
            std::cmp::Ordering::Greater => Err(refuse(format!(
                "piece {number} came where {} was due",
                staging.pieces.len()
            ))),
            std::cmp::Ordering::Equal => {
                let mut next = Staging::clone(staging);
                next.push(text.into()).map_err(refuse)?;
                self.state.staging = Some(Arc::new(next));
                Ok(())
            }
        }
    }

    fn replace(&mut self, id: &str, pieces: u64, epoch: &str) -> Result<(), Refusal> {
        let staging = self.staged(id)?;
        if staging.pieces.len() as u64 != pieces {
            return Err(refuse(format!(
                "{} of {pieces} pieces are there",
                staging.pieces.len()
            )));
        }
        if epoch.is_empty() || epoch == self.state.epoch {
            return Err(refuse("it needs an epoch of its own"));
        }
        let mut text = String::with_capacity(staging.length);
        staging.pieces.iter().for_each(|piece| text.push_str(piece));
        // By the cluster's level, not this build's: all servers must say the same.
        let has = self.state.level();
        let mut state =
            State::read_snapshot_up_to(text.as_bytes(), has).map_err(|error| match error {
                SnapshotError::Level { needs, .. } => Refusal::Level { needs, has },
                error => refuse(error.to_string()),
            })?;
        drop(text);

        match state.cluster() {
            None => return Err(refuse("the snapshot is of no cluster")),
            Some(row) if row.value.level > has => {
                let needs = row.value.level;
                return Err(Refusal::Level { needs, has });
            }
            Some(_) => {}
        }
        let id = |state: &State| state.cluster().map(|row| row.value.cluster_id.clone());
        let same = id(&self.state) == id(&state);
        // Sidecars of this cluster go from one policy to the other like after any write. Those of
        // another one do not run here.
        if same && let Some(why) = state.tls().nothing_in_common(&self.state.tls()) {
            return Err(refuse(format!("the snapshot's mesh: {why}")));
        }
        self.index = self.index.max(state.index + 1);
        let index = self.index;
        each_table_mut!(state, table => table.restamp(index));
        state
            .cluster
            .amend(&(), |cluster: &mut Cluster| cluster.level = has);
        state.epoch = epoch.to_owned();
        state.now = state.now.max(self.state.now);
        state.staging = None;
        let before = std::mem::replace(&mut self.state, state);
        self.everything = true;
        self.silence();
        if same {
            self.keep_catalog(&before);
            self.keep_revocations(&before);
        }
        Ok(())
    }

    /// Nobody was heard in this epoch yet. An agent that is connected is heard at
    /// once; if the others counted as alive until their leases end, so many would
    /// end together that none would be believed.
    fn silence(&mut self) {
        let since = self.state.now / 1000;
        let nodes: Vec<Node> = self.state.nodes().map(|row| row.value.clone()).collect();
        for node in nodes {
            let state = NodeState::Silent { since };
            self.put(Node { state, ..node }, AGENT);
        }
    }

    /// The nodes of `before` and their instances, as they were there.
    fn keep_catalog(&mut self, before: &State) {
        for node in before.nodes() {
            for old in self.state.instances_on(&node.value.id) {
                let key = old.value.key_on_node();
                if before.instances.get(&key).is_none() {
                    self.delete_instance(&key);
                }
            }
            self.put(node.value.clone(), AGENT);
        }
        for instance in before.instances() {
            self.put_instance(instance.value.clone());
        }
    }
}

fn refuse(reason: impl Into<String>) -> Refusal {
    Refusal::Restore {
        reason: reason.into(),
    }
}
