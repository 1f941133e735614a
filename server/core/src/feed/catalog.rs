//! An agent's changes of its node's part of the catalog, one after the other.
//!
//! They run beside the stream, since a write waits for a majority and the stream must go on
//! meanwhile. But they are its own: when it ends, or the agent begins another one anywhere, nothing
//! of it is taken any more, since the agent says everything again there.

use std::sync::Arc;

use mesh_model::{Instance, Node, NodeState};
use mesh_proto::fact::CheckChange;
use mesh_proto::servers::v1 as wire;
use mesh_state::{Command, Refusal, RowKey, State};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::core::Core;
use crate::error::WriteFailure;

/// Changes of one agent that wait.
const WAITING: usize = 64;

/// Where changes go in, and what became of them comes out.
pub(crate) struct Worker {
    changes: mpsc::Sender<wire::Catalog>,
    pub(crate) results: mpsc::Receiver<Answer>,
    stream: Stream,
    task: JoinHandle<()>,
}

/// What became of a change. [`Superseded`]: none of this stream's will be taken.
pub(crate) type Answer = Result<wire::CatalogResult, Superseded>;

/// Another stream of the node began, wherever it was, or a restore brought a state that knows another.
#[derive(Debug)]
pub(crate) struct Superseded;

/// As what the state knows an agent's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    epoch: String,
    /// The index at which it began.
    index: u64,
}

