//! Where calls come from outside the mesh.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_model::Protocol;
use mesh_policy::{Feature, Features};
use mesh_proto::config as form;

use super::listener::bind_address;
use super::{ListenKey, Outbound, invalid};
use crate::ApplyError;

/// A port at which calls come from outside the mesh.
#[derive(Debug)]
pub(crate) struct Ingress {
    /// One for each address.
    pub(crate) keys: Vec<ListenKey>,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) tls: bool,
}

impl Ingress {
    pub(super) fn compile(
        form: &form::IngressListener,
        features: &Features,
    ) -> Result<Self, ApplyError> {
        let place = format!("ingress {}", form.port);
        if !features.has(Feature::Ingress) {
            return Err(ApplyError::Feature {
                place,
                feature: Feature::Ingress.to_string(),
            });
        }
        if form.addresses.is_empty() {
            return Err(invalid(&place, "it has no address to listen at"));
        }
        let addresses = form.addresses.iter();
        let keys = addresses.map(|address| {
            let bound = bind_address(&place, address, form.port)?;
            Ok(ListenKey::tcp(bound, format!("{place} at {address}")))
        });
        Ok(Self {
            keys: keys.collect::<Result<_, ApplyError>>()?,
            port: form.port,
            protocol: form.protocol,
            tls: form.tls,
        })
    }
}

/// What is behind an ingress has its port and its protocol, and every host is
/// behind it once; behind one of byte streams is one service.
pub(super) fn check(
    ingress: &[Arc<Ingress>],
    outbound: &[Arc<Outbound>],
) -> Result<(), ApplyError> {
    let mut ports = BTreeSet::new();
    for one in ingress {
        if !ports.insert(one.port) {
            return Err(invalid(
                &format!("ingress {}", one.port),
                "there are two of it",
            ));
        }
    }
    let mut seen = BTreeSet::new();
    let mut streams = BTreeSet::new();
    for one in outbound {
        let ListenKey::Host(port, hosts) = &one.key else {
            continue;
        };
        let place = format!("ingress {port}: {}", one.service);
        let Some(listener) = ingress.iter().find(|it| it.port == *port) else {
            return Err(invalid(&place, "there is no listener of this port"));
        };
        if listener.protocol.is_http() != one.protocol.is_http() {
            let reason = format!(
                "it speaks {}, and the listener {}",
                one.protocol, listener.protocol
            );
            return Err(invalid(&place, reason));
        }
        if !listener.protocol.is_http() && !streams.insert(port) {
            return Err(invalid(&place, "byte streams can go to one service only"));
        }
        for host in hosts {
            if !seen.insert((port, host)) {
                return Err(invalid(&place, format!("the host {host:?} is there twice")));
            }
        }
    }
    Ok(())
}
