//! One registered instance, and all of them as they are at one time.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_consul::echo;
use mesh_model::{Check, CheckDefinition, Instance, ProxyEndpoint, Registration, Sidecar, Status};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Owner;

/// A registered instance, as it also stands on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// What was registered, with every default and port filled in.
    pub(crate) registration: Registration,
    /// Who registered it.
    pub(crate) owner: Owner,
    /// What was sent, word for word, for the echo; none for a file's.
    #[serde(default)]
    pub(crate) body: Option<Value>,
    /// Whether the sidecar's port was picked here.
    #[serde(default)]
    pub(crate) picked: bool,
    /// Checks that were added one by one.
    #[serde(default)]
    pub(crate) extra: Vec<CheckDefinition>,
}

impl Entry {
    /// Its checks, and whether each is its sidecar's.
    pub(crate) fn checks(&self) -> impl Iterator<Item = (bool, &CheckDefinition)> {
        let sidecar = self.registration.sidecar.iter();
        let own = self.own_checks().map(|check| (false, check));
        own.chain(sidecar.flat_map(|it| it.checks.iter().map(|check| (true, check))))
    }

    /// Those of the instance itself.
    pub(crate) fn own_checks(&self) -> impl Iterator<Item = &CheckDefinition> {
        self.registration.checks.iter().chain(&self.extra)
    }

    /// What the servers should have of it. `address` is where other nodes reach this one.
    pub(crate) fn instance(
        &self,
        node: &str,
        address: &str,
        status: impl Fn(&CheckDefinition) -> Status,
    ) -> Instance {
        let registration = &self.registration;
        let or_node = |given: &Option<String>| given.clone().unwrap_or_else(|| address.to_owned());
        let checks = self.checks().map(|(_, check)| {
            let state = Check {
                name: check.name.clone(),
                status: status(check),
            };
            (check.id.clone(), state)
        });
        Instance {
            namespace: registration.namespace.clone(),
            service: registration.service.clone(),
            id: registration.id.clone(),
            node: node.to_owned(),
            address: or_node(&registration.address),
            port: registration.port,
            tags: registration.tags.clone(),
            meta: registration.meta.clone(),
            weights: registration.weights,
            proxy: match &registration.sidecar {
                Some(sidecar) => Some(ProxyEndpoint {
                    id: sidecar.id.clone(),
                    address: or_node(&sidecar.address),
                    port: sidecar.port,
                    native: false,
                }),
                None => registration.native.then(|| ProxyEndpoint {
                    id: registration.id.clone(),
                    address: or_node(&registration.address),
                    port: registration.port,
                    native: true,
                }),
            },
            gateway: registration.gateway.as_ref().map(|it| it.kind),
            checks: checks.collect(),
        }
    }

    /// As Consul shows them: the instance, and its sidecar, each under its id.
    pub(crate) fn services(&self, datacenter: &str) -> Vec<(String, Value)> {
        let (registration, body) = (&self.registration, self.body.as_ref());
        let mut all = vec![(
            registration.id.clone(),
            echo::service(registration, body, datacenter),
        )];
        if let (Some(sidecar), Some(shown)) = (
            &registration.sidecar,
            echo::sidecar(registration, body, datacenter),
        ) {
            all.push((sidecar.id.clone(), shown));
        }
        all
    }
}

/// Everything that is registered, at one time. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct View(pub(super) Arc<BTreeMap<String, Arc<Entry>>>);

impl View {
    /// Every instance, by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.0.values()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// An instance by its id.
    pub(crate) fn instance(&self, id: &str) -> Option<&Arc<Entry>> {
        self.0.get(id)
    }

    /// A sidecar by its id, with its instance.
    pub(crate) fn sidecar(&self, id: &str) -> Option<(&Arc<Entry>, &Sidecar)> {
        // The usual id is made from the instance's; the long way is for a file's own.
        self.iter()
            .filter_map(|entry| Some((entry, entry.registration.sidecar.as_ref()?)))
            .find(|(_, sidecar)| sidecar.id == id)
    }

    /// Every sidecar with its instance.
    pub(crate) fn sidecars(&self) -> impl Iterator<Item = (&Arc<Entry>, &Sidecar)> {
        self.iter()
            .filter_map(|entry| Some((entry, entry.registration.sidecar.as_ref()?)))
    }

    /// A check by its id, with its instance.
    pub(crate) fn check(&self, id: &str) -> Option<(&Arc<Entry>, &CheckDefinition)> {
        self.iter().find_map(|entry| {
            let (_, check) = entry.checks().find(|(_, check)| check.id == id)?;
            Some((entry, check))
        })
    }
}
