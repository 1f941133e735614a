//! All entries of a service to what they mean together.

use std::collections::BTreeMap;

use super::{ConfigEntry, Fragment};
use crate::{Entry, Gateway, Key, Route, Rule, Service};

/// The name of the rule that a splitter becomes.
pub(super) const SPLITTER: &str = "splitter";

/// The entries of our model that these of Consul's are, in the order of their
/// keys. It is a function of the set: the order does not matter, and of two of
/// the same kind and name the last counts.
pub fn compile(entries: &[ConfigEntry]) -> Vec<Entry> {
    let mut services: BTreeMap<Key, Service> = BTreeMap::new();
    let mut routers: BTreeMap<Key, &[Rule]> = BTreeMap::new();
    let mut splitters = BTreeMap::new();
    let mut intentions = BTreeMap::new();
    let mut gateways = BTreeMap::new();
    for entry in entries {
        let key = entry.key();
        match &entry.fragment {
            Fragment::Defaults { protocol, meta } => {
                let service = services.entry(key).or_insert_with_key(Service::named);
                service.protocol = *protocol;
                service.meta.clone_from(meta);
            }
            Fragment::Resolver {
                connect_timeout,
                request_timeout,
                default_subset,
                subsets,
                load_balancer,
            } => {
                let service = services.entry(key).or_insert_with_key(Service::named);
                service.connect_timeout = *connect_timeout;
                service.request_timeout = *request_timeout;
                service.default_subset.clone_from(default_subset);
                service.subsets.clone_from(subsets);
                service.load_balancer = load_balancer.unwrap_or_default();
            }
            Fragment::Router(rules) => {
                routers.insert(key, rules);
            }
            Fragment::Splitter(splits) => {
                splitters.insert(key, splits);
            }
            Fragment::Gateway(edge) => {
                let gateway = Gateway {
                    namespace: key.namespace.clone(),
                    name: key.name.clone(),
                    edge: edge.clone(),
                    meta: BTreeMap::new(),
                };
                gateways.insert(key, gateway);
            }
            Fragment::Intentions(all) => {
                for intention in all {
                    let key = (intention.destination.clone(), intention.source.clone());
                    intentions.insert(key, intention.clone());
                }
            }
        }
    }
    let mut routes: BTreeMap<Key, Vec<Rule>> = BTreeMap::new();
    for (key, rules) in routers {
        // A router's route to the service as a whole goes through its splitter.
        let through = |rule: &Rule| {
            let mut rule = rule.clone();
            if let (true, Some(splits)) = (rule.to.is_empty(), splitters.get(&key)) {
                rule.to.clone_from(splits);
            }
            rule
        };
        routes.insert(key.clone(), rules.iter().map(through).collect());
    }
    for (key, splits) in splitters {
        routes.entry(key).or_default().push(Rule {
            name: SPLITTER.to_owned(),
            to: splits.clone(),
            ..Rule::default()
        });
    }
    let routes = routes.into_iter().map(|(key, rules)| Route {
        namespace: key.namespace,
        name: key.name,
        rules,
    });
    let services = services.into_values().map(Entry::Service);
    services
        .chain(routes.map(Entry::Route))
        .chain(intentions.into_values().map(Entry::Intention))
        .chain(gateways.into_values().map(Entry::Gateway))
        .collect()
}
