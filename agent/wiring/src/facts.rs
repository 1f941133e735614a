//! What the agent knows, read.
//!
//! A body that this build cannot read (a newer server used a field that it does
//! not know) does not replace the last one that it could: the route goes on as
//! it was. Intentions and revocations are never read here, only passed on: what a proxy does
//! not understand of them, it denies.

use std::collections::BTreeMap;

use mesh_model::{Gateway, Key, Route, Service, VirtualAddress};
use mesh_proto::fact::{Endpoint, MeshFact, Outside, RootsFact, Topic, VirtualFact};
use serde::de::DeserializeOwned;

/// Facts by topic. A topic that is absent has had no answer yet; "there is
/// none" is an answer.
#[derive(Clone, Debug, Default)]
pub struct FactStore {
    mesh: Option<MeshFact>,
    roots: Option<RootsFact>,
    revocations: Option<Vec<u8>>,
    services: BTreeMap<Key, Option<Service>>,
    routes: BTreeMap<Key, Option<Route>>,
    endpoints: BTreeMap<Key, Vec<Endpoint>>,
    intentions: BTreeMap<Key, Vec<serde_json::Value>>,
    virtuals: BTreeMap<Key, Option<VirtualFact>>,
    addresses: BTreeMap<VirtualAddress, Option<Key>>,
    gateways: BTreeMap<Key, Option<Gateway>>,
    outside: BTreeMap<Key, Vec<Outside>>,
    all_services: Option<Vec<Key>>,
    unread: BTreeMap<Topic, String>,
}

/// A body that this build cannot read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{topic}: {reason}; the last form that could be read stays. Upgrade this agent")]
pub struct FactError {
    /// What it is about.
    pub topic: Topic,
    /// What could not be read.
    pub reason: String,
}

impl FactStore {
    /// Takes the body of a topic. On an error what was known stays.
    pub fn put(&mut self, topic: &Topic, body: &[u8]) -> Result<(), FactError> {
        let taken = match topic {
            Topic::Mesh => read(body).map(|it| self.mesh = Some(it)),
            Topic::Roots => read(body).map(|it| self.roots = Some(it)),
            Topic::Revocations => {
                self.revocations = Some(body.to_vec());
                Ok(())
            }
            Topic::Service(key) => read(body).map(|it| drop(self.services.insert(key.clone(), it))),
            Topic::Route(key) => read(body).map(|it| drop(self.routes.insert(key.clone(), it))),
            Topic::Endpoints(key) => {
                read(body).map(|it| drop(self.endpoints.insert(key.clone(), it)))
            }
            Topic::Intentions(key) => {
                read(body).map(|it| drop(self.intentions.insert(key.clone(), it)))
            }
            Topic::Virtual(key) => read(body).map(|it| {
                self.virtuals.insert(key.clone(), it);
            }),
            Topic::Address(address) => {
                read(body).map(|it| drop(self.addresses.insert(*address, it)))
            }
            Topic::Gateway(key) => read(body).map(|it| drop(self.gateways.insert(key.clone(), it))),
            Topic::Outside(key) => read(body).map(|it| drop(self.outside.insert(key.clone(), it))),
            Topic::Services => read(body).map(|it| self.all_services = Some(it)),
        };
        match taken {
            Ok(()) => {
                self.unread.remove(topic);
                Ok(())
            }
            Err(reason) => {
                self.unread.insert(topic.clone(), reason.clone());
                Err(FactError {
                    topic: topic.clone(),
                    reason,
                })
            }
        }
    }

    /// Notes that the newest body of a topic is not taken, and why. What was
    /// known stays.
    pub fn refuse(&mut self, topic: &Topic, reason: String) {
        self.unread.insert(topic.clone(), reason);
    }

    /// Forgets a topic that nobody hangs on any more.
    pub fn forget(&mut self, topic: &Topic) {
        self.unread.remove(topic);
        match topic {
            Topic::Mesh => self.mesh = None,
            Topic::Roots => self.roots = None,
            Topic::Revocations => self.revocations = None,
            Topic::Service(key) => drop(self.services.remove(key)),
            Topic::Route(key) => drop(self.routes.remove(key)),
            Topic::Endpoints(key) => drop(self.endpoints.remove(key)),
            Topic::Intentions(key) => drop(self.intentions.remove(key)),
            Topic::Virtual(key) => {
                self.virtuals.remove(key);
            }
            Topic::Address(address) => drop(self.addresses.remove(address)),
            Topic::Gateway(key) => drop(self.gateways.remove(key)),
            Topic::Outside(key) => drop(self.outside.remove(key)),
            Topic::Services => self.all_services = None,
        }
    }

