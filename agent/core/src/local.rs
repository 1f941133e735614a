//! A local catalog with its checks, and nothing else of an agent.
//!
//! Nomad's servers register themselves with what their `consul.address` names, and that may be a
//! mesh server. What they need of it is what an agent does for its node: keep registrations on
//! disk, run checks, answer what was sent. So it is the same code. What a mesh server has not is
//! proxies: it takes nothing that would be a part of the mesh, and nothing of it gets a leaf.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use mesh_consul::{agent, check, register};
use mesh_model::{CheckKind, Instance, Registration};
use nix::fcntl::Flock;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::catalog::{Catalog, Owner, Settings};
use crate::checks::{self, Board, Network};
use crate::http::Failure;
use crate::{AgentError, disk};

/// The most that is registered: one Nomad server is three.
const MAX_INSTANCES: usize = 256;
/// Who registers here is known by his certificate, and may change everything.
const OWNER: Owner = Owner::Token;

/// See the module. It ends with [`shutdown`](Self::shutdown), or without its last states when it is
/// dropped.
#[derive(Debug)]
pub struct LocalCatalog {
    catalog: Arc<Catalog>,
    board: Arc<Board>,
    changes: watch::Receiver<u64>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Until it goes the folder is ours.
    _lock: Flock<std::fs::File>,
}

/// Why something was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LocalRefusal {
    /// As an HTTP status.
    pub status: u16,
    /// What is wrong, and where.
    pub message: String,
}

impl From<Failure> for LocalRefusal {
    fn from(failure: Failure) -> Self {
        Self {
            status: failure.status.as_u16(),
            message: failure.message,
        }
    }
}

