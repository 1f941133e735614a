//! Instances to choose from.

use std::sync::Arc;
use std::time::Duration;

use mesh_model::{Key, LoadBalancer, OutlierDetection, Protocol};
use mesh_proto::config as form;
use mesh_tls::{SpiffeId, TrustDomain};
use rustls_pki_types::ServerName;

use super::{Address, invalid, parse};
use crate::ApplyError;

/// Instances to choose from.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) name: Arc<str>,
    pub(crate) service: Key,
    pub(crate) sni: ServerName<'static>,
    pub(crate) protocol: Protocol,
    pub(crate) load_balancer: LoadBalancer,
    pub(crate) connect_timeout: Duration,
    pub(crate) outlier: Option<OutlierDetection>,
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
}

/// One instance.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) id: Arc<str>,
    pub(crate) address: Address,
    pub(crate) identity: SpiffeId,
    pub(crate) weight: u32,
    pub(crate) health: form::Health,
}

impl Cluster {
    pub(super) fn compile(
        name: &str,
        form: &form::Cluster,
        domain: &TrustDomain,
    ) -> Result<Self, ApplyError> {
        let place = format!("cluster {name}");
        let sni = ServerName::try_from(form.sni.clone())
            .map_err(|_| invalid(&place, format!("sni {:?} is not a name", form.sni)))?;
        let mut ids = std::collections::BTreeSet::new();
        let endpoints = form
            .endpoints
            .iter()
            .map(|one| {
                let place = format!("{place}: endpoint {}", one.id);
                let identity: SpiffeId = parse(&place, &one.identity)?;
                if identity.trust_domain() != domain.as_str() {
                    return Err(invalid(
                        &place,
                        format!("{identity} is not of the trust domain {domain}"),
                    ));
                }
                if !ids.insert(one.id.as_str()) {
                    return Err(invalid(&place, "two endpoints have this id"));
                }
                Ok(Arc::new(Endpoint {
                    id: Arc::from(one.id.as_str()),
                    address: Address {
                        host: parse(&place, &one.address)?,
                        port: one.port,
                    },
                    identity,
                    weight: one.weight,
                    health: one.health,
                }))
            })
            .collect::<Result<Vec<_>, ApplyError>>()?;
        Ok(Self {
            name: Arc::from(name),
            service: form.service.clone(),
            sni,
            protocol: form.protocol,
            load_balancer: form.load_balancer,
            connect_timeout: form.connect_timeout.into(),
            outlier: form.outlier_detection.clone(),
            endpoints,
        })
    }
}
