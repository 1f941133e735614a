//! A server's own local catalog: the agent's code behind the server's trait. Neither crate knows the
//! other.

use std::sync::Arc;

use async_trait::async_trait;
use mesh_agent::LocalCatalog;
use mesh_model::Instance;
use mesh_server::{Local, LocalChange};
use serde_json::Value;
use tokio::sync::watch;

/// See the module.
#[derive(Debug)]
pub(crate) struct Here(pub(crate) Arc<LocalCatalog>);

#[async_trait]
impl Local for Here {
    fn services(&self, datacenter: &str) -> Value {
        self.0.services(datacenter)
    }

    fn checks(&self, node: &str) -> Value {
        self.0.checks(node)
    }

    fn instances(&self, node: &str, address: &str) -> Vec<Instance> {
        self.0.instances(node, address)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes()
    }

    async fn change(&self, change: LocalChange) -> Result<(), (u16, String)> {
        let local = &self.0;
        let done = match change {
            LocalChange::Register {
                body,
                replace_checks,
            } => local.register(body, replace_checks).await,
            LocalChange::Deregister { id } => local.deregister(&id).await,
            LocalChange::AddCheck { body } => local.add_check(body).await,
            LocalChange::RemoveCheck { id } => local.remove_check(&id).await,
            LocalChange::UpdateCheck { id, body } => local.update_check(&id, body).await,
        };
        done.map_err(|refusal| (refusal.status, refusal.message))
    }
}
