//! `PUT /v1/agent/service/register`: Consul's JSON becomes a [`Registration`].
//!
//! What Consul would fill in is filled in here, but for a sidecar's missing port: that is the
//! agent's to pick, since it must be free on the node (`mesh_model::instance::set_sidecar_port`).

use std::collections::BTreeMap;

use mesh_model::instance::sidecar_checks;
use mesh_model::{
    DEFAULT_NAMESPACE, ExposePath, ProxyMode, ProxyRegistration, Registration, Sidecar,
    TaggedAddress, Upstream, Weights, check_name,
};
use serde_json::Value;

use crate::check;
use crate::fields::Fields;
use crate::{ConsulError, MAX_ID, gateway};

/// What a registration became.
#[derive(Clone, Debug, PartialEq)]
pub struct Registered {
    /// The instance. Its sidecar has port 0 when none was given.
    pub registration: Registration,
    /// What was sent, is echoed, and has no effect; for the log.
    pub warnings: Vec<String>,
}

/// Reads the body of `PUT /v1/agent/service/register`.
///
/// # Errors
/// When a field is missing or wrong.
pub fn parse(body: &Value) -> Result<Registered, ConsulError> {
    let fields = Fields::root(body)?;
    let service = fields
        .text("Name")?
        .ok_or_else(|| fields.error("Name", "missing; write the service's name"))?;
    check_name(&service).map_err(|e| fields.error("Name", e.to_string()))?;
    let id = fields.text("ID")?.unwrap_or_else(|| service.clone());
    if id.len() > MAX_ID || id.chars().any(char::is_control) {
        return Err(fields.error("ID", "too long, or with a control character in it"));
    }
    let namespace = fields
        .text("Namespace")?
        .unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    check_name(&namespace).map_err(|e| fields.error("Namespace", e.to_string()))?;

    let mut warnings = Vec::new();
    let kind = gateway::kind(&fields)?;
    if let (Some(kind), None) = (fields.text("Kind")?, kind) {
        warnings.push(format!(
            "Kind {kind:?} is echoed, but nothing is wired for it"
        ));
    }
    let (gateway, own) = match kind {
        Some(kind) => {
            let (gateway, own) = gateway::read(&fields, kind, &id)?;
            (Some(gateway), Some(own))
        }
        None => (None, None),
    };
    let connect = fields.object("Connect")?;
    let (native, sidecar) = match &connect {
        Some(connect) => (connect.flag("Native")?, connect.object("SidecarService")?),
        None => (false, None),
    };
    if native && sidecar.is_some() {
        let why = "a native service has no sidecar; leave out this or SidecarService";
        return Err(fields.error("Connect.Native", why));
    }
    let sidecar = match sidecar {
        Some(fields) => Some(read_sidecar(&fields, &id, &service, &mut warnings)?),
        // A gateway is its own proxy.
        None => own,
    };
    Ok(Registered {
        registration: Registration {
            checks: check::of_service(&fields, &id, &service)?,
            address: fields.host("Address")?,
            port: fields.port("Port")?.unwrap_or(0),
            tagged_addresses: tagged_addresses(&fields)?,
            tags: fields.texts("Tags")?,
            meta: fields.text_map("Meta")?,
            weights: weights(&fields)?,
            id,
            namespace,
            service,
            gateway,
            sidecar,
            native,
        },
        warnings,
    })
}

fn read_sidecar(
    fields: &Fields<'_>,
    instance: &str,
    service: &str,
    warnings: &mut Vec<String>,
) -> Result<Sidecar, ConsulError> {
    let id = Registration::sidecar_id(instance);
    let proxy = match fields.object("Proxy")? {
        Some(proxy) => read_proxy(&proxy, warnings)?,
        None => ProxyRegistration::default(),
    };
    let address = fields.host("Address")?;
    let port = fields.port("Port")?.unwrap_or(0);
    let name = format!("{service}-sidecar-proxy");
    let mut checks = check::of_service(fields, &id, &name)?;
    if checks.is_empty() {
        // Where the port is open: at what others are told, else where it is bound.
        let bound = proxy.bind_address.as_deref();
        let bound = bound.filter(|at| !matches!(*at, "0.0.0.0" | "::"));
        let host = address.as_deref().or(bound).unwrap_or("127.0.0.1");
        checks = sidecar_checks(instance, &id, host, port, true);
    }
    Ok(Sidecar {
        tags: fields.texts("Tags")?,
        meta: fields.text_map("Meta")?,
        address,
        port,
        checks,
        proxy,
        id,
    })
}

