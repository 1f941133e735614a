//! Files as a set that can be checked as a whole.
//!
//! Files need not be everything: what they refer to may stand on the server.
//! A service that is referred to and is not in them is taken to be as it is
//! needed, and that is said, so that what remains are mistakes.

use std::collections::{BTreeMap, BTreeSet};

use mesh_model::validate::{self, View};
use mesh_model::{
    Entry, EntryKey, Intention, Key, Located, Mesh, Protocol, Route, Service, Subset,
};

use super::Said;

/// The entries, by their keys.
#[derive(Debug, Default)]
pub(super) struct Set {
    mesh: Option<Mesh>,
    services: BTreeMap<Key, Service>,
    routes: BTreeMap<Key, Route>,
    intentions: BTreeMap<(Key, Key), Intention>,
}

impl Set {
    /// Checks the entries of files against each other.
    pub(super) fn check(
        entries: &[Located<Entry>],
        errors: &mut Vec<Said>,
        warnings: &mut Vec<Said>,
    ) {
        let mut set = Self::default();
        for entry in entries {
            set.add(entry.value.clone());
        }
        let written: BTreeSet<Key> = set.services.keys().cloned().collect();
        for entry in entries {
            for needed in validate::references(&entry.value) {
                let EntryKey::Service(key) = needed.key else {
                    continue;
                };
                if written.contains(&key) {
                    continue;
                }
                if !set.services.contains_key(&key) {
                    let message = format!(
                        "{}: service {key} is not in these files; it must stand already, with an \
                         HTTP protocol",
                        entry.value.key()
                    );
                    warnings.push(Said::of(Some(entry), message));
                }
                let service = set.services.entry(key.clone());
                let service = service.or_insert_with(|| Service {
                    protocol: Protocol::Http,
                    ..Service::named(&key)
                });
                if let Some(subset) = needed.subset {
                    service
                        .subsets
                        .entry(subset)
                        .or_insert_with(Subset::default);
                }
            }
        }
        let changed: Vec<EntryKey> = entries.iter().map(|one| one.value.key()).collect();
        let findings = validate::check(&set, &changed);
        let said = |finding: validate::Finding| {
            let entry = entries.iter().find(|one| one.value.key() == finding.key);
            Said::of(entry, finding.message)
        };
        errors.extend(findings.errors.into_iter().map(said));
        warnings.extend(findings.warnings.into_iter().map(said));
        for said in [errors, warnings] {
            said.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        }
    }

    fn add(&mut self, entry: Entry) {
        match entry {
            Entry::Mesh(mesh) => self.mesh = Some(mesh),
            Entry::Service(service) => {
                self.services.insert(service.key(), service);
            }
            Entry::Route(route) => {
                self.routes.insert(route.key(), route);
            }
            Entry::Intention(one) => {
                let key = (one.source.clone(), one.destination.clone());
                self.intentions.insert(key, one);
            }
        }
    }
}

impl View for Set {
    fn mesh(&self) -> Option<&Mesh> {
        self.mesh.as_ref()
    }

    fn service(&self, key: &Key) -> Option<&Service> {
        self.services.get(key)
    }

    fn route(&self, key: &Key) -> Option<&Route> {
        self.routes.get(key)
    }

    fn intention(&self, source: &Key, destination: &Key) -> Option<&Intention> {
        self.intentions.get(&(source.clone(), destination.clone()))
    }

    fn routes(&self) -> Box<dyn Iterator<Item = &Route> + '_> {
        Box::new(self.routes.values())
    }

    fn intentions(&self) -> Box<dyn Iterator<Item = &Intention> + '_> {
        Box::new(self.intentions.values())
    }
}