impl Worker {
    /// Begins; ends when it is dropped, at whatever it is.
    pub(crate) fn begin(core: Arc<Core>, node: Node, stream: Stream) -> Self {
        let (changes, mut waiting) = mpsc::channel::<wire::Catalog>(WAITING);
        let (done, results) = mpsc::channel(WAITING);
        let writer = Writer {
            core,
            node: node.id,
            stream: stream.index,
        };
        let task = tokio::spawn(async move {
            while let Some(change) = waiting.recv().await {
                let result = writer.run(change).await;
                if done.send(result).await.is_err() {
                    return;
                }
            }
        });
        Self {
            changes,
            results,
            stream,
            task,
        }
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

    /// Whether another stream speaks for the node by now, as far as this state knows. In another
    /// epoch nothing can be said before this one has spoken.
    pub(crate) fn is_superseded(&self, state: &State, node: &str) -> bool {
        let stream = &self.stream;
        let row = state.node(node);
        stream.epoch == state.version().epoch
            && row.is_some_and(|row| row.value.stream > stream.index)
    }
}

/// A write that waits for a majority must not outlive its stream for long: what it says may be
/// old by then. What is on its way already is refused when it lands, by its stream's number.
impl Drop for Worker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The worker's own side.
struct Writer {
    core: Arc<Core>,
    node: String,
    stream: u64,
}

impl Writer {
    async fn run(&self, change: wire::Catalog) -> Answer {
        let request = change.request;
        let failed = |error: String, retry: bool| {
            Ok(wire::CatalogResult {
                request,
                error,
                retry,
                ..wire::CatalogResult::default()
            })
        };
        let change = match read_change(&self.node, change.change) {
            Ok(change) => change,
            Err(error) => return failed(error, false),
        };
        if let Err(error) = fits(&self.core, &self.node, &change) {
            return failed(error, false);
        }
        let command = change.command(&self.node, self.stream);
        match self.core.write(command).await {
            Ok(applied) => Ok(wire::CatalogResult {
                request,
                version: Some(applied.version.into()),
                ..wire::CatalogResult::default()
            }),
            Err(WriteFailure::Refused(Refusal::Superseded { .. })) => Err(Superseded),
            // Removed while its agent lives. This change alone would bring back a part of what was
            // there; the stream ends by it, and the next begins with all.
            Err(WriteFailure::Refused(Refusal::NotFound {
                key: RowKey::Node(_),
            })) => failed(
                "the node was removed; its stream begins anew".to_owned(),
                true,
            ),
            Err(error) => failed(error.to_string(), error.may_pass()),
        }
    }
}

/// Says what the node is, and begins a stream of it; silent nodes are heard again by that.
pub(crate) async fn register(core: &Core, node: &Node) -> Result<Stream, WriteFailure> {
    let node = Node {
        state: NodeState::Alive,
        ..node.clone()
    };
    let applied = core.write(Command::RegisterNode { node }).await?;
    Ok(Stream {
        epoch: applied.version.epoch,
        index: applied.version.index,
    })
}

/// Whether the node stays within its number of instances.
fn fits(core: &Core, node: &str, change: &Change) -> Result<(), String> {
    let limit = core.options.limits.instances_per_agent;
    let state = core.store.state();
    let count = match change {
        Change::Sync(instances) => instances.len(),
        Change::Put(instance) if state.instance(node, &instance.id).is_none() => {
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

/// A change that was read, and is of its agent's own node.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Sync(Vec<Instance>),
    Put(Box<Instance>),
    Remove(String),
    Checks(Vec<mesh_state::CheckChange>),
}

impl Change {
    /// It counts for `node` only, whatever it says.
    pub(crate) fn command(self, node: &str, stream: u64) -> Command {
        let node = node.to_owned();
        match self {
            Self::Sync(instances) => Command::SyncInstances {
                node,
                stream,
                instances,
            },
            Self::Put(instance) => Command::PutInstance {
                node,
                stream,
                instance: *instance,
            },
            Self::Remove(id) => Command::RemoveInstance { node, stream, id },
            Self::Checks(changes) => Command::SetChecks {
                node,
                stream,
                changes,
            },
        }
    }
}

/// Reads a change that the agent of `node` sent.
pub(crate) fn read_change(
    node: &str,
    change: Option<wire::catalog::Change>,
) -> Result<Change, String> {
    let own = |instance: &Instance| match instance.node == node {
        true => Ok(()),
        false => Err(format!(
            "instance {}: is of node {}, and this agent speaks for node {node} only",
            instance.id, instance.node
        )),
    };
    match change {
        Some(wire::catalog::Change::Sync(bytes)) => {
            let instances: Vec<Instance> = read("sync", &bytes)?;
            instances.iter().try_for_each(own)?;
            Ok(Change::Sync(instances))
        }
        Some(wire::catalog::Change::Put(bytes)) => {
            let instance: Instance = read("put", &bytes)?;
            own(&instance)?;
            Ok(Change::Put(Box::new(instance)))
        }
        Some(wire::catalog::Change::Remove(id)) => Ok(Change::Remove(id)),
        Some(wire::catalog::Change::Checks(bytes)) => {
            let changes: Vec<CheckChange> = read("checks", &bytes)?;
            let changes = changes.into_iter().map(|change| mesh_state::CheckChange {
                instance: change.instance,
                id: change.id,
                check: Some(change.check),
            });
            Ok(Change::Checks(changes.collect()))
        }
        None => Err("a change of this kind is not known to this server; upgrade it".to_owned()),
    }
}

fn read<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;
    use crate::tests::agent::node;
    use crate::tests::harness::{soon, start, together};

    #[tokio::test]
    async fn a_write_that_waits_ends_with_its_stream() {
        let mut options = together(3);
        for one in &mut options {
            one.timing.request = Duration::from_secs(3600);
        }
        let mut servers = futures::future::join_all(options.into_iter().map(start)).await;
        let (last, _) = servers.pop().unwrap();
        let stream = register(&last.core, &node("n1")).await.unwrap();
        let mut worker = Worker::begin(last.core.clone(), node("n1"), stream);
        for (server, _) in servers {
            server.shutdown().await;
        }
        // There is no majority, and so no answer.
        let refused = worker.push(wire::Catalog {
            request: 1,
            change: Some(wire::catalog::Change::Sync(b"[]".to_vec())),
        });
        assert_eq!(refused, None);
        let answer = tokio::time::timeout(Duration::from_millis(300), worker.results.recv());
        assert!(answer.await.is_err(), "it was answered");
        let task = worker.task.abort_handle();
        drop(worker);
        soon(async {
            while !task.is_finished() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        last.shutdown().await;
    }
}
