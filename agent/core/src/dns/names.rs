//! The mesh's own names at the agent: a service's instances, from the catalog.
//!
//! A server answers, as it answers a read through the agent. What it said is good for a moment, so
//! that many questions for one name are one read; where no server answers, what was said last is
//! the answer, since a name that cannot be looked up stops what an old address may not.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_consul::catalog::{Instance, Part};
use mesh_dns::{Addresses, Host, INTERNET, Listed, Question, Rcode, kind, listed, name_of};
use mesh_model::Key;
use mesh_proto::fact::VirtualFact;
use rand::seq::SliceRandom;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::uplink::{Membership, Reader};

/// So long what a server said is not asked for again.
const FRESH: Duration = Duration::from_secs(1);
/// So long it is remembered for a time without a server.
const KEPT: Duration = Duration::from_secs(3600);
/// Services that are remembered.
const MOST: usize = 1024;
/// How long a question waits for a server.
const LIMIT: Duration = Duration::from_secs(4);

/// Reads of the servers' API.
pub(crate) trait Source: Send + Sync {
    /// The body of the answer to a GET; `None`: there is none now.
    fn read(&self, target: String) -> Pin<Box<dyn Future<Output = Option<Vec<u8>>> + Send + '_>>;
}

impl Source for Reader {
    fn read(&self, target: String) -> Pin<Box<dyn Future<Output = Option<Vec<u8>>> + Send + '_>> {
        Box::pin(async move {
            match Self::read(self, target, None).await {
                Ok(answer) if answer.status == 200 => Some(answer.body),
                Ok(answer) if answer.status == 404 => Some(b"null".to_vec()),
                Ok(answer) => {
                    tracing::debug!(status = answer.status, "a name is not looked up");
                    None
                }
                Err(error) => {
                    tracing::debug!(%error, "a name is not looked up");
                    None
                }
            }
        })
    }
}

/// Answers for the mesh's names.
pub(crate) struct Names {
    source: Arc<dyn Source>,
    membership: Arc<Membership>,
    known: Mutex<HashMap<String, Known>>,
}

struct Known {
    read: Instant,
    body: Arc<Vec<u8>>,
}

/// A service, as far as its virtual address is.
#[derive(Deserialize)]
struct Service {
    #[serde(rename = "virtual")]
    addresses: Option<VirtualFact>,
}

impl Names {
    pub(crate) fn new(source: Arc<dyn Source>, membership: Arc<Membership>) -> Self {
        Self {
            source,
            membership,
            known: Mutex::default(),
        }
    }

    /// The answer to a question for one of the mesh's names, as long as may be; `None`: the name is
    /// none of them.
    pub(crate) async fn answer(&self, question: &Question, limit: usize) -> Option<Vec<u8>> {
        let dc = self.membership.datacenter();
        let dc = dc.as_deref().unwrap_or("dc1");
        let meaning = listed(question.name(), dc);
        if meaning == Listed::Other {
            return None;
        }
        if question.class() != INTERNET {
            return Some(question.failure(Rcode::Refused));
        }
        Some(match meaning {
            Listed::Instances { service, tag } => {
                let all = self.instances(&service).await;
                let tags: Vec<String> = tag.into_iter().collect();
                let part = |one: &Instance| Some(Part::Application).filter(|_| one.has_tags(&tags));
                listing(question, all, part, dc, limit)
            }
            Listed::InMesh(service) => {
                let all = self.instances(&service).await;
                // A native one without a port calls, and is not called.
                let is_called = |one: &Instance, part: &Part| one.place(*part).1 != 0;
                let part = |one: &Instance| one.in_mesh().filter(|part| is_called(one, part));
                listing(question, all, part, dc, limit)
            }
            Listed::Virtual(service) => match self.service(&service).await {
                Some(Some(address)) => question.addresses(&Addresses {
                    ip4: Some(address.ip4),
                    ip6: Some(address.ip6),
                }),
                Some(None) => question.nothing(Rcode::NxDomain),
                None => question.failure(Rcode::ServFail),
            },
            Listed::Address(address) => question.addresses(&match address {
                IpAddr::V4(ip) => Addresses {
                    ip4: Some(ip),
                    ip6: None,
                },
                IpAddr::V6(ip) => Addresses {
                    ip4: None,
                    ip6: Some(ip),
                },
            }),
            Listed::Zone if question.kind() == kind::SOA => question.zone(),
            Listed::Zone | Listed::Between => question.nothing(Rcode::NoError),
            Listed::Absent | Listed::Other => question.nothing(Rcode::NxDomain),
        })
    }

    /// `None`: it is not known.
    async fn instances(&self, service: &Key) -> Option<Vec<Instance>> {
        let Key { namespace, name } = service;
        self.read(format!("/v1/catalog/services/{namespace}%2F{name}?stale"))
            .await
    }

    /// Its virtual address, if it has one; `None`: it is not known.
    async fn service(&self, service: &Key) -> Option<Option<VirtualFact>> {
        let Key { namespace, name } = service;
        let target = format!("/v1/services/{namespace}%2F{name}?stale");
        let found: Option<Service> = self.read(target).await?;
        Some(found.and_then(|it| it.addresses))
    }

    async fn read<T: DeserializeOwned>(&self, target: String) -> Option<T> {
        let now = Instant::now();
        let held = self
            .known()
            .get(&target)
            .map(|it| (it.read, it.body.clone()));
        if let Some((read, body)) = &held
            && now < *read + FRESH
        {
            return serde_json::from_slice(body).ok();
        }
        let answer = tokio::time::timeout(LIMIT, self.source.read(target.clone())).await;
        let Ok(Some(body)) = answer else {
            let (_, body) = held?;
            return serde_json::from_slice(&body).ok();
        };
        let read = serde_json::from_slice(&body).ok()?;
        let mut known = self.known();
        if known.len() >= MOST {
            known.retain(|_, it| now < it.read + FRESH);
        }
        known.retain(|_, it| now < it.read + KEPT);
        if known.len() < MOST {
            let body = Arc::new(body);
            known.insert(target, Known { read: now, body });
        }
        Some(read)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        // Each change is one step, so a poisoned one is as good.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

/// Healthy instances, each time in another order; there is no such name where there is none.
fn listing(
    question: &Question,
    all: Option<Vec<Instance>>,
    part: impl Fn(&Instance) -> Option<Part>,
    dc: &str,
    limit: usize,
) -> Vec<u8> {
    let Some(all) = all else {
        return question.failure(Rcode::ServFail);
    };
    let host = |one: &Instance| {
        let part = part(one)?;
        let weight = one.weight(part)?;
        let (address, port) = one.place(part);
        // A name instead of an address would have to be looked up for the caller.
        let address = address.parse().ok()?;
        Some(Host {
            address,
            port,
            weight: u16::try_from(weight).unwrap_or(u16::MAX),
            target: name_of(address, dc)?,
        })
    };
    let mut hosts: Vec<Host> = all.iter().filter_map(host).collect();
    if hosts.is_empty() {
        return question.nothing(Rcode::NxDomain);
    }
    hosts.shuffle(&mut rand::rng());
    question.instances(&hosts, limit)
}

#[cfg(test)]
pub(super) mod tests;
