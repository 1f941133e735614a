//! Clusters: a service, or a subset of one, as instances to choose from.

use std::collections::BTreeMap;

use mesh_model::{Key, Service, Status, Subset};
use mesh_proto::config::{Cluster, Endpoint, Health};
use mesh_proto::fact;

use crate::FactStore;

/// The clusters of one proxy, made as routes name them.
pub(crate) struct Clusters<'a> {
    facts: &'a FactStore,
    mesh: &'a fact::MeshFact,
    made: BTreeMap<String, Cluster>,
}

impl<'a> Clusters<'a> {
    pub(crate) fn new(facts: &'a FactStore, mesh: &'a fact::MeshFact) -> Self {
        Self {
            facts,
            mesh,
            made: BTreeMap::new(),
        }
    }

    pub(crate) fn into_map(self) -> BTreeMap<String, Cluster> {
        self.made
    }

    /// The name of the cluster for a subset of the service, or for the whole of
    /// it, which is its default subset if it has one.
    ///
    /// A subset that is not defined has no instance. The servers refuse such a
    /// route; between two facts of different versions it may still be seen.
    pub(crate) fn name_of(&mut self, service: &Service, subset: Option<&str>) -> String {
        let subset = subset.or(service.default_subset.as_deref());
        let key = service.key();
        let name = match subset {
            Some(subset) => format!("{subset}.{}.{}", key.name, key.namespace),
            None => format!("{}.{}", key.name, key.namespace),
        };
        if !self.made.contains_key(&name) {
            let cluster = self.cluster(service, &key, subset);
            self.made.insert(name.clone(), cluster);
        }
        name
    }

    /// Takes one over as it was, unless it is made anew already.
    pub(crate) fn keep(&mut self, name: &str, cluster: &Cluster) {
        if !self.made.contains_key(name) {
            self.made.insert(name.to_owned(), cluster.clone());
        }
    }

    fn cluster(&self, service: &Service, key: &Key, subset: Option<&str>) -> Cluster {
        let known = self.facts.endpoints(key).unwrap_or_default();
        let endpoints = match subset {
            None => known.iter().filter_map(|one| endpoint(one, None)).collect(),
            Some(name) => match service.subsets.get(name) {
                None => Vec::new(),
                Some(subset) => known
                    .iter()
                    .filter_map(|one| endpoint(one, Some(subset)))
                    .collect(),
            },
        };
        Cluster {
            service: key.clone(),
            subset: subset.map(str::to_owned),
            sni: self.mesh.sni(key, subset),
            protocol: service.protocol,
            load_balancer: service.load_balancer,
            connect_timeout: service.connect_timeout(),
            outlier_detection: service.outlier_detection.clone(),
            endpoints,
        }
    }
}

/// The endpoint as a proxy sees it; `None` when it gets no requests here.
fn endpoint(one: &fact::Endpoint, subset: Option<&Subset>) -> Option<Endpoint> {
    let weight = match one.status {
        Status::Passing => one.weights.passing,
        Status::Warning => one.weights.warning,
        Status::Critical => return None,
    };
    if weight == 0 || !subset.is_none_or(|subset| belongs(one, subset)) {
        return None;
    }
    Some(Endpoint {
        id: format!("{}/{}", one.node, one.instance),
        address: one.address.clone(),
        port: one.port,
        identity: one.identity.clone(),
        native: one.native,
        weight,
        health: match one.silent {
            true => Health::Unknown,
            false => Health::Healthy,
        },
    })
}

fn belongs(one: &fact::Endpoint, subset: &Subset) -> bool {
    subset
        .meta
        .iter()
        .all(|(name, value)| one.meta.get(name) == Some(value))
        && subset.tags.iter().all(|tag| one.tags.contains(tag))
        && (!subset.only_passing || one.status == Status::Passing)
}
