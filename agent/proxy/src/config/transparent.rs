//! How redirected calls are taken.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use mesh_policy::{Feature, Features};
use mesh_proto::config as form;
use mesh_tls::SpiffeId;

use super::{ListenKey, Outbound, invalid};
use crate::ApplyError;
use crate::transparent::Answers;

/// How redirected calls are taken.
#[derive(Debug)]
pub(crate) struct Transparent {
    /// IPv4, and IPv6, which is bound where there is any.
    pub(crate) keys: [ListenKey; 2],
    pub(crate) dns_port: u16,
    pub(crate) mesh_only: bool,
    pub(crate) answers: Arc<Answers>,
}

impl Transparent {
    pub(super) fn compile(
        form: &form::Transparent,
        identity: &SpiffeId,
        features: &Features,
    ) -> Result<Self, ApplyError> {
        const PLACE: &str = "transparent";
        if !features.has(Feature::Transparent) {
            return Err(ApplyError::Feature {
                place: PLACE.to_owned(),
                feature: Feature::Transparent.to_string(),
            });
        }
        if form.outbound_port == form.dns_port && form.dns_port != 0 {
            let reason = format!("outbound_port and dns_port are both {}", form.dns_port);
            return Err(invalid(PLACE, reason));
        }
        let mut names = HashMap::new();
        for one in &form.names {
            let place = || format!("{PLACE}: name {}", one.service);
            if let Err(error) = one.service.check() {
                return Err(invalid(&place(), error.to_string()));
            }
            if names.insert(one.service.clone(), one.address).is_some() {
                return Err(invalid(&place(), "it is answered twice"));
            }
        }
        // One may have an upstream all the same, when the agent heard of the two
        // at different times: then it is there.
        let absent: HashSet<_> = form.absent.iter().copied().collect();
        let key = |ip: IpAddr| {
            let address = SocketAddr::new(ip, form.outbound_port);
            ListenKey::tcp(address, format!("redirected {ip}"))
        };
        Ok(Self {
            keys: [
                key(Ipv4Addr::LOCALHOST.into()),
                key(Ipv6Addr::LOCALHOST.into()),
            ],
            dns_port: form.dns_port,
            mesh_only: form.mesh_only,
            answers: Arc::new(Answers {
                dc: identity.dc().to_owned(),
                names,
                absent,
            }),
        })
    }

    /// Whether nothing may listen there, since the host may not have the
    /// address.
    pub(crate) fn is_optional(&self, key: &ListenKey) -> bool {
        let [_, ip6] = &self.keys;
        key == ip6
    }
}

/// Upstreams at virtual addresses are called where redirected calls are taken.
pub(super) fn check(transparent: bool, outbound: &[Arc<Outbound>]) -> Result<(), ApplyError> {
    if transparent {
        return Ok(());
    }
    let at = outbound
        .iter()
        .find(|one| matches!(one.key, ListenKey::Virtual(_)));
    match at {
        None => Ok(()),
        Some(one) => Err(invalid(
            &format!("upstream {}", one.service),
            "it is at a virtual address, and the config is not transparent",
        )),
    }
}
