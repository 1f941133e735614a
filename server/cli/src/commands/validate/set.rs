//! Files as a set that can be checked as a whole.
//!
//! Files need not be everything: what they refer to may stand on the server.
//! A service that is referred to and is not in them is taken to be as it is
//! needed, and that is said, so that what remains are mistakes.

use std::collections::{BTreeMap, BTreeSet};

use mesh_model::consul::{ConfigEntry, ConsulKind};
use mesh_model::validate::{self, View};
use mesh_model::{
    Diagnostic, Entry, EntryKey, Gateway, Intention, Key, Located, Mesh, Place, Protocol, Route,
    Service,
};

use crate::commands::files::Source;
use crate::commands::placed;

/// Something that is said of an entry, and where it is written.
#[derive(Debug)]
pub(super) struct Said {
    place: Place,
    message: String,
}

impl Said {
    fn of<T>(entry: &Located<T>, message: String) -> Self {
        let place = entry.place_of(&message);
        Self { place, message }
    }

    /// As mistakes within one block are shown: with the line of the file, and
    /// what to do as a hint. The model says that after a semicolon.
    pub(super) fn shown(self, sources: &[Source]) -> Diagnostic {
        let text = sources.iter().find(|(name, _)| *name == self.place.file);
        let text = text.map_or("", |(_, text)| text);
        let (message, hint) = match self.message.split_once("; ") {
            Some((message, hint)) => (message, Some(hint.to_owned())),
            None => (self.message.as_str(), None),
        };
        let mut shown = Diagnostic::new(self.place, message, text);
        shown.hint = hint;
        shown
    }
}

/// What the set shows, in the order of the files and lines.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) errors: Vec<Said>,
    pub(super) warnings: Vec<Said>,
}

/// Checks our entries and Consul's against each other.
pub(super) fn check(ours: &[Located<Entry>], theirs: &[Located<ConfigEntry>]) -> Found {
    let mut found = Found {
        errors: twice(theirs),
        warnings: Vec::new(),
    };
    let compiled = placed::compiled(theirs);
    let mut entries: BTreeMap<EntryKey, &Located<Entry>> =
        ours.iter().map(|one| (one.value.key(), one)).collect();
    for entry in &compiled {
        let key = entry.value.key();
        match entries.get(&key) {
            Some(block) => {
                let message = format!(
                    "{key}: is a block as well, at {}; a row is made by one of the two",
                    block.place()
                );
                found.errors.push(Said::of(entry, message));
            }
            None => {
                entries.insert(key, entry);
            }
        }
    }
    let mut set = Set::default();
    for entry in entries.values() {
        set.add(entry.value.clone());
    }
    set.take_as_needed(&entries, &mut found.warnings);
    let keys: Vec<EntryKey> = entries.keys().cloned().collect();
    let findings = validate::check(&set, &keys);
    let said =
        |finding: validate::Finding| Some(Said::of(entries.get(&finding.key)?, finding.message));
    found
        .errors
        .extend(findings.errors.into_iter().filter_map(said));
    found
        .warnings
        .extend(findings.warnings.into_iter().filter_map(said));
    for said in [&mut found.errors, &mut found.warnings] {
        said.sort_by(|a, b| a.place.cmp(&b.place));
    }
    found
}

/// Of two entries of Consul's with one kind and name the later one would count.
fn twice(theirs: &[Located<ConfigEntry>]) -> Vec<Said> {
    let mut first: BTreeMap<(ConsulKind, Key), &Located<ConfigEntry>> = BTreeMap::new();
    let mut all = Vec::new();
    for entry in theirs {
        let name = (entry.value.kind, entry.value.key());
        match first.get(&name) {
            Some(first) => {
                let place = first.place();
                let message = format!("{}: is defined twice; the first is at {place}", entry.value);
                all.push(Said::of(entry, message));
            }
            None => {
                first.insert(name, entry);
            }
        }
    }
    all
}

/// The entries, by their keys.
#[derive(Debug, Default)]
struct Set {
    mesh: Option<Mesh>,
    services: BTreeMap<Key, Service>,
    routes: BTreeMap<Key, Route>,
    intentions: BTreeMap<(Key, Key), Intention>,
    gateways: BTreeMap<Key, Gateway>,
}

impl Set {
    /// Adds what the entries refer to and is not among them, as it is needed;
    /// and says so.
    fn take_as_needed(
        &mut self,
        entries: &BTreeMap<EntryKey, &Located<Entry>>,
        warnings: &mut Vec<Said>,
    ) {
        let written: BTreeSet<Key> = self.services.keys().cloned().collect();
        for entry in entries.values() {
            for needed in validate::references(&entry.value) {
                let EntryKey::Service(key) = needed.key else {
                    continue;
                };
                if written.contains(&key) {
                    continue;
                }
                if !self.services.contains_key(&key) {
                    let message = format!(
                        "{}: service {key} is not in these files; it must stand already, with an \
                         HTTP protocol",
                        entry.value.key()
                    );
                    warnings.push(Said::of(entry, message));
                }
                let service = self.services.entry(key.clone());
                let service = service.or_insert_with(|| Service {
                    protocol: Protocol::Http,
                    ..Service::named(&key)
                });
                if let Some(subset) = needed.subset {
                    service.subsets.entry(subset).or_default();
                }
            }
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
            Entry::Gateway(gateway) => {
                self.gateways.insert(gateway.key(), gateway);
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

    fn gateway(&self, key: &Key) -> Option<&Gateway> {
        self.gateways.get(key)
    }

    fn routes(&self) -> Box<dyn Iterator<Item = &Route> + '_> {
        Box::new(self.routes.values())
    }

    fn intentions(&self) -> Box<dyn Iterator<Item = &Intention> + '_> {
        Box::new(self.intentions.values())
    }

    fn gateways(&self) -> Box<dyn Iterator<Item = &Gateway> + '_> {
        Box::new(self.gateways.values())
    }
}