impl LocalCatalog {
    /// Reads what stands in the folder, and runs its checks. None of them may ask `own`, where this
    /// process listens.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub async fn start(folder: PathBuf, own: Vec<SocketAddr>) -> Result<Self, AgentError> {
        let open = move || {
            disk::make_folder(&folder)?;
            let lock = disk::lock(&folder)?;
            let settings = Settings {
                bind: None,
                ports: 0..=0,
                node: String::new(),
                address: String::new(),
                limit: MAX_INSTANCES,
            };
            let catalog = Catalog::open(&folder, settings)?;
            let board = Board::open(&folder)?;
            Ok::<_, AgentError>((lock, Arc::new(catalog), Arc::new(board)))
        };
        let opened = tokio::task::spawn_blocking(open).await;
        let (lock, catalog, board) = opened.map_err(|e| AgentError::Option(e.to_string()))??;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (changed, changes) = watch::channel(0);
        let prober = Arc::new(Network::new(own));
        tasks.spawn(checks::run(
            catalog.watch(),
            board.clone(),
            prober,
            stop.clone(),
        ));
        tasks.spawn(board.clone().keep(stop.clone()));
        tasks.spawn(tell(catalog.clone(), board.clone(), changed, stop.clone()));
        tasks.close();
        Ok(Self {
            catalog,
            board,
            changes,
            tasks,
            stop,
            _lock: lock,
        })
    }

    /// As `GET /v1/agent/services` has them.
    #[must_use]
    pub fn services(&self, datacenter: &str) -> Value {
        let view = self.catalog.view();
        let all: Map<String, Value> = view
            .iter()
            .flat_map(|entry| entry.services(datacenter))
            .collect();
        Value::Object(all)
    }

    /// As `GET /v1/agent/checks` has them; `node` is the name that they are of.
    #[must_use]
    pub fn checks(&self, node: &str) -> Value {
        let view = self.catalog.view();
        let mut all = Map::new();
        for entry in view.iter() {
            for check in entry.own_checks() {
                let (status, output) = self.board.state(check);
                let registration = &entry.registration;
                let shown = agent::check_json(node, registration, false, check, status, &output);
                all.insert(check.id.clone(), shown);
            }
        }
        Value::Object(all)
    }

    /// What the mesh's catalog should have, as of a node of this id and address.
    #[must_use]
    pub fn instances(&self, node: &str, address: &str) -> Vec<Instance> {
        let view = self.catalog.view();
        view.iter()
            .map(|entry| entry.instance(node, address, |check| self.board.status(check)))
            .collect()
    }

    /// Told whenever [`instances`](Self::instances) may have changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// The body of `PUT /v1/agent/service/register`.
    ///
    /// # Errors
    /// When it is not well formed, or would be a part of the mesh.
    pub async fn register(&self, body: Value, replace_checks: bool) -> Result<(), LocalRefusal> {
        self.change(move |catalog, _| {
            let registered = register::parse(&body)?;
            let registration = registered.registration;
            no_part_of_the_mesh(&registration)?;
            let id = registration.id.clone();
            catalog.register(registration, Some(body), OWNER, replace_checks)?;
            tracing::info!(instance = id, "registered");
            Ok(())
        })
        .await
    }

    /// What is not there is as good as deregistered.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn deregister(&self, id: &str) -> Result<(), LocalRefusal> {
        let id = id.to_owned();
        self.change(move |catalog, _| {
            catalog.deregister(&id, &OWNER)?;
            tracing::info!(id, "deregistered");
            Ok(())
        })
        .await
    }

    /// The body of `PUT /v1/agent/check/register`.
    ///
    /// # Errors
    /// When it is not well formed, or its instance is not there.
    pub async fn add_check(&self, body: Value) -> Result<(), LocalRefusal> {
        self.change(move |catalog, _| {
            let registered = check::parse(&body)?;
            catalog.add_check(&registered.instance, registered.check, &OWNER)?;
            Ok(())
        })
        .await
    }

    /// One that is not there is as good as removed.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn remove_check(&self, id: &str) -> Result<(), LocalRefusal> {
        let id = id.to_owned();
        self.change(move |catalog, _| Ok(catalog.remove_check(&id, &OWNER)?))
            .await
    }

    /// The body of `PUT /v1/agent/check/update/:id`.
    ///
    /// # Errors
    /// When it is not well formed, or no TTL check has this id.
    pub async fn update_check(&self, id: &str, body: Value) -> Result<(), LocalRefusal> {
        let id = id.to_owned();
        self.change(move |catalog, board| {
            let update = check::parse_update(&body)?;
            let view = catalog.view();
            let Some((_, check)) = view.check(&id) else {
                return Err(Failure::not_found(format!("unknown check ID: {id}")));
            };
            if !matches!(check.kind, CheckKind::Ttl { .. }) {
                return Err(Failure::bad(format!(
                    "check {id} is not a TTL check: it is run here"
                )));
            }
            board.update(&id, update.status, &update.output);
            Ok(())
        })
        .await
    }

    /// Ends it: no check is run any more, and all is on disk.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }

    async fn change(
        &self,
        change: impl FnOnce(&Catalog, &Board) -> Result<(), Failure> + Send + 'static,
    ) -> Result<(), LocalRefusal> {
        let (catalog, board) = (self.catalog.clone(), self.board.clone());
        let done = tokio::task::spawn_blocking(move || change(&catalog, &board)).await;
        let failed = |_| Err(Failure::internal("the request could not be worked off"));
        Ok(done.unwrap_or_else(failed)?)
    }
}

