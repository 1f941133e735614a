//! A service that the application calls, however it comes to it.

use std::collections::BTreeSet;

use mesh_model::{Key, Service};
use mesh_proto::config::{Bind, Outbound, Rule, WeightedCluster};
use mesh_proto::fact::Topic;

use crate::FactStore;
use crate::clusters::Clusters;

/// What its wiring hangs on: its row, route and instances; of one that the
/// route leads to, the row and instances (routes do not chain: the rule that
/// matched decides).
pub(crate) fn topics(facts: &FactStore, called: &Key) -> BTreeSet<Topic> {
    let mut topics = BTreeSet::from([
        Topic::Service(called.clone()),
        Topic::Route(called.clone()),
        Topic::Endpoints(called.clone()),
    ]);
    if let Some(Some(route)) = facts.route(called) {
        for to in route.rules.iter().flat_map(|rule| &rule.to) {
            let key = to.service.clone().unwrap_or_else(|| called.clone());
            topics.insert(Topic::Service(key.clone()));
            topics.insert(Topic::Endpoints(key));
        }
    }
    topics
}

/// Wires the calls to it; `None` while its row is not known.
pub(crate) fn outbound(
    facts: &FactStore,
    called: &Key,
    bind: Bind,
    clusters: &mut Clusters<'_>,
) -> Option<Outbound> {
    let service = facts.service(called)?;
    Some(Outbound {
        service: called.clone(),
        bind,
        protocol: service.protocol,
        rules: rules(facts, &service, clusters),
        cluster: clusters.name_of(&service, None),
        timeout: service.request_timeout(),
    })
}

fn rules(facts: &FactStore, service: &Service, clusters: &mut Clusters<'_>) -> Vec<Rule> {
    // Requests cannot be seen in a byte stream; the servers refuse such a
    // route, but the protocol may have changed under it.
    let route = facts.route(&service.key()).flatten();
    let Some(route) = route.filter(|_| service.protocol.is_http()) else {
        return Vec::new();
    };
    route
        .rules
        .iter()
        .map(|rule| Rule {
            name: rule.name.clone(),
            matches: rule.matches.clone(),
            to: destinations(facts, service, rule, clusters),
            timeout: rule.timeout.unwrap_or_else(|| service.request_timeout()),
            retries: rule.retries.clone(),
        })
        .collect()
}

fn destinations(
    facts: &FactStore,
    service: &Service,
    rule: &mesh_model::Rule,
    clusters: &mut Clusters<'_>,
) -> Vec<WeightedCluster> {
    if rule.to.is_empty() {
        return vec![WeightedCluster {
            cluster: clusters.name_of(service, None),
            weight: 1,
        }];
    }
    rule.to
        .iter()
        .filter_map(|to| {
            let other = to.service.as_ref().filter(|key| **key != service.key());
            let target = match other {
                Some(key) => facts.service(key)?,
                None => service.clone(),
            };
            Some(WeightedCluster {
                cluster: clusters.name_of(&target, to.subset.as_deref()),
                weight: to.weight.hundredths(),
            })
        })
        .collect()
}
