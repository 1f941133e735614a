//! What a transparent proxy is wired to besides its upstreams: the services
//! that its application asked for, by name or by virtual address.

use std::collections::{BTreeMap, BTreeSet};

use mesh_model::{Key, Outbound as Outside, VirtualAddress};
use mesh_proto::config::{Bind, NameAnswer, Outbound, ProxyConfig, Transparent};
use mesh_proto::fact::{MeshFact, Topic, VirtualFact};

use crate::called;
use crate::clusters::Clusters;
use crate::wire::Input;

/// Where the kernel sends an application's connections. The CNI plugin writes
/// the rules before the sidecar knows its agent, so it is the same everywhere.
pub const OUTBOUND_PORT: u16 = 15_001;
/// Where the kernel sends its DNS.
pub const DNS_PORT: u16 = 15_053;

/// What a transparent proxy was asked for by its application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// By name.
    pub services: BTreeSet<Key>,
    /// By address.
    pub addresses: BTreeSet<VirtualAddress>,
}

impl Wants {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.services.len() + self.addresses.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.addresses.is_empty()
    }
}

/// The topics of what was asked for. All of a name's at once, before it is
/// known whether there is such a service: the application waits, and so the
/// answer takes one turn to the servers and not two.
pub(crate) fn asked(input: &Input<'_>) -> BTreeSet<Topic> {
    let (facts, wants) = (input.facts, input.wants);
    let mut topics = BTreeSet::new();
    for key in &wants.services {
        topics.insert(Topic::Virtual(key.clone()));
        if facts.virtual_of(key) != Some(None) {
            topics.extend(called::topics(facts, key));
        }
    }
    for address in &wants.addresses {
        topics.insert(Topic::Address(*address));
        if let Some(Some(key)) = facts.service_at(*address) {
            topics.extend(called::topics(facts, key));
        }
    }
    topics
}

/// The answers so far, and the calls to what has one. A name is answered only
/// together with its outbound: an address that leads nowhere yet is no answer.
pub(crate) fn wire(
    input: &Input<'_>,
    mesh: &MeshFact,
    clusters: &mut Clusters<'_>,
) -> (Transparent, Vec<Outbound>) {
    let facts = input.facts;
    let mut names: BTreeMap<Key, Option<VirtualAddress>> = BTreeMap::new();
    let mut at: BTreeMap<VirtualAddress, Key> = BTreeMap::new();
    let mut absent = BTreeSet::new();
    let declared = input.declared().map(|(_, key)| key);
    for key in declared.chain(input.wants.services.iter().cloned()) {
        match facts.virtual_of(&key) {
            None => {}
            Some(None) => drop(names.insert(key, None)),
            Some(Some(fact)) => {
                if let Some(address) = address_of(fact) {
                    at.insert(address, key.clone());
                    names.insert(key, Some(address));
                }
            }
        }
    }
    for address in &input.wants.addresses {
        match facts.service_at(*address) {
            None => {}
            Some(None) => drop(absent.insert(*address)),
            Some(Some(key)) => drop(at.entry(*address).or_insert_with(|| key.clone())),
        }
    }
    let mut made = BTreeMap::new();
    let mut late = Vec::new();
    for (address, key) in at {
        if !called::topics(facts, &key).iter().all(|it| facts.has(it)) {
            late.push((address, key));
            continue;
        }
        let bind = Bind::Virtual { address };
        if let Some(outbound) = called::outbound(facts, &key, bind, clusters) {
            made.insert(address, outbound);
        }
    }
    // After those that are made anew, whose clusters come first.
    for (address, key) in late {
        if let Some(outbound) = input
            .before
            .and_then(|before| kept(before, address, &key, clusters))
        {
            made.insert(address, outbound);
        }
    }
    names.retain(|_, address| address.is_none_or(|address| made.contains_key(&address)));
    absent.retain(|address| !made.contains_key(address));
    let transparent = Transparent {
        outbound_port: OUTBOUND_PORT,
        dns_port: DNS_PORT,
        mesh_only: mesh.outbound == Outside::MeshOnly,
        names: names
            .into_iter()
            .map(|(service, address)| NameAnswer { service, address })
            .collect(),
        absent: absent.into_iter().collect(),
    };
    (transparent, made.into_values().collect())
}

/// The address, where both forms are of the same one.
fn address_of(fact: &VirtualFact) -> Option<VirtualAddress> {
    let address = VirtualAddress::of(fact.ip4.into())?;
    (VirtualFact::from(address) == *fact).then_some(address)
}

/// Why an answer is not usable, if it is not.
pub(crate) fn mistake(fact: &VirtualFact) -> Option<String> {
    let VirtualFact { ip4, ip6 } = fact;
    address_of(fact)
        .is_none()
        .then(|| format!("{ip4} and {ip6} are not the two forms of one virtual address"))
}

/// The calls to an address as they were, with their clusters.
fn kept(
    before: &ProxyConfig,
    address: VirtualAddress,
    key: &Key,
    clusters: &mut Clusters<'_>,
) -> Option<Outbound> {
    let bind = Bind::Virtual { address };
    let mut outbounds = before.outbound.iter();
    let outbound = outbounds.find(|it| it.bind == bind && it.service == *key)?;
    let to = outbound.rules.iter().flat_map(|rule| &rule.to);
    let names = to.map(|it| &it.cluster).chain([&outbound.cluster]);
    for name in names {
        clusters.keep(name, before.clusters.get(name)?);
    }
    Some(outbound.clone())
}