    /// Whether the topic has had an answer that could be read.
    pub fn has(&self, topic: &Topic) -> bool {
        match topic {
            Topic::Mesh => self.mesh.is_some(),
            Topic::Roots => self.roots.is_some(),
            Topic::Revocations => self.revocations.is_some(),
            Topic::Service(key) => self.services.contains_key(key),
            Topic::Route(key) => self.routes.contains_key(key),
            Topic::Endpoints(key) => self.endpoints.contains_key(key),
            Topic::Intentions(key) => self.intentions.contains_key(key),
            Topic::Virtual(key) => self.virtuals.contains_key(key),
            Topic::Address(address) => self.addresses.contains_key(address),
            Topic::Gateway(key) => self.gateways.contains_key(key),
            Topic::Outside(key) => self.outside.contains_key(key),
            Topic::Services => self.all_services.is_some(),
        }
    }

    /// Why the newest body of a topic could not be read, if it could not.
    pub fn unread(&self, topic: &Topic) -> Option<&str> {
        self.unread.get(topic).map(String::as_str)
    }

    /// The mesh's defaults and names.
    pub fn mesh(&self) -> Option<&MeshFact> {
        self.mesh.as_ref()
    }

    /// What the mesh trusts.
    pub fn roots(&self) -> Option<&RootsFact> {
        self.roots.as_ref()
    }

    /// What is revoked, as the servers wrote it: a proxy that does not understand
    /// it believes nobody.
    pub fn revocations(&self) -> Option<&[u8]> {
        self.revocations.as_deref()
    }

    /// A service's virtual addresses, `None` in it when there is no such
    /// service; `None` when there was no answer yet.
    pub fn virtual_of(&self, service: &Key) -> Option<Option<&VirtualFact>> {
        self.virtuals.get(service).map(Option::as_ref)
    }

    /// The service that has a virtual address, `None` in it when none has;
    /// `None` when there was no answer yet.
    pub fn service_at(&self, address: VirtualAddress) -> Option<Option<&Key>> {
        self.addresses.get(&address).map(Option::as_ref)
    }

    /// The service: its row, or the defaults when the answer was "none".
    pub(crate) fn service(&self, key: &Key) -> Option<Service> {
        let row = self.services.get(key)?;
        Some(row.clone().unwrap_or_else(|| Service::named(key)))
    }

    /// The route, `None` in it when there is none.
    pub(crate) fn route(&self, key: &Key) -> Option<Option<&Route>> {
        self.routes.get(key).map(Option::as_ref)
    }

    pub(crate) fn endpoints(&self, key: &Key) -> Option<&[Endpoint]> {
        self.endpoints.get(key).map(Vec::as_slice)
    }

    /// The gateway, `None` in it when there is none.
    pub(crate) fn gateway(&self, key: &Key) -> Option<Option<&Gateway>> {
        self.gateways.get(key).map(Option::as_ref)
    }

    pub(crate) fn outside(&self, key: &Key) -> Option<&[Outside]> {
        self.outside.get(key).map(Vec::as_slice)
    }

    /// Every service that there is.
    pub(crate) fn all_services(&self) -> Option<&[Key]> {
        self.all_services.as_deref()
    }

    pub(crate) fn intentions(&self, key: &Key) -> Option<&[serde_json::Value]> {
        self.intentions.get(key).map(Vec::as_slice)
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_known_both_ways() {
        let mut store = FactStore::default();
        let web = Key::of("web");
        let at: VirtualAddress = "240.1.2.3".parse().unwrap();
        let (there, back) = (Topic::Virtual(web.clone()), Topic::Address(at));
        assert_eq!(store.virtual_of(&web), None);
        assert_eq!(store.service_at(at), None);

        store.put(&there, b"null").unwrap();
        store.put(&back, b"null").unwrap();
        assert_eq!(store.virtual_of(&web), Some(None));
        assert_eq!(store.service_at(at), Some(None));

        let body = br#"{"ip4":"240.1.2.3","ip6":"fd6d:6573:6876::f001:203"}"#;
        store.put(&there, body).unwrap();
        let body = br#"{"namespace":"default","name":"web"}"#;
        store.put(&back, body).unwrap();
        assert_eq!(store.virtual_of(&web), Some(Some(&at.into())));
        assert_eq!(store.service_at(at), Some(Some(&web)));

        // What cannot be read leaves what was known.
        for topic in [&there, &back] {
            assert!(store.put(topic, br#"{"name":"web","ip7":1}"#).is_err());
            assert!(store.unread(topic).is_some() && store.has(topic));
        }
        assert_eq!(store.service_at(at), Some(Some(&web)));
        for topic in [&there, &back] {
            store.forget(topic);
            assert!(!store.has(topic));
        }
        assert_eq!(store.virtual_of(&web), None);
        assert_eq!(store.service_at(at), None);
    }
}
