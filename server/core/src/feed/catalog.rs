//! An agent's changes of its node's part of the catalog, one after the other.
//!
//! They run beside the stream, since a write waits for a majority and the stream must go on
//! meanwhile.

use std::sync::Arc;

use mesh_model::{Instance, Node, NodeState};
use mesh_proto::fact::CheckChange;
use mesh_proto::servers::v1 as wire;
use mesh_proto::servers::v1::catalog::Change;
use mesh_state::{Applied, Command, Refusal, RowKey};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::core::Core;
use crate::error::WriteFailure;

/// Changes of one agent that wait.
const WAITING: usize = 64;

/// Where changes go in, and what became of them comes out.
pub(crate) struct Worker {
    changes: mpsc::Sender<wire::Catalog>,
    pub(crate) results: mpsc::Receiver<wire::CatalogResult>,
}

impl Worker {
    /// Begins; ends when it is dropped.
    pub(crate) fn begin(core: Arc<Core>, node: Node) -> Self {
        let (changes, mut waiting) = mpsc::channel::<wire::Catalog>(WAITING);
        let (done, results) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            while let Some(change) = waiting.recv().await {
                let result = run(&core, &node, change).await;
                if done.send(result).await.is_err() {
                    return;
                }
            }
        });
        Self { changes, results }
    }

    /// Takes a change. When too many wait, says so instead.
    pub(crate) fn push(&self, change: wire::Catalog) -> Option<wire::CatalogResult> {
        let request = change.request;
        let refused = self.changes.try_send(change).is_err();
        refused.then(|| wire::CatalogResult {
            request,
            error: "too many changes of this node wait; try again".to_owned(),
            retry: true,
            ..wire::CatalogResult::default()
        })
    }
}

async fn run(core: &Core, node: &Node, change: wire::Catalog) -> wire::CatalogResult {
    let request = change.request;
    let failed = |error: String, retry: bool| wire::CatalogResult {
        request,
        error,
        retry,
        ..wire::CatalogResult::default()
    };
    let command = command(&node.id, change.change).and_then(|command| {
        let fits = fits(core, &node.id, &command);
        fits.map(|()| command)
    });
    let command = match command {
        Ok(command) => command,
        Err(error) => return failed(error, false),
    };
    match write(core, node, command).await {
        Ok(applied) => wire::CatalogResult {
            request,
            version: Some(applied.version.into()),
            ..wire::CatalogResult::default()
        },
        Err(error) => failed(error.to_string(), error.may_pass()),
    }
}

/// A node that was removed while its agent lived comes back with its next word.
async fn write(core: &Core, node: &Node, command: Command) -> Result<Applied, WriteFailure> {
    match core.write(command.clone()).await {
        Err(WriteFailure::Refused(Refusal::NotFound {
            key: RowKey::Node(_),
        })) => {
            register(core, node).await?;
            core.write(command).await
        }
        other => other,
    }
}

/// Says what the node is; silent nodes are heard again by that.
pub(crate) async fn register(core: &Core, node: &Node) -> Result<(), WriteFailure> {
    let node = Node {
        state: NodeState::Alive,
        ..node.clone()
    };
    let known = core.store.state();
    if known.node(&node.id).is_some_and(|row| row.value == node) {
        return Ok(());
    }
    core.write(Command::RegisterNode { node }).await.map(drop)
}

/// Whether the node stays within its number of instances.
fn fits(core: &Core, node: &str, command: &Command) -> Result<(), String> {
    let limit = core.options.limits.instances_per_agent;
    let state = core.store.state();
    let count = match command {
        Command::SyncInstances { instances, .. } => instances.len(),
        Command::PutInstance { instance, .. } if state.instance(node, &instance.id).is_none() => {
            state.instances_on(node).len() + 1
        }
        _ => return Ok(()),
    };
    match count <= limit {
        true => Ok(()),
        false => Err(format!(
            "the node has {count} instances; at most {limit} are taken"
        )),
    }
}

/// The command of a change. It counts for `node` only, whatever it says.
pub(crate) fn command(node: &str, change: Option<Change>) -> Result<Command, String> {
    let node = node.to_owned();
    let own = |instance: &Instance| match instance.node == node {
        true => Ok(()),
        false => Err(format!(
            "instance {}: is of node {}, and this agent speaks for node {node} only",
            instance.id, instance.node
        )),
    };
    match change {
        Some(Change::Sync(bytes)) => {
            let instances: Vec<Instance> = read("sync", &bytes)?;
            instances.iter().try_for_each(own)?;
            Ok(Command::SyncInstances { node, instances })
        }
        Some(Change::Put(bytes)) => {
            let instance: Instance = read("put", &bytes)?;
            own(&instance)?;
            Ok(Command::PutInstance { node, instance })
        }
        Some(Change::Remove(id)) => Ok(Command::RemoveInstance { node, id }),
        Some(Change::Checks(bytes)) => {
            let changes: Vec<CheckChange> = read("checks", &bytes)?;
            let changes = changes.into_iter().map(|change| mesh_state::CheckChange {
                instance: change.instance,
                id: change.id,
                check: Some(change.check),
            });
            Ok(Command::SetChecks {
                node,
                changes: changes.collect(),
            })
        }
        None => Err("a change of this kind is not known to this server; upgrade it".to_owned()),
    }
}

fn read<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("{what}: {error}"))
}
