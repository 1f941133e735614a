//! The body of each fact, made once for all agents that ask for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use mesh_model::{NodeState, Route};
use mesh_policy::Feature;
use mesh_proto::fact::{
    Endpoint, MeshFact, Outside, RevocationsFact, RevokedLeaf, RootsFact, Topic, VirtualFact,
};
use mesh_state::{Revoked, State};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::ca::{read_state, spiffe_id};

/// Bodies that are kept; more are made again.
const KEPT: usize = 4096;

/// The body of a fact.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    /// SHA-256.
    pub(crate) checksum: Bytes,
    /// Features that its reader needs.
    pub(crate) needs: Vec<String>,
}

/// A body that was made.
#[derive(Debug)]
struct Made {
    /// The epoch and the topic's index that it is of.
    epoch: String,
    index: u64,
    body: Arc<Body>,
}

/// The newest body of each topic that was asked for lately.
#[derive(Debug, Default)]
pub(crate) struct Facts(Mutex<HashMap<Topic, Made>>);

impl Facts {
    /// The body of a topic in this state. `None`: it is not known yet, which is
    /// not the same as empty.
    ///
    /// An error means that nothing may be said: an empty answer is never made up.
    pub(crate) fn of(&self, state: &State, topic: &Topic) -> Result<Option<Arc<Body>>, String> {
        let (epoch, index) = (state.version().epoch, state.topic_index(&watched(topic)));
        if let Some(made) = self.lock().get(topic)
            && made.epoch == epoch
            && made.index == index
        {
            return Ok(Some(made.body.clone()));
        }
        let Some(body) = make(state, topic)? else {
            return Ok(None);
        };
        let body = Arc::new(body);
        let mut cache = self.lock();
        if cache.len() >= KEPT {
            cache.clear();
        }
        let made = Made {
            epoch,
            index,
            body: body.clone(),
        };
        cache.insert(topic.clone(), made);
        Ok(Some(body))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Topic, Made>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A topic as the state names it.
pub(crate) fn watched(topic: &Topic) -> mesh_state::Topic {
    match topic.clone() {
        Topic::Mesh => mesh_state::Topic::Mesh,
        Topic::Roots => mesh_state::Topic::Roots,
        Topic::Service(key) => mesh_state::Topic::Service(key),
        Topic::Route(key) => mesh_state::Topic::Route(key),
        Topic::Endpoints(key) => mesh_state::Topic::Endpoints(key),
        Topic::Intentions(key) => mesh_state::Topic::Intentions(key),
        Topic::Virtual(key) => mesh_state::Topic::Virtual(key),
        Topic::Gateway(key) => mesh_state::Topic::Gateway(key),
        Topic::Outside(key) => mesh_state::Topic::Outside(key),
        Topic::Services => mesh_state::Topic::Services,
        Topic::Revocations => mesh_state::Topic::Revocations,
        Topic::Address(address) => mesh_state::Topic::Address(address),
    }
}

fn make(state: &State, topic: &Topic) -> Result<Option<Body>, String> {
    let Some(cluster) = state.cluster() else {
        return Ok(None);
    };
    let cluster = &cluster.value;
    let mut needs = Vec::new();
    let bytes = match topic {
        Topic::Mesh => json(&MeshFact {
            trust_domain: cluster.trust_domain.clone(),
            datacenter: cluster.datacenter.clone(),
            default_intention: state.default_intention(),
            outbound: state.outbound(),
            tls: state.tls(),
        }),
        Topic::Roots => {
            let Some(row) = state.ca() else {
                return Ok(None);
            };
            let ca = read_state(&row.value)?;
            let active = ca.active_root().map(|root| root.id.clone());
            json(&RootsFact {
                active: active.unwrap_or_default(),
                reissue_seconds: u32::try_from(ca.reissue_seconds).unwrap_or(u32::MAX),
                trust_domain: ca.trust_domain,
                roots: ca.roots.into_iter().map(|root| root.pem).collect(),
            })
        }
        Topic::Service(key) => json(&state.service(key).map(|row| &row.value)),
        Topic::Route(key) => {
            let route = state.route(key).map(|row| &row.value);
            needs = route.map(needed_by).unwrap_or_default();
            json(&route)
        }
        Topic::Endpoints(key) => {
            // Whoever is called proves what it is: of a gateway that stands for the service
            // that is the gateway, which gets no leaf of a service that it is not.
            let mut endpoints = Vec::new();
            for one in state.endpoints(key) {
                let identity = spiffe_id(cluster, &one.instance.value.key())?.to_string();
                endpoints.extend(endpoint(&one, &identity));
            }
            json(&endpoints)
        }
        Topic::Gateway(key) => json(&state.gateway(key).map(|row| &row.value)),
        Topic::Outside(key) => {
            let instances = state.outside(key);
            json(&instances.iter().map(outside).collect::<Vec<_>>())
        }
        Topic::Services => {
            let all = state.service_list();
            json(&all.iter().map(|one| &one.key).collect::<Vec<_>>())
        }
        // Passed on unread, as intentions.
        Topic::Revocations => json(&revocations(state, cluster)?),
        Topic::Virtual(key) => json(&state.virtual_of(key).map(VirtualFact::from)),
        Topic::Address(address) => json(&state.service_at(*address)),
        // Passed on unread by the agent: the proxies say what they do not understand.
        Topic::Intentions(key) => {
            let rows = state.intentions_for(key);
            json(&rows.iter().map(|row| &row.value).collect::<Vec<_>>())
        }
    }?;
    Ok(Some(Body {
        checksum: Bytes::copy_from_slice(&Sha256::digest(&bytes)),
        bytes,
        needs,
    }))
}

fn revocations(state: &State, cluster: &mesh_state::Cluster) -> Result<RevocationsFact, String> {
    let mut fact = RevocationsFact::default();
    for row in state.revocations() {
        match &row.value.what {
            Revoked::Service(service) => {
                let identity = spiffe_id(cluster, service)?;
                fact.identities.push(identity.to_string());
            }
            Revoked::Serial(serial) => {
                let leaf = row.value.leaf.as_ref();
                fact.leaves.push(RevokedLeaf {
                    serial: serial.clone(),
                    key: leaf.map(|leaf| leaf.key.clone()).unwrap_or_default(),
                });
            }
        }
    }
    Ok(fact)
}

fn json(value: &impl Serialize) -> Result<Bytes, String> {
    let bytes = serde_json::to_vec(value);
    bytes.map(Bytes::from).map_err(|error| error.to_string())
}

fn endpoint(endpoint: &mesh_state::Endpoint, identity: &str) -> Option<Endpoint> {
    let instance = &endpoint.instance.value;
    let proxy = instance.proxy.as_ref()?;
    Some(Endpoint {
        instance: instance.id.clone(),
        node: instance.node.clone(),
        address: proxy.address.clone(),
        port: proxy.port,
        identity: identity.to_owned(),
        native: proxy.native,
        status: instance.status(),
        silent: endpoint.node.value.state != NodeState::Alive,
        weights: instance.weights,
        tags: instance.tags.clone(),
        meta: instance.meta.clone(),
    })
}

fn outside(endpoint: &mesh_state::Endpoint) -> Outside {
    let instance = &endpoint.instance.value;
    Outside {
        instance: instance.id.clone(),
        node: instance.node.clone(),
        address: instance.address.clone(),
        port: instance.port,
        status: instance.status(),
        silent: endpoint.node.value.state != NodeState::Alive,
        weights: instance.weights,
    }
}

/// The features that whoever follows this route must have.
fn needed_by(route: &Route) -> Vec<String> {
    let mut needs = Vec::new();
    let rules = || route.rules.iter();
    if rules().any(|rule| rule.retries.is_some()) {
        needs.push(Feature::Retries);
    }
    if rules().any(|rule| rule.matches.iter().any(|one| !one.query.is_empty())) {
        needs.push(Feature::Query);
    }
    needs
        .into_iter()
        .map(|need| need.as_str().to_owned())
        .collect()
}
