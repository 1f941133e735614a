//! `AgentService`: a registration as Consul shows it.
//!
//! Nomad registers a service again every 30 s unless it finds here exactly what it sent. What our
//! nouns keep is written from them; what they do not have is taken from the body that was sent.
//! Nothing that was left out is filled in where Nomad compares.

use mesh_model::{ProxyMode, Registration, Sidecar, Upstream};
use serde_json::{Map, Value, json};

use crate::fields::Fields;

/// An upstream's keys in Consul's spelling.
const UPSTREAM: [&str; 12] = [
    "DestinationType",
    "DestinationPartition",
    "DestinationNamespace",
    "DestinationPeer",
    "DestinationName",
    "Datacenter",
    "LocalBindAddress",
    "LocalBindPort",
    "LocalBindSocketPath",
    "LocalBindSocketMode",
    "Config",
    "MeshGateway",
];

/// The instance. `body` is what was sent to register it, where it came so.
#[must_use]
pub fn service(registration: &Registration, body: Option<&Value>, datacenter: &str) -> Value {
    let sent = Sent::of(body);
    let mut out = Map::new();
    if let Some(kind) = sent.text("Kind") {
        out.insert("Kind".into(), kind.into());
    }
    out.insert("ID".into(), registration.id.clone().into());
    out.insert("Service".into(), registration.service.clone().into());
    out.insert("Tags".into(), json!(registration.tags));
    out.insert("Meta".into(), json!(registration.meta));
    out.insert("Port".into(), registration.port.into());
    let address = registration.address.clone().unwrap_or_default();
    out.insert("Address".into(), address.into());
    if let Some(path) = sent.text("SocketPath") {
        out.insert("SocketPath".into(), path.into());
    }
    if !registration.tagged_addresses.is_empty() {
        out.insert("TaggedAddresses".into(), tagged(registration));
    }
    out.insert("Weights".into(), weights(registration));
    let tag_override = sent.flag("EnableTagOverride");
    out.insert("EnableTagOverride".into(), tag_override.into());
    // A gateway's own proxy: nothing here reads it.
    if let Some(proxy) = sent.value("Proxy") {
        out.insert("Proxy".into(), proxy.clone());
    }
    if registration.native {
        out.insert("Connect".into(), json!({ "Native": true }));
    }
    out.insert("Datacenter".into(), datacenter.into());
    Value::Object(out)
}

/// Its sidecar, where it has one: a service of its own for Consul.
#[must_use]
pub fn sidecar(
    registration: &Registration,
    body: Option<&Value>,
    datacenter: &str,
) -> Option<Value> {
    // A gateway is no service's sidecar, but a service itself.
    let sidecar = registration.sidecar.as_ref();
    let sidecar = sidecar.filter(|_| registration.gateway.is_none())?;
    let sent = Sent::of(body).object("Connect").object("SidecarService");
    let tags = Some(&sidecar.tags).filter(|tags| !tags.is_empty());
    let meta = Some(&sidecar.meta).filter(|meta| !meta.is_empty());
    Some(json!({
        "Kind": "connect-proxy",
        "ID": sidecar.id,
        "Service": format!("{}-sidecar-proxy", registration.service),
        "Tags": tags.unwrap_or(&registration.tags),
        "Meta": meta.unwrap_or(&registration.meta),
        "Port": sidecar.port,
        "Address": sidecar.address.clone().unwrap_or_default(),
        "Weights": weights(registration),
        "EnableTagOverride": sent.flag("EnableTagOverride"),
        "Proxy": proxy(registration, sidecar, &sent.object("Proxy")),
        "Datacenter": datacenter,
    }))
}

