//! A gateway's registration: an instance that is its own proxy.
//!
//! Nomad says where it binds in keys of the proxy's `Config`, which are those of
//! Consul's own gateways.

use std::net::IpAddr;

use mesh_model::{GatewayKind, GatewayRegistration, ProxyRegistration, Sidecar, TaggedAddress};

use crate::ConsulError;
use crate::fields::Fields;
use crate::register::tagged_addresses;

const BIND: &str = "envoy_gateway_bind_addresses";
const BIND_TAGGED: &str = "envoy_gateway_bind_tagged_addresses";
const NO_DEFAULT_BIND: &str = "envoy_gateway_no_default_bind";

/// The kind of gateway that a registration is; none for any other.
pub(crate) fn kind(fields: &Fields<'_>) -> Result<Option<GatewayKind>, ConsulError> {
    match fields.text("Kind")?.as_deref() {
        Some("ingress-gateway") => Ok(Some(GatewayKind::Ingress)),
        Some("terminating-gateway") => Ok(Some(GatewayKind::Terminating)),
        Some(kind @ ("mesh-gateway" | "api-gateway")) => {
            Err(fields.error("Kind", format!("{kind:?} is not supported yet")))
        }
        _ => Ok(None),
    }
}

/// As Consul names a kind.
pub(crate) fn name(kind: GatewayKind) -> &'static str {
    match kind {
        GatewayKind::Ingress => "ingress-gateway",
        GatewayKind::Terminating => "terminating-gateway",
    }
}

/// The gateway, and the proxy that it is.
pub(crate) fn read(
    fields: &Fields<'_>,
    kind: GatewayKind,
    id: &str,
) -> Result<(GatewayRegistration, Sidecar), ConsulError> {
    if let Some(connect) = fields.object("Connect")?
        && (connect.flag("Native")? || connect.object("SidecarService")?.is_some())
    {
        let reason = "a gateway has no sidecar, and is not native; leave it out";
        return Err(fields.error("Connect", reason));
    }
    let (address, port) = (fields.host("Address")?, fields.port("Port")?);
    let port = port.ok_or_else(|| {
        fields.error(
            "Port",
            "missing; write the port at which the gateway is called",
        )
    })?;
    let mut config = std::collections::BTreeMap::new();
    let mut bind = Vec::new();
    let (mut default, mut tagged) = (true, false);
    if let Some(proxy) = fields.object("Proxy")? {
        config = proxy.value_map("Config")?;
        config.retain(|key, _| ![BIND, BIND_TAGGED, NO_DEFAULT_BIND].contains(&key.as_str()));
        if let Some(given) = proxy.object("Config")? {
            default = !given.flag(NO_DEFAULT_BIND)?;
            tagged = given.flag(BIND_TAGGED)?;
            for (_, fields) in given.object_map(BIND)? {
                let address = fields.text("Address")?.unwrap_or_default();
                let port = fields.port("Port")?.unwrap_or(port);
                check_ip(&fields, &address)?;
                bind.push(TaggedAddress { address, port });
            }
        }
    }
    if default {
        let address = address.clone().unwrap_or_else(|| "0.0.0.0".to_owned());
        check_ip(fields, &address)?;
        bind.push(TaggedAddress { address, port });
    }
    if tagged {
        for tagged in tagged_addresses(fields)?.into_values() {
            check_ip(fields, &tagged.address)?;
            bind.push(tagged);
        }
    }
    bind.sort();
    bind.dedup();
    if bind.is_empty() {
        let reason = format!(
            "it binds nothing: {NO_DEFAULT_BIND} is true, and there are no {BIND}; write one"
        );
        return Err(fields.error("Proxy.Config", reason));
    }
    let sidecar = Sidecar {
        id: id.to_owned(),
        address,
        port,
        tags: Vec::new(),
        meta: std::collections::BTreeMap::new(),
        checks: Vec::new(),
        proxy: ProxyRegistration {
            config,
            ..ProxyRegistration::default()
        },
    };
    Ok((GatewayRegistration { kind, bind }, sidecar))
}

fn check_ip(fields: &Fields<'_>, address: &str) -> Result<(), ConsulError> {
    match address.parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(fields.error(
            "Address",
            format!("{address:?} is not an IP address to bind; write one such as 0.0.0.0"),
        )),
    }
}
