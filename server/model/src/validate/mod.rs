//! What only the whole set can tell: an entry against the entries that it
//! names, and against those that name it.
//!
//! [`check`] is asked with the set as it would be after a write, and the keys
//! that the write changes (deletes included), so that the order within a write
//! does not matter. Errors are what must not be written; warnings are what
//! somebody may want, and more often has overlooked. A write that takes from
//! under another entry what that one needs is refused with the list of all who
//! need it.

mod gateway;
mod intention;
mod route;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub(crate) use route::name as destination_name;
use serde::Serialize;

use crate::{
    Action, Entry, EntryKey, Gateway, Intention, IntentionRule, Key, Mesh, PathMatch, Protocol,
    RequestMatch, Route, Service,
};

/// Most rules of a route, permissions of an intention and subsets of a service.
const MOST: usize = 256;

/// A set of entries.
pub trait View {
    /// The mesh's defaults, if they are written.
    fn mesh(&self) -> Option<&Mesh>;
    /// The `service` block of that key.
    fn service(&self, key: &Key) -> Option<&Service>;
    /// The route of that key.
    fn route(&self, key: &Key) -> Option<&Route>;
    /// The intention of exactly that pair.
    fn intention(&self, source: &Key, destination: &Key) -> Option<&Intention>;
    /// The gateway of that key.
    fn gateway(&self, key: &Key) -> Option<&Gateway>;
    /// Every route.
    fn routes(&self) -> Box<dyn Iterator<Item = &Route> + '_>;
    /// Every intention.
    fn intentions(&self) -> Box<dyn Iterator<Item = &Intention> + '_>;
    /// Every gateway.
    fn gateways(&self) -> Box<dyn Iterator<Item = &Gateway> + '_>;

    /// What holds where no intention does: the mesh's default, else that with
    /// which the cluster was started (deny, unless this is overridden).
    fn default_intention(&self) -> Action {
        self.mesh()
            .and_then(|mesh| mesh.default_intention)
            .unwrap_or(Action::Deny)
    }
}

/// Something said of one entry. Displays as its message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// The entry.
    pub key: EntryKey,
    /// What is to be said, as a path that begins with the entry:
    /// `route web: rule canary: weights sum to 90, not 100`.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// An entry that would be left without what it needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Referrer {
    /// The entry that needs it.
    pub by: EntryKey,
    /// What it needs, with the place: `route web: rule canary: to v2: …`.
    pub message: String,
}

impl fmt::Display for Referrer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// A changed or deleted entry, and those that still need what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dangling {
    /// The entry that the write changes or deletes.
    pub key: EntryKey,
    /// Who needs what it was.
    pub referrers: Vec<Referrer>,
}

impl fmt::Display for Dangling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: BTreeSet<String> = self.referrers.iter().map(|r| r.by.to_string()).collect();
        let names: Vec<String> = names.into_iter().collect();
        write!(
            f,
            "{}: is still referred to by {}; change or delete these first, or in the same write",
            self.key,
            names.join(", ")
        )
    }
}

/// What a write would bring about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// What is wrong with the entries that are written.
    pub errors: Vec<Finding>,
    /// Entries that are not written, and would be left without what they need.
    pub dangling: Vec<Dangling>,
    /// What was probably not meant.
    pub warnings: Vec<Finding>,
}

impl Findings {
    /// Whether the write may be made.
    pub fn is_ok(&self) -> bool {
        self.errors.is_empty() && self.dangling.is_empty()
    }
}

/// Checks the changed entries, and those that refer to them, in the set as it
/// is after the write. A key of `changed` that is not in `after` was deleted.
pub fn check(after: &dyn View, changed: &[EntryKey]) -> Findings {
    let mut findings = Findings::default();
    let changed: BTreeSet<&EntryKey> = changed.iter().collect();
    for key in &changed {
        let mut notes = Notes::new((*key).clone());
        match key {
            EntryKey::Mesh => {}
            EntryKey::Service(key) => {
                if let Some(service) = after.service(key) {
                    service::check(service, &mut notes);
                }
            }
            EntryKey::Route(key) => {
                if let Some(route) = after.route(key) {
                    route::check(after, route, &mut notes);
                }
            }
            EntryKey::Intention {
                source,
                destination,
            } => {
                if let Some(intention) = after.intention(source, destination) {
                    intention::check(after, intention, &mut notes);
                }
            }
            EntryKey::Gateway(key) => {
                if let Some(gateway) = after.gateway(key) {
                    gateway::check(after, gateway, &mut notes);
                }
            }
        }
        notes.give(&mut findings.errors, &mut findings.warnings);
    }
    let services: BTreeSet<&Key> = changed
        .iter()
        .filter_map(|key| match key {
            EntryKey::Service(key) => Some(key),
            _ => None,
        })
        .collect();
    for (service, mut referrers) in dangling(after, &services) {
        referrers.retain(|referrer| !changed.contains(&referrer.by));
        if !referrers.is_empty() {
            findings.dangling.push(Dangling {
                key: EntryKey::Service(service),
                referrers,
            });
        }
    }
    findings
}

