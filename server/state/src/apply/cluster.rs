//! The cluster itself, and its CA.

use mesh_model::Action;
use serde_json::Value;

use super::{Draft, SERVER, done};
use crate::command::Command;
use crate::key::RowKey;
use crate::outcome::{Applied, Refusal};
use crate::stored::Cluster;

impl Draft {
    pub(super) fn bootstrap(&mut self, command: &Command) -> Result<Applied, Refusal> {
        let Command::Bootstrap {
            cluster_id,
            trust_domain,
            datacenter,
            epoch,
            default_intention,
        } = command
        else {
            return Ok(Applied::default());
        };
        if let Some(row) = self.state.cluster() {
            return match row.value.cluster_id == *cluster_id {
                true => Ok(Applied::default()),
                false => Err(Refusal::AlreadyBootstrapped {
                    cluster_id: row.value.cluster_id.clone(),
                }),
            };
        }
        for (name, value) in [
            ("cluster id", cluster_id),
            ("trust domain", trust_domain),
            ("datacenter", datacenter),
            ("epoch", epoch),
        ] {
            if value.is_empty() {
                return Err(Refusal::invalid(
                    RowKey::Cluster,
                    format_args!("the {name} is empty"),
                ));
            }
        }
        self.state.epoch.clone_from(epoch);
        let cluster = Cluster {
            cluster_id: cluster_id.clone(),
            trust_domain: trust_domain.clone(),
            datacenter: datacenter.clone(),
            default_intention: *default_intention,
            level: 1,
        };
        let result = self.put(cluster, SERVER);
        // A new epoch: whoever holds anything holds something else.
        self.everything = true;
        Ok(done(vec![result]))
    }

    pub(super) fn raise_level(&mut self, level: u32) -> Result<Applied, Refusal> {
        self.change_cluster(|cluster| cluster.level = cluster.level.max(level))
    }

    pub(super) fn put_cluster_config(
        &mut self,
        default_intention: Action,
        cas: Option<u64>,
    ) -> Result<Applied, Refusal> {
        self.compare(&RowKey::Cluster, cas)?;
        self.change_cluster(|cluster| cluster.default_intention = default_intention)
    }

    fn change_cluster(&mut self, change: impl FnOnce(&mut Cluster)) -> Result<Applied, Refusal> {
        let row = self.state.cluster().ok_or(Refusal::NotBootstrapped)?;
        let mut cluster = row.value.clone();
        change(&mut cluster);
        let result = self.put(cluster, SERVER);
        Ok(done(vec![result]))
    }

    pub(super) fn put_ca(&mut self, value: &Value, cas: Option<u64>) -> Result<Applied, Refusal> {
        self.compare(&RowKey::Ca, cas)?;
        let result = self.put(value.clone(), SERVER);
        Ok(done(vec![result]))
    }
}
