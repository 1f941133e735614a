//! What is registered with this server itself: Nomad's servers, which register themselves with what
//! their `consul.address` names.
//!
//! Who keeps registrations and runs checks is given by the composition root ([`Local`]): it is what
//! an agent does, and this crate does not know agents. Here it becomes a part of the catalog, as of a
//! node of its own, `server:<id>`, which no agent's certificate can name. The node is written when
//! something is registered and goes with the last; a change of an instance or of a check's state is
//! written, and nothing else. It is heard as long as this server is: one that is gone leaves it
//! silent, as an agent does.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mesh_model::{Instance, Node, NodeState};
use mesh_state::{Command, Prefix, Refusal, RowKey, State, WatchKey};
use serde_json::Value;
use tokio::sync::watch;

use crate::core::Core;
use crate::error::WriteFailure;

/// Between two attempts to write.
const RETRY: Duration = Duration::from_secs(1);

/// Keeps what is registered with a server itself, and runs its checks.
#[async_trait]
pub trait Local: fmt::Debug + Send + Sync {
    /// As Consul's `GET /v1/agent/services` has it.
    fn services(&self, datacenter: &str) -> Value;
    /// As Consul's `GET /v1/agent/checks` has it, of a node of this name.
    fn checks(&self, node: &str) -> Value;
    /// What the catalog should have, as of a node of this id and address. What has a proxy is not
    /// taken: nothing here may be a part of the mesh.
    fn instances(&self, node: &str, address: &str) -> Vec<Instance>;
    /// Told whenever [`instances`](Self::instances) may have changed.
    fn changes(&self) -> watch::Receiver<u64>;
    /// Makes a change.
    ///
    /// # Errors
    /// An HTTP status, and what is wrong.
    async fn change(&self, change: LocalChange) -> Result<(), (u16, String)>;
}

/// A change, as Consul's agent API has it; bodies are its JSON.
#[derive(Clone, Debug, PartialEq)]
pub enum LocalChange {
    /// `PUT /v1/agent/service/register`
    Register {
        /// The body.
        body: Value,
        /// Checks that were added one by one go.
        replace_checks: bool,
    },
    /// `PUT /v1/agent/service/deregister/:id`
    Deregister {
        /// The instance's id.
        id: String,
    },
    /// `PUT /v1/agent/check/register`
    AddCheck {
        /// The body.
        body: Value,
    },
    /// `PUT /v1/agent/check/deregister/:id`
    RemoveCheck {
        /// The check's id.
        id: String,
    },
    /// `PUT /v1/agent/check/update/:id`
    UpdateCheck {
        /// The check's id.
        id: String,
        /// The body.
        body: Value,
    },
}

/// The node that a server's own instances are of. A colon is in no id of a certificate.
pub(crate) fn node_id(core: &Core) -> String {
    format!("server:{}", core.me.id)
}

/// Says that the node is heard, where there is one.
pub(crate) fn heartbeat(core: &Core) {
    let id = node_id(core);
    if core.local.is_some() && core.store.state().node(&id).is_some() {
        core.leases.heard(&id);
    }
}

/// Keeps the catalog as what is registered here, for as long as the server runs.
pub(crate) async fn keep(core: Arc<Core>) {
    let Some(local) = core.local.clone() else {
        return;
    };
    let mut changes = local.changes();
    let id = node_id(&core);
    let keys = [
        WatchKey::Key(RowKey::Node(id.clone())),
        WatchKey::Prefix(Prefix::InstancesOn(id)),
    ];
    let mut stream = None;
    loop {
        changes.mark_unchanged();
        let state = core.store.state();
        let touched = core.store.watch(&keys, &state.version());
        let written = tokio::select! {
            written = bring(&core, &*local, &state, &mut stream) => written,
            () = core.stop.cancelled() => return,
        };
        if let Err(error) = &written {
            tracing::debug!(%error, "what is registered here is not in the catalog yet");
        }
        tokio::select! {
            () = core.stop.cancelled() => return,
            told = changes.changed() => if told.is_err() { return },
            _ = touched => {}
            () = core.clock.sleep(RETRY), if written.is_err() => {}
        }
    }
}

/// The stream of the node by which this server speaks: its epoch, and the index at which it began.
type Stream = (String, u64);

async fn bring(
    core: &Core,
    local: &dyn Local,
    state: &State,
    stream: &mut Option<Stream>,
) -> Result<(), WriteFailure> {
    // Before it is in a cluster there is nothing to write to.
    if state.cluster().is_none() {
        return Ok(());
    }
    let me = me(core);
    let wanted: BTreeMap<String, Instance> = local
        .instances(&me.id, &me.address)
        .into_iter()
        .filter(|instance| instance.proxy.is_none() && instance.gateway.is_none())
        .map(|instance| (instance.id.clone(), instance))
        .collect();
    let known = state.node(&me.id).map(|row| &row.value);
    if wanted.is_empty() {
        *stream = None;
        if known.is_some() {
            core.leases.forget(&me.id);
            core.write(Command::RemoveNode { node: me.id }).await?;
        }
        return Ok(());
    }
    let epoch = state.version().epoch;
    let speaks = |known: &Node| {
        let ours = stream.as_ref() == Some(&(epoch, known.stream));
        let same = (&known.name, &known.address, &known.version);
        ours && same == (&me.name, &me.address, &me.version)
    };
    if !known.is_some_and(speaks) {
        let node = me.clone();
        let applied = core.write(Command::RegisterNode { node }).await?;
        *stream = Some((applied.version.epoch, applied.version.index));
    }
    let Some((_, stream_index)) = stream else {
        return Ok(());
    };
    let has = state.instances_on(&me.id);
    let has: BTreeMap<&String, &Instance> =
        has.iter().map(|row| (&row.value.id, &row.value)).collect();
    if has == wanted.iter().collect() {
        return Ok(());
    }
    let command = Command::SyncInstances {
        node: me.id,
        stream: *stream_index,
        instances: wanted.into_values().collect(),
    };
    match core.write(command).await {
        Ok(_) => Ok(()),
        Err(error) => {
            if let WriteFailure::Refused(Refusal::Superseded { .. } | Refusal::NotFound { .. }) =
                &error
            {
                *stream = None;
            }
            Err(error)
        }
    }
}

/// This server as a node.
fn me(core: &Core) -> Node {
    let address = core.me.addr.rsplit_once(':');
    let address = address.map_or(core.me.addr.as_str(), |(host, _)| host);
    Node {
        id: node_id(core),
        name: core.me.name.clone(),
        address: address.trim_matches(['[', ']']).to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        meta: BTreeMap::new(),
        state: NodeState::Alive,
        stream: 0,
    }
}