impl Drop for LocalCatalog {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Whoever has a sidecar, is native or a gateway gets an identity, and for that an agent must know
/// who runs there.
fn no_part_of_the_mesh(registration: &Registration) -> Result<(), Failure> {
    let what = match registration {
        Registration {
            gateway: Some(_), ..
        } => "is a gateway",
        Registration {
            sidecar: Some(_), ..
        } => "has a sidecar",
        Registration { native: true, .. } => "speaks for itself in the mesh (Connect.Native)",
        _ => return Ok(()),
    };
    Err(Failure::bad(format!(
        "instance {}: it {what}, and such are registered with the agent of the machine where they \
         run; a mesh server takes only what is no part of the mesh",
        registration.id
    )))
}

/// One word for each change of what is registered, or of a check's state.
async fn tell(
    catalog: Arc<Catalog>,
    board: Arc<Board>,
    changed: watch::Sender<u64>,
    stop: CancellationToken,
) {
    let (mut entries, mut states) = (catalog.watch(), board.watch());
    loop {
        let told = tokio::select! {
            it = entries.changed() => it,
            it = states.changed() => it,
            () = stop.cancelled() => return,
        };
        if told.is_err() {
            return;
        }
        changed.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mesh_model::Status;
    use serde_json::json;
    use std::path::Path;

    async fn start(folder: &Path) -> LocalCatalog {
        LocalCatalog::start(folder.join("local"), Vec::new())
            .await
            .unwrap()
    }

    /// As a Nomad server registers its RPC port.
    fn rpc(port: u16) -> Value {
        json!({"ID": "_nomad-server-x", "Name": "nomad", "Tags": ["rpc"], "Address": "127.0.0.1", "Port": port,
            "Meta": {"external-source": "nomad"}, "Check": null,
            "Checks": [{"CheckID": "_nomad-check-x", "Name": "Nomad Server RPC Check", "Interval": "10s",
                "Timeout": "2s", "TCP": format!("127.0.0.1:{port}")}]})
    }

    async fn until(local: &LocalCatalog, status: Option<Status>) {
        let mut changes = local.changes();
        loop {
            changes.mark_unchanged();
            let all = local.instances("s", "10.0.0.1");
            if all.first().map(Instance::status) == status {
                return;
            }
            changes.changed().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_nomad_server_finds_what_it_sent_and_its_checks_are_run() {
        let folder = tempfile::tempdir().unwrap();
        let local = start(folder.path()).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        local.register(rpc(port), true).await.unwrap();
        let shown = local.services("dc1")["_nomad-server-x"].clone();
        for (key, value) in [
            ("Service", json!("nomad")),
            ("Address", json!("127.0.0.1")),
            ("Port", json!(port)),
            ("Tags", json!(["rpc"])),
            ("Meta", json!({"external-source": "nomad"})),
            ("Weights", json!({"Passing": 1, "Warning": 1})),
            ("EnableTagOverride", json!(false)),
        ] {
            assert_eq!(shown[key], value, "{key}");
        }
        until(&local, Some(Status::Passing)).await;
        let check = local.checks("s1")["_nomad-check-x"].clone();
        assert_eq!(
            (&check["Status"], &check["Node"], &check["ServiceID"]),
            (&json!("passing"), &json!("s1"), &json!("_nomad-server-x"))
        );
        let refused = local.update_check("_nomad-check-x", json!({"Status": "critical"}));
        assert_eq!(refused.await.unwrap_err().status, 400);

        // Another start finds it again, as well as it was.
        local.shutdown().await;
        drop(local);
        let local = start(folder.path()).await;
        assert_eq!(local.services("dc1")["_nomad-server-x"], shown);
        until(&local, Some(Status::Passing)).await;
        local.deregister("_nomad-server-x").await.unwrap();
        local.deregister("_nomad-server-x").await.unwrap();
        until(&local, None).await;
    }

    #[tokio::test]
    async fn a_ttl_check_is_what_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let local = start(folder.path()).await;
        let body = json!({"ID": "a", "Name": "nomad"});
        local.register(body, true).await.unwrap();
        let check = json!({"ID": "c", "Name": "c", "ServiceID": "a", "TTL": "1h"});
        local.add_check(check).await.unwrap();
        until(&local, Some(Status::Critical)).await;
        let update = json!({"Status": "passing", "Output": "well"});
        local.update_check("c", update.clone()).await.unwrap();
        until(&local, Some(Status::Passing)).await;
        assert_eq!(local.checks("s")["c"]["Output"], "well");
        local.remove_check("c").await.unwrap();
        assert_eq!(
            local.update_check("c", update).await.unwrap_err().status,
            404
        );
    }

    #[tokio::test]
    async fn what_would_have_an_identity_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let local = start(folder.path()).await;
        for body in [
            json!({"Name": "web", "Connect": {"Native": true}}),
            json!({"Name": "web", "Connect": {"SidecarService": {"Port": 9}}}),
            json!({"Name": "web", "Kind": "terminating-gateway", "Port": 9, "Proxy": {}}),
        ] {
            let refused = local.register(body.clone(), true).await.unwrap_err();
            assert_eq!(refused.status, 400, "{body}");
            assert!(
                refused.message.contains("agent of the machine"),
                "{refused}"
            );
        }
        assert_eq!(local.services("dc1"), json!({}));
    }
}
