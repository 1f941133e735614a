//! Where other sidecars call services outside the mesh.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_policy::{Feature, Features};
use mesh_proto::config as form;
use mesh_tls::SpiffeId;

use super::listener::bind_address;
use super::{Inbound, ListenKey, invalid};
use crate::ApplyError;

/// Where other sidecars call services outside the mesh.
#[derive(Debug)]
pub(crate) struct Terminating {
    pub(crate) keys: Vec<ListenKey>,
    pub(crate) services: Vec<Arc<Inbound>>,
}

impl Terminating {
    pub(super) fn compile(
        form: &form::Terminating,
        identity: &SpiffeId,
        features: &Features,
    ) -> Result<Self, ApplyError> {
        const PLACE: &str = "terminating";
        if !features.has(Feature::Terminating) {
            return Err(ApplyError::Feature {
                place: PLACE.to_owned(),
                feature: Feature::Terminating.to_string(),
            });
        }
        if form.bind.is_empty() {
            return Err(invalid(PLACE, "it has no address to listen at"));
        }
        let keys = form.bind.iter().map(|one| {
            let bound = bind_address(PLACE, &one.address, one.port)?;
            Ok(ListenKey::tcp(bound, format!("{PLACE} at {}", one.address)))
        });
        let mut seen = BTreeSet::new();
        let mut services = Vec::new();
        for one in &form.services {
            if !seen.insert(&one.service) {
                let reason = "it is there twice";
                return Err(invalid(&format!("{PLACE}: {}", one.service), reason));
            }
            services.push(Arc::new(Inbound::outside(one, identity)));
        }
        Ok(Self {
            keys: keys.collect::<Result<_, ApplyError>>()?,
            services,
        })
    }
}