fn proxy(registration: &Registration, sidecar: &Sidecar, sent: &Sent<'_>) -> Value {
    let given = &sidecar.proxy;
    let address = given.local_service_address.as_deref();
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| out.insert(key.to_owned(), value);
    put(
        "DestinationServiceName",
        registration.service.clone().into(),
    );
    put("DestinationServiceID", registration.id.clone().into());
    put("LocalServiceAddress", address.unwrap_or("127.0.0.1").into());
    let port = given.local_service_port.unwrap_or(registration.port);
    put("LocalServicePort", port.into());
    if given.mode == ProxyMode::Transparent {
        put("Mode", "transparent".into());
    }
    match sent.value("Config") {
        Some(config) => {
            put("Config", config.clone());
        }
        None if !sidecar.proxy.config.is_empty() || given.bind_port.is_some() => {
            put("Config", config(sidecar));
        }
        None => {}
    }
    let upstreams = match sent.list("Upstreams") {
        Some(sent) => sent.iter().map(sent_upstream).collect(),
        None => given.upstreams.iter().map(own_upstream).collect(),
    };
    put("Upstreams", Value::Array(upstreams));
    let or_empty = |key: &str| sent.value(key).cloned().unwrap_or_else(|| json!({}));
    put("MeshGateway", or_empty("MeshGateway"));
    let expose = match sent.value("Expose") {
        Some(expose) => expose.clone(),
        None if given.expose.is_empty() => json!({}),
        None => own_expose(sidecar),
    };
    put("Expose", expose);
    Value::Object(out)
}

/// Word for word, but for the spelling of the keys.
fn sent_upstream(sent: &Value) -> Value {
    match Fields::root(sent) {
        Ok(fields) => Value::Object(fields.canonical(&UPSTREAM)),
        Err(_) => sent.clone(),
    }
}

fn own_upstream(upstream: &Upstream) -> Value {
    let mut out = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            out.insert(key.to_owned(), value);
        }
    };
    let text = |text: &Option<String>| text.clone().map(Value::from);
    put(
        "DestinationName",
        Some(upstream.destination_name.clone().into()),
    );
    put(
        "DestinationNamespace",
        text(&upstream.destination_namespace),
    );
    put("LocalBindAddress", text(&upstream.local_bind_address));
    let port = Some(upstream.local_bind_port).filter(|port| *port != 0);
    put("LocalBindPort", port.map(Value::from));
    put(
        "LocalBindSocketPath",
        text(&upstream.local_bind_socket_path),
    );
    put(
        "LocalBindSocketMode",
        text(&upstream.local_bind_socket_mode),
    );
    let config = Some(&upstream.config).filter(|config| !config.is_empty());
    put("Config", config.map(|config| json!(config)));
    Value::Object(out)
}

fn config(sidecar: &Sidecar) -> Value {
    let mut out = json!(sidecar.proxy.config);
    if let Some(map) = out.as_object_mut() {
        if let Some(address) = &sidecar.proxy.bind_address {
            map.insert("bind_address".into(), address.clone().into());
        }
        if let Some(port) = sidecar.proxy.bind_port {
            map.insert("bind_port".into(), port.into());
        }
    }
    out
}

fn own_expose(sidecar: &Sidecar) -> Value {
    let paths = sidecar.proxy.expose.iter().map(|path| {
        json!({
            "ListenerPort": path.listener_port,
            "Path": path.path,
            "LocalPathPort": path.local_path_port,
            "Protocol": path.protocol,
        })
    });
    json!({ "Paths": paths.collect::<Vec<_>>() })
}

fn weights(registration: &Registration) -> Value {
    let weights = registration.weights;
    json!({ "Passing": weights.passing, "Warning": weights.warning })
}

fn tagged(registration: &Registration) -> Value {
    let addresses = registration.tagged_addresses.iter().map(|(name, it)| {
        (
            name.clone(),
            json!({ "Address": it.address, "Port": it.port }),
        )
    });
    Value::Object(addresses.collect())
}

/// What was sent, which was found good when it came; nothing where nothing was.
struct Sent<'a>(Option<Fields<'a>>);

impl<'a> Sent<'a> {
    fn of(body: Option<&'a Value>) -> Self {
        Self(body.and_then(|body| Fields::root(body).ok()))
    }

    fn object(&self, key: &str) -> Self {
        let found = self.0.as_ref().and_then(|it| it.object(key).ok());
        Self(found.flatten())
    }

    fn value(&self, key: &str) -> Option<&'a Value> {
        self.0.as_ref()?.value(key)
    }

    fn list(&self, key: &str) -> Option<&'a Vec<Value>> {
        self.value(key)?.as_array()
    }

    fn text(&self, key: &str) -> Option<String> {
        self.0.as_ref()?.text(key).ok()?
    }

    fn flag(&self, key: &str) -> bool {
        let found = self.0.as_ref().and_then(|it| it.flag(key).ok());
        found.unwrap_or(false)
    }
}
