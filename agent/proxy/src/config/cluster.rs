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
    pub(crate) native: bool,
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
        let mut endpoints = Vec::with_capacity(form.endpoints.len());
        for one in &form.endpoints {
            let place = format!("{place}: endpoint {}", one.id);
            if !ids.insert(one.id.as_str()) {
                return Err(invalid(&place, "two endpoints have this id"));
            }
            match Endpoint::compile(&place, one, domain) {
                Ok(endpoint) => endpoints.push(Arc::new(endpoint)),
                // It cannot be called, here or elsewhere. The others can.
                Err(error) => tracing::error!(%error, "an instance is left out"),
            }
        }
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

impl Endpoint {
    fn compile(
        place: &str,
        form: &form::Endpoint,
        domain: &TrustDomain,
    ) -> Result<Self, ApplyError> {
        let identity: SpiffeId = parse(place, &form.identity)?;
        if identity.trust_domain() != domain.as_str() {
            let reason = format!("{identity} is not of the trust domain {domain}");
            return Err(invalid(place, reason));
        }
        if form.port == 0 {
            return Err(invalid(place, "port 0 cannot be connected to"));
        }
        Ok(Self {
            id: Arc::from(form.id.as_str()),
            address: Address {
                host: parse(place, &form.address)?,
                port: form.port,
            },
            identity,
            native: form.native,
            weight: form.weight,
            health: form.health,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_endpoint_that_cannot_be_called_leaves_the_others() {
        let endpoint = |id: &str, address: &str, port: u16, domain: &str| {
            serde_json::json!({"id": id, "address": address, "port": port, "weight": 1, "health": "healthy",
                "identity": format!("spiffe://{domain}/ns/default/dc/dc1/svc/api")})
        };
        let form = serde_json::json!({
            "service": {"namespace": "default", "name": "api"},
            "sni": "api.default.dc1.internal.test.mesh", "protocol": "http",
            "load_balancer": "round_robin", "connect_timeout": "5s",
            "endpoints": [
                endpoint("n/host", "no such host!", 1, "test.mesh"),
                endpoint("n/port", "10.0.0.1", 0, "test.mesh"),
                endpoint("n/domain", "10.0.0.1", 1, "other.mesh"),
                endpoint("n/good", "10.0.0.1", 1, "test.mesh"),
            ],
        });
        let form: form::Cluster = serde_json::from_value(form).unwrap();
        let compiled = Cluster::compile("api", &form, &"test.mesh".parse().unwrap()).unwrap();
        let ids: Vec<&str> = compiled.endpoints.iter().map(|it| &*it.id).collect();
        assert_eq!(ids, ["n/good"]);
    }
}
