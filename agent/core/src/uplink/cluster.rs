//! The cluster that this agent belongs to: the one that it joined first, until told otherwise.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use mesh_proto::servers::v1 as pb;
use serde::{Deserialize, Serialize};

use crate::{AgentError, disk};

/// What is remembered of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cluster {
    /// Empty: none was joined yet.
    pub(crate) id: String,
    pub(crate) trust_domain: String,
    pub(crate) datacenter: String,
}

/// Why a server is not spoken with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotOurs {
    #[error(
        "the server belongs to cluster {theirs}, this agent to {ours}; start the agent once with -rejoin if that is meant"
    )]
    Other { ours: String, theirs: String },
    #[error("the server's cluster is {theirs}, not {ours} as `datacenter` says")]
    Datacenter { ours: String, theirs: String },
    #[error("the server does not say to which cluster it belongs")]
    None,
    #[error("the cluster could not be remembered: {0}")]
    Disk(String),
}

/// The remembered cluster.
#[derive(Debug)]
pub(crate) struct Membership {
    path: PathBuf,
    datacenter: Option<String>,
    inner: Mutex<(Cluster, bool)>,
}

impl Membership {
    /// Reads what stands on disk. With `rejoin` the next cluster that answers is joined.
    pub(crate) fn open(
        data_dir: &Path,
        datacenter: Option<String>,
        rejoin: bool,
    ) -> Result<Self, AgentError> {
        let path = data_dir.join("cluster.json");
        let cluster: Cluster = disk::read(&path)?.unwrap_or_default();
        Ok(Self {
            path,
            datacenter,
            inner: Mutex::new((cluster, rejoin)),
        })
    }

    /// What is remembered.
    pub(crate) fn cluster(&self) -> Cluster {
        self.lock().0.clone()
    }

    /// The mesh's datacenter, as far as it is known.
    pub(crate) fn datacenter(&self) -> Option<String> {
        let known = Some(self.cluster().datacenter).filter(|name| !name.is_empty());
        known.or_else(|| self.datacenter.clone())
    }

    /// What to say in a hello: nothing where any cluster will do.
    pub(crate) fn hello(&self) -> String {
        let inner = self.lock();
        match inner.1 {
            true => String::new(),
            false => inner.0.id.clone(),
        }
    }

    /// Checks a server's welcome, and remembers its cluster when it is the first. Blocks.
    pub(crate) fn check(&self, welcome: &pb::Welcome) -> Result<(), NotOurs> {
        let mut inner = self.lock();
        let (ours, rejoin) = &mut *inner;
        if welcome.cluster_id.is_empty() {
            return Err(NotOurs::None);
        }
        if let Some(wanted) = &self.datacenter
            && *wanted != welcome.datacenter
        {
            return Err(NotOurs::Datacenter {
                ours: wanted.clone(),
                theirs: welcome.datacenter.clone(),
            });
        }
        if !ours.id.is_empty() && ours.id != welcome.cluster_id && !*rejoin {
            return Err(NotOurs::Other {
                ours: ours.id.clone(),
                theirs: welcome.cluster_id.clone(),
            });
        }
        let theirs = Cluster {
            id: welcome.cluster_id.clone(),
            trust_domain: welcome.trust_domain.clone(),
            datacenter: welcome.datacenter.clone(),
        };
        if *ours != theirs {
            serde_json::to_vec(&theirs)
                .map_err(std::io::Error::from)
                .and_then(|bytes| disk::write(&self.path, &bytes))
                .map_err(|e| NotOurs::Disk(e.to_string()))?;
            *ours = theirs;
        }
        *rejoin = false;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Cluster, bool)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn welcome(id: &str) -> pb::Welcome {
        pb::Welcome {
            cluster_id: id.into(),
            datacenter: "dc1".into(),
            trust_domain: format!("{id}.mesh"),
            ..pb::Welcome::default()
        }
    }

    #[test]
    fn the_first_cluster_is_the_one_until_told() {
        let folder = tempfile::tempdir().unwrap();
        let open = |rejoin| Membership::open(folder.path(), None, rejoin).unwrap();
        let membership = open(false);
        assert_eq!(membership.hello(), "");
        assert_eq!(membership.check(&welcome("")), Err(NotOurs::None));
        membership.check(&welcome("one")).unwrap();
        membership.check(&welcome("one")).unwrap();
        assert!(membership.check(&welcome("two")).is_err());
        let membership = open(false);
        assert_eq!(membership.hello(), "one");
        assert!(membership.check(&welcome("two")).is_err());
        let membership = open(true);
        assert_eq!(membership.hello(), "");
        membership.check(&welcome("two")).unwrap();
        assert!(
            membership.check(&welcome("one")).is_err(),
            "told once, not for good"
        );
        assert_eq!(open(false).cluster().datacenter, "dc1");
    }

    #[test]
    fn another_datacenter_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let membership = Membership::open(folder.path(), Some("dc2".into()), true).unwrap();
        assert!(membership.check(&welcome("one")).is_err());
    }
}
