//! The model's own validation, before anything is written.
//!
//! A row by itself is checked here; what it needs of others (that a route's service speaks HTTP,
//! that a subset is defined) may be written in the same apply, and only the servers can tell. So
//! the set in which the row is checked has whatever it refers to.

use std::collections::BTreeMap;

use mesh_model::validate::{self, View};
use mesh_model::{EntryKey, Gateway, Intention, Key, Mesh, Protocol, Route, Service, Subset};
use mesh_tfprotocol::{Diagnostic, Diagnostics, Value};

use super::{Entry, said};

/// In place of a key that is not known yet.
const ANY_NAME: &str = "x";

impl Entry {
    /// What the model says of it: errors and warnings. Nothing where it is not known enough.
    pub(super) fn check(&self, config: &Value) -> (Diagnostics, Diagnostics) {
        let mut config = config.clone();
        for key in self.schema_keys() {
            if !config.get(key).is_known() {
                config.set(*key, ANY_NAME);
            }
        }
        if self.noun.has_namespace() && config.get("namespace").is_null() {
            config.set("namespace", self.mesh.names.namespace());
        }
        let mut warnings = Diagnostics::new();
        // What an attribute's own check refuses was said of it, nearer to the place.
        let schema = mesh_tfprotocol::Resource::schema(self);
        if !config.is_known() || schema.validate(&config, true).has_errors() {
            return Default::default();
        }
        let json = serde_json::json!({ "kind": self.noun.kind(), "value": self.json(&schema.with_defaults(&config)) });
        let entry: mesh_model::Entry = match serde_json::from_value(json) {
            Ok(entry) => entry,
            Err(error) => {
                let (summary, text) = (format!("Invalid {}", self.noun.kind()), error.to_string());
                return (
                    Diagnostic::error(summary, format!("{text}.")).into(),
                    warnings,
                );
            }
        };
        let key = entry.key();
        let findings = validate::check(&Alone::of(entry), std::slice::from_ref(&key));
        let summary = format!("Invalid {}", self.noun.kind());
        let title = key.to_string();
        let errors = findings.errors.iter().map(|finding| {
            let (path, text) = said::place(&title, &finding.message, &config);
            Diagnostic::error(&summary, format!("{text}.")).at(path)
        });
        warnings.extend(findings.warnings.iter().map(|finding| {
            let (path, text) = said::place(&title, &finding.message, &config);
            Diagnostic::warning(format!("Probably not meant: {title}"), format!("{text}.")).at(path)
        }));
        (errors.collect(), warnings)
    }

    fn schema_keys(&self) -> &'static [&'static str] {
        match self.noun.has_namespace() {
            true => &["name", "namespace"],
            false => self.noun.identity(),
        }
    }
}

/// A set of one row and all that it refers to.
struct Alone {
    entry: mesh_model::Entry,
    services: BTreeMap<Key, Service>,
}

impl Alone {
    fn of(entry: mesh_model::Entry) -> Self {
        let mut services = BTreeMap::new();
        for reference in validate::references(&entry) {
            if let EntryKey::Service(key) = reference.key {
                let service = services.entry(key.clone()).or_insert_with(|| Service {
                    protocol: Protocol::Grpc,
                    ..Service::named(&key)
                });
                if let Some(subset) = reference.subset {
                    service.subsets.insert(subset, Subset::default());
                }
            }
        }
        if let mesh_model::Entry::Service(service) = &entry {
            services.insert(service.key(), service.clone());
        }
        Self { entry, services }
    }
}

impl View for Alone {
    fn mesh(&self) -> Option<&Mesh> {
        match &self.entry {
            mesh_model::Entry::Mesh(mesh) => Some(mesh),
            _ => None,
        }
    }

    fn service(&self, key: &Key) -> Option<&Service> {
        self.services.get(key)
    }

    fn route(&self, key: &Key) -> Option<&Route> {
        self.routes().find(|route| route.key() == *key)
    }

    fn intention(&self, source: &Key, destination: &Key) -> Option<&Intention> {
        let mut all = self.intentions();
        all.find(|one| one.source == *source && one.destination == *destination)
    }

    fn gateway(&self, _: &Key) -> Option<&Gateway> {
        None
    }

    fn routes(&self) -> Box<dyn Iterator<Item = &Route> + '_> {
        Box::new(match &self.entry {
            mesh_model::Entry::Route(route) => Some(route).into_iter(),
            _ => None.into_iter(),
        })
    }

    fn intentions(&self) -> Box<dyn Iterator<Item = &Intention> + '_> {
        Box::new(match &self.entry {
            mesh_model::Entry::Intention(intention) => Some(intention).into_iter(),
            _ => None.into_iter(),
        })
    }

    fn gateways(&self) -> Box<dyn Iterator<Item = &Gateway> + '_> {
        Box::new(std::iter::empty())
    }
}