/// Whether the entry of `key` may be deleted from the set that stands, in which
/// it still is; if not, who refers to it.
pub fn check_delete(view: &dyn View, key: &EntryKey) -> Result<(), Vec<Referrer>> {
    let EntryKey::Service(service) = key else {
        return Ok(());
    };
    match dangling(&Without { view, key }, &BTreeSet::from([service])).remove(service) {
        None => Ok(()),
        Some(referrers) => Err(referrers),
    }
}

/// What an entry needs: a service's block, and of it perhaps a subset.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// The entry that is needed.
    pub key: EntryKey,
    /// The subset of it.
    pub subset: Option<String>,
}

/// What an entry refers to and cannot be without, each once. A destination of
/// a route without a subset needs no `service` block, and is none of these.
pub fn references(entry: &Entry) -> Vec<Reference> {
    let mut all = BTreeSet::new();
    match entry {
        Entry::Route(route) => {
            all.insert(Reference {
                key: EntryKey::Service(route.key()),
                subset: None,
            });
            for destination in route.rules.iter().flat_map(|rule| &rule.to) {
                if let Some(subset) = &destination.subset {
                    let service = destination.service.clone().unwrap_or(route.key());
                    all.insert(Reference {
                        key: EntryKey::Service(service),
                        subset: Some(subset.clone()),
                    });
                }
            }
        }
        Entry::Intention(intention) if needs_requests(intention) => {
            all.insert(Reference {
                key: EntryKey::Service(intention.destination.clone()),
                subset: None,
            });
        }
        Entry::Gateway(gateway) => {
            let listeners = gateway.ingress().into_iter().flat_map(|it| &it.listeners);
            let requests = listeners.filter(|it| it.protocol.is_http());
            for exposed in requests.flat_map(|it| &it.services) {
                if exposed.service.is_exact() {
                    all.insert(Reference {
                        key: EntryKey::Service(exposed.service.clone()),
                        subset: None,
                    });
                }
            }
        }
        Entry::Mesh(_) | Entry::Service(_) | Entry::Intention(_) => {}
    }
    all.into_iter().collect()
}

/// Who would be left without what it needs of these services, as they are in
/// this set or no more are; nothing refers to entries of another kind. One pass
/// over the set, however many services there are.
fn dangling(after: &dyn View, services: &BTreeSet<&Key>) -> BTreeMap<Key, Vec<Referrer>> {
    let mut all: BTreeMap<Key, Vec<Referrer>> = BTreeMap::new();
    if services.is_empty() {
        return all;
    }
    for route in after.routes() {
        let own = route.key();
        let to = route.rules.iter().flat_map(|rule| &rule.to);
        let mut named: BTreeSet<&Key> = to.filter_map(|to| to.service.as_ref()).collect();
        named.insert(&own);
        for service in named.intersection(services) {
            for message in route::missing(after, route, Some(service)) {
                let by = EntryKey::Route(own.clone());
                let referrers = all.entry((*service).clone()).or_default();
                referrers.push(Referrer { by, message });
            }
        }
    }
    for intention in after.intentions() {
        if services.contains(&intention.destination)
            && let Some(message) = intention::missing(after, intention)
        {
            let by = EntryKey::Intention {
                source: intention.source.clone(),
                destination: intention.destination.clone(),
            };
            let referrers = all.entry(intention.destination.clone()).or_default();
            referrers.push(Referrer { by, message });
        }
    }
    for gateway in after.gateways() {
        let listeners = gateway.ingress().into_iter().flat_map(|it| &it.listeners);
        let exposed = listeners.flat_map(|it| &it.services);
        let named: BTreeSet<&Key> = exposed.map(|it| &it.service).collect();
        for service in named.intersection(services) {
            for message in gateway::missing(after, gateway, Some(service)) {
                let by = EntryKey::Gateway(gateway.key());
                let referrers = all.entry((*service).clone()).or_default();
                referrers.push(Referrer { by, message });
            }
        }
    }
    all
}

