//! A config, compiled: checked as a whole, with everything that a request
//! needs looked up and parsed beforehand.
//!
//! Compiling touches nothing, so that a config that is wrong anywhere changes
//! nothing anywhere.

mod address;
mod cluster;
mod ingress;
mod listener;
mod rule;
mod sni;
mod terminating;
mod text;
mod transparent;

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_model::{CipherSuite, Key, KeyExchange};
use mesh_policy::Features;
use mesh_proto::config::ProxyConfig;
use mesh_tls::{Handshakes, SpiffeId, TrustDomain};

pub(crate) use address::{Address, Host};
pub(crate) use cluster::{Cluster, Endpoint};
pub(crate) use ingress::Ingress;
pub(crate) use listener::{Expose, Inbound, ListenKey, Outbound};
pub(crate) use rule::{RetryRule, Rule, TryOutcome};
pub(crate) use sni::OwnName;
pub(crate) use terminating::Terminating;
pub use text::ConfigText;
pub(crate) use transparent::Transparent;

use crate::ApplyError;

/// A config that can be run.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// What it was compiled from.
    pub(crate) text: ConfigText,
    pub(crate) service: Key,
    pub(crate) identity: SpiffeId,
    pub(crate) handshakes: Handshakes,
    pub(crate) inbound: Option<Arc<Inbound>>,
    pub(crate) outbound: Vec<Arc<Outbound>>,
    pub(crate) ingress: Vec<Arc<Ingress>>,
    pub(crate) terminating: Option<Terminating>,
    pub(crate) transparent: Option<Transparent>,
    pub(crate) expose: Vec<Arc<Expose>>,
    pub(crate) clusters: BTreeMap<String, Arc<Cluster>>,
}

impl Compiled {
    pub(crate) fn new(form: ProxyConfig, features: &Features) -> Result<Self, ApplyError> {
        let identity: SpiffeId = parse("identity", &form.identity)?;
        let domain: TrustDomain = parse("trust_domain", &form.trust_domain)?;
        if identity.trust_domain() != domain.as_str() {
            return Err(invalid(
                "identity",
                format!("{identity} is not of the trust domain {domain}"),
            ));
        }
        let (suites, exchanges) = (form.tls.suites().iter(), form.tls.exchanges().iter());
        let suites = suites.map(CipherSuite::as_str);
        let handshakes = Handshakes::new(suites, exchanges.map(KeyExchange::as_str))
            .map_err(|error| invalid("tls", error.to_string()))?;
        let clusters = form
            .clusters
            .iter()
            .map(|(name, cluster)| {
                Ok((
                    name.clone(),
                    Arc::new(Cluster::compile(name, cluster, &domain)?),
                ))
            })
            .collect::<Result<BTreeMap<_, _>, ApplyError>>()?;
        let inbound = match &form.inbound {
            Some(inbound) => Some(Arc::new(Inbound::compile(
                inbound,
                &form.service,
                &identity,
            )?)),
            None => None,
        };
        let outbound = form
            .outbound
            .iter()
            .map(|one| Ok(Arc::new(Outbound::compile(one, &clusters, features)?)))
            .collect::<Result<Vec<_>, ApplyError>>()?;
        let ingress = form.ingress.iter();
        let ingress = ingress
            .map(|one| Ok(Arc::new(Ingress::compile(one, features)?)))
            .collect::<Result<Vec<_>, ApplyError>>()?;
        ingress::check(&ingress, &outbound)?;
        let terminating = match &form.terminating {
            Some(terminating) => Some(Terminating::compile(terminating, &identity, features)?),
            None => None,
        };
        let transparent = match &form.transparent {
            Some(transparent) => Some(Transparent::compile(transparent, &identity, features)?),
            None => None,
        };
        transparent::check(transparent.is_some(), &outbound)?;
        let expose = Expose::compile(&form.expose, form.inbound.as_ref())?;
        let compiled = Self {
            text: ConfigText::of(&form)?,
            service: form.service,
            identity,
            handshakes,
            inbound,
            outbound,
            ingress,
            terminating,
            transparent,
            expose,
            clusters,
        };
        compiled.check_listeners()?;
        Ok(compiled)
    }

    /// Every address that it listens at, or takes redirected calls of.
    pub(crate) fn listen_keys(&self) -> impl Iterator<Item = &ListenKey> {
        (self.inbound.iter().map(|one| &one.key))
            .chain(self.outbound.iter().map(|one| &one.key))
            .chain(self.expose.iter().map(|one| &one.key))
            .chain(self.ingress.iter().flat_map(|one| &one.keys))
            .chain(self.terminating.iter().flat_map(|one| &one.keys))
            .chain(self.outside().map(|one| &one.key))
            .chain(self.transparent.iter().flat_map(|one| &one.keys))
    }

    /// The services outside that a terminating gateway stands for.
    pub(crate) fn outside(&self) -> impl Iterator<Item = &Arc<Inbound>> {
        self.terminating.iter().flat_map(|one| &one.services)
    }

    fn check_listeners(&self) -> Result<(), ApplyError> {
        let mut seen = std::collections::BTreeSet::new();
        for key in self.listen_keys() {
            if !seen.insert(key) {
                return Err(invalid(&key.to_string(), "two listeners have this address"));
            }
        }
        Ok(())
    }
}

pub(crate) fn invalid(place: &str, reason: impl Into<String>) -> ApplyError {
    ApplyError::Invalid {
        place: place.to_owned(),
        reason: reason.into(),
    }
}

pub(crate) fn parse<T>(place: &str, text: &str) -> Result<T, ApplyError>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|error: T::Err| invalid(place, error.to_string()))
}

/// A duration where zero means that there is no limit.
pub(crate) fn limit(duration: mesh_model::Duration) -> Option<std::time::Duration> {
    let duration = std::time::Duration::from(duration);
    (!duration.is_zero()).then_some(duration)
}