fn read_proxy(
    fields: &Fields<'_>,
    warnings: &mut Vec<String>,
) -> Result<ProxyRegistration, ConsulError> {
    let mode = match fields.text("Mode")?.as_deref() {
        None | Some("direct") => ProxyMode::Direct,
        Some("transparent") => ProxyMode::Transparent,
        Some(other) => {
            let reason = format!("{other:?} is not a mode; write direct or transparent");
            return Err(fields.error("Mode", reason));
        }
    };
    let (mut bind_address, mut bind_port) = (None, None);
    if let Some(config) = fields.object("Config")? {
        bind_address = config.host("bind_address")?;
        bind_port = config.port("bind_port")?;
    }
    let mut config = fields.value_map("Config")?;
    config.retain(|key, _| !matches!(key.as_str(), "bind_address" | "bind_port"));
    let mut upstreams = Vec::new();
    for upstream in fields.objects("Upstreams")? {
        match read_upstream(&upstream)? {
            Ok(upstream) => upstreams.push(upstream),
            Err(why) => warnings.push(why),
        }
    }
    Ok(ProxyRegistration {
        mode,
        local_service_address: fields.host("LocalServiceAddress")?,
        local_service_port: fields.port("LocalServicePort")?,
        bind_address,
        bind_port,
        upstreams,
        expose: expose(fields)?,
        config,
    })
}

/// The inner error says why the upstream is echoed but not wired.
fn read_upstream(fields: &Fields<'_>) -> Result<Result<Upstream, String>, ConsulError> {
    let name = fields
        .text("DestinationName")?
        .ok_or_else(|| fields.error("DestinationName", "missing; write the service's name"))?;
    let upstream = Upstream {
        destination_namespace: fields.text("DestinationNamespace")?,
        local_bind_address: fields.host("LocalBindAddress")?,
        local_bind_port: fields.port("LocalBindPort")?.unwrap_or(0),
        local_bind_socket_path: fields.text("LocalBindSocketPath")?,
        local_bind_socket_mode: fields.text("LocalBindSocketMode")?,
        config: fields.value_map("Config")?,
        // Which datacenter is ours may not be known yet; who wires will know.
        datacenter: fields.text("Datacenter")?,
        destination_name: name,
    };
    let skipped = |why: String| {
        let name = &upstream.destination_name;
        Ok(Err(format!(
            "upstream {name} is echoed, but not wired: {why}"
        )))
    };
    if let Some(kind) = fields.text("DestinationType")?
        && kind != "service"
    {
        return skipped(format!("its type is {kind}"));
    }
    if let Some(peer) = fields.text("DestinationPeer")? {
        return skipped(format!("it is of the peer {peer}"));
    }
    check_name(&upstream.destination_name)
        .map_err(|e| fields.error("DestinationName", e.to_string()))?;
    if let Some(namespace) = &upstream.destination_namespace {
        check_name(namespace).map_err(|e| fields.error("DestinationNamespace", e.to_string()))?;
    }
    if upstream.local_bind_port == 0 && upstream.local_bind_socket_path.is_none() {
        return skipped("it has no local port and no socket".to_owned());
    }
    Ok(Ok(upstream))
}

fn expose(fields: &Fields<'_>) -> Result<Vec<ExposePath>, ConsulError> {
    let mut out = Vec::new();
    let Some(expose) = fields.object("Expose")? else {
        return Ok(out);
    };
    for path in expose.objects("Paths")? {
        let port = |key: &str| {
            path.port(key)?
                .ok_or_else(|| path.error(key, "missing; write a port"))
        };
        out.push(ExposePath {
            path: path
                .text("Path")?
                .filter(|path| path.starts_with('/'))
                .ok_or_else(|| path.error("Path", "missing; write a path that begins with `/`"))?,
            local_path_port: port("LocalPathPort")?,
            listener_port: port("ListenerPort")?,
            protocol: path.text("Protocol")?.unwrap_or_default(),
        });
    }
    Ok(out)
}

pub(crate) fn tagged_addresses(
    fields: &Fields<'_>,
) -> Result<BTreeMap<String, TaggedAddress>, ConsulError> {
    let mut out = BTreeMap::new();
    for (name, fields) in fields.object_map("TaggedAddresses")? {
        let address = TaggedAddress {
            address: fields.text("Address")?.unwrap_or_default(),
            port: fields.port("Port")?.unwrap_or(0),
        };
        out.insert(name, address);
    }
    Ok(out)
}

/// None at all is 1 and 1; of a given pair what is left out is 0, as in Consul.
fn weights(fields: &Fields<'_>) -> Result<Weights, ConsulError> {
    let Some(weights) = fields.object("Weights")? else {
        return Ok(Weights::default());
    };
    Ok(Weights {
        passing: weights.weight("Passing")?.unwrap_or(0),
        warning: weights.weight("Warning")?.unwrap_or(0),
    })
}