/// The set without one entry.
struct Without<'a> {
    view: &'a dyn View,
    key: &'a EntryKey,
}

impl View for Without<'_> {
    fn mesh(&self) -> Option<&Mesh> {
        self.view.mesh().filter(|_| *self.key != EntryKey::Mesh)
    }

    fn service(&self, key: &Key) -> Option<&Service> {
        let gone = matches!(self.key, EntryKey::Service(gone) if gone == key);
        self.view.service(key).filter(|_| !gone)
    }

    fn route(&self, key: &Key) -> Option<&Route> {
        let gone = matches!(self.key, EntryKey::Route(gone) if gone == key);
        self.view.route(key).filter(|_| !gone)
    }

    fn intention(&self, source: &Key, destination: &Key) -> Option<&Intention> {
        self.view.intention(source, destination)
    }

    fn gateway(&self, key: &Key) -> Option<&Gateway> {
        self.view.gateway(key)
    }

    fn routes(&self) -> Box<dyn Iterator<Item = &Route> + '_> {
        self.view.routes()
    }

    fn intentions(&self) -> Box<dyn Iterator<Item = &Intention> + '_> {
        self.view.intentions()
    }

    fn gateways(&self) -> Box<dyn Iterator<Item = &Gateway> + '_> {
        self.view.gateways()
    }

    fn default_intention(&self) -> Action {
        self.view.default_intention()
    }
}

/// What is said of one entry.
struct Notes {
    key: EntryKey,
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
}

impl Notes {
    fn new(key: EntryKey) -> Self {
        Self {
            key,
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn error(&mut self, message: impl fmt::Display) {
        let finding = self.finding(message);
        self.errors.push(finding);
    }

    fn warn(&mut self, message: impl fmt::Display) {
        let finding = self.finding(message);
        self.warnings.push(finding);
    }

    fn finding(&self, message: impl fmt::Display) -> Finding {
        Finding {
            message: format!("{}: {message}", self.key),
            key: self.key.clone(),
        }
    }

    fn give(self, errors: &mut Vec<Finding>, warnings: &mut Vec<Finding>) {
        errors.extend(self.errors);
        warnings.extend(self.warnings);
    }
}

/// What the instances of a service speak; a service without a block has the
/// defaults.
fn protocol(view: &dyn View, key: &Key) -> Protocol {
    view.service(key)
        .map(|service| service.protocol)
        .unwrap_or_default()
}

/// The reason and the remedy for a service that has no requests.
fn speaks_tcp(view: &dyn View, key: &Key, what: &str) -> String {
    let why = match view.service(key) {
        Some(_) => "",
        None => " (it has no `service` block)",
    };
    format!(
        "service {key} speaks tcp{why}, and {what} need requests; set protocol to http, http2 or \
         grpc: service \"{key}\" {{ protocol = \"http\" }}"
    )
}

/// Whether an intention can only be enforced where requests are seen.
fn needs_requests(intention: &Intention) -> bool {
    matches!(intention.rule, IntentionRule::Permissions(_))
}

/// Whether every request matches.
fn matches_all(request: &RequestMatch) -> bool {
    let any_path = match &request.path {
        None => true,
        Some(PathMatch::Prefix(prefix)) => prefix == "/",
        Some(PathMatch::Regex(regex)) => matches!(regex.as_str(), ".*" | "/.*"),
        Some(PathMatch::Exact(_)) => false,
    };
    any_path && request.methods.is_empty() && request.headers.is_empty() && request.query.is_empty()
}

/// Paths are checked when they are read; an entry that came another way (a
/// snapshot, a program) is checked here.
fn check_paths<'a>(
    requests: impl IntoIterator<Item = &'a RequestMatch>,
    place: &str,
    notes: &mut Notes,
) {
    for request in requests {
        if let Some(path) = &request.path
            && let Err(error) = path.check()
        {
            notes.error(format!("{place}: {error}"));
        }
    }
}

#[cfg(test)]
mod tests;
