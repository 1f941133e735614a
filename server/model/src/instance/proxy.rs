//! The `connect` block: the sidecar and its wiring.

use std::collections::HashSet;

use super::check::{Of, checks, sidecar_checks};
use crate::fields::Fields;
use crate::{ExposePath, ProxyRegistration, Registration, Sidecar, Upstream, check_name};

/// Most upstreams and most exposed paths of one sidecar.
const MOST: usize = 1000;

pub(super) fn connect(mut fields: Fields<'_>, of: &Of<'_>) -> Option<Sidecar> {
    let sidecar = fields.block("sidecar_service");
    if sidecar.is_none() && fields.where_is("sidecar_service").is_none() {
        let hint = Some("add `sidecar_service {}`".to_owned());
        fields.wrong_with(fields.at(), "", "`sidecar_service` is missing", hint);
    }
    let sidecar = sidecar.map(|inner| sidecar_service(inner, of));
    fields.finish();
    sidecar
}

fn sidecar_service(mut fields: Fields<'_>, of: &Of<'_>) -> Sidecar {
    let id = super::id(&mut fields).unwrap_or_else(|| Registration::sidecar_id(of.id));
    let address = fields.parsed("address", super::host);
    let port = fields.port("port", 0).unwrap_or_default();
    let tags = fields.strings("tags");
    let meta = fields.map("meta");
    let no_tcp = fields.bool("disable_default_tcp_check").unwrap_or_default();
    let proxy = fields.block("proxy").map(proxy).unwrap_or_default();
    // Where the port is open: at what others are told, else where it is bound.
    let bound = proxy.bind_address.as_deref();
    let bound = bound.filter(|at| !matches!(*at, "0.0.0.0" | "::"));
    let host = address.as_deref().or(bound).unwrap_or("127.0.0.1");
    let mut checks = checks(
        &mut fields,
        &Of {
            id: &id,
            name: &format!("{}-sidecar-proxy", of.name),
            host,
            port,
            port_is_picked: true,
        },
    );
    if checks.is_empty() {
        checks = sidecar_checks(of.id, &id, host, port, !no_tcp);
    }
    fields.finish();
    Sidecar {
        id,
        address,
        port,
        tags,
        meta,
        checks,
        proxy,
    }
}

fn proxy(mut fields: Fields<'_>) -> ProxyRegistration {
    let mut proxy = ProxyRegistration {
        local_service_address: fields.parsed("local_service_address", super::host),
        local_service_port: fields.port("local_service_port", 1),
        config: fields.values("config"),
        ..ProxyRegistration::default()
    };
    let at = fields.where_is("config").unwrap_or(fields.at());
    if let Some(value) = proxy.config.remove("bind_address") {
        match value.as_str().map(super::host) {
            Some(Ok(host)) => proxy.bind_address = Some(host),
            _ => fields.wrong(at, "config: bind_address", "must be an address in quotes"),
        }
    }
    if let Some(value) = proxy.config.remove("bind_port") {
        match value.as_u64().and_then(|port| u16::try_from(port).ok()) {
            Some(port) if port > 0 => proxy.bind_port = Some(port),
            _ => fields.wrong(at, "config: bind_port", "must be a number, 1 to 65535"),
        }
    }
    let mut taken: HashSet<String> = HashSet::new();
    let blocks = fields.bare_blocks("upstreams");
    if blocks.len() > MOST {
        let message = format!("{} of them; at most {MOST} are taken", blocks.len());
        fields.wrong(fields.at(), "upstreams", message);
    }
    for block in blocks.into_iter().take(MOST) {
        let at = block.at();
        let Some(upstream) = upstream(block) else {
            continue;
        };
        let listener = listener(&upstream);
        if !taken.insert(listener.clone()) {
            let message = format!("two upstreams listen at {listener}");
            fields.wrong(at, "upstreams", message);
        }
        proxy.upstreams.push(upstream);
    }
    if let Some(mut expose) = fields.block("expose") {
        let paths = expose.bare_blocks("path").into_iter().take(MOST);
        proxy.expose = paths.filter_map(path).collect();
        expose.finish();
    }
    fields.finish();
    proxy
}

/// Where the application calls an upstream.
fn listener(upstream: &Upstream) -> String {
    match &upstream.local_bind_socket_path {
        Some(path) => path.clone(),
        None => super::host_port(
            upstream
                .local_bind_address
                .as_deref()
                .unwrap_or("127.0.0.1"),
            upstream.local_bind_port,
        ),
    }
}

fn upstream(mut fields: Fields<'_>) -> Option<Upstream> {
    let name = fields.parsed("destination_name", |text| {
        check_name(text).map(|()| text.to_owned())
    });
    let name = fields.required("destination_name", name, "destination_name = \"web\"");
    let has_port = fields.where_is("local_bind_port").is_some();
    let upstream = Upstream {
        destination_namespace: fields.parsed("destination_namespace", |text| {
            check_name(text).map(|()| text.to_owned())
        }),
        destination_name: name.clone().unwrap_or_default(),
        datacenter: None,
        local_bind_address: fields.parsed("local_bind_address", super::host),
        local_bind_port: fields.port("local_bind_port", 1).unwrap_or_default(),
        local_bind_socket_path: fields.parsed("local_bind_socket_path", socket_path),
        local_bind_socket_mode: fields.parsed("local_bind_socket_mode", socket_mode),
        config: fields.values("config"),
    };
    let has_socket = fields.where_is("local_bind_socket_path").is_some();
    let said = match (has_port, has_socket) {
        (false, false) => Some("has no `local_bind_port` where the application calls it"),
        (true, true) => Some("has both a port and a socket"),
        _ => None,
    };
    if let Some(said) = said {
        let hint = Some("write one of `local_bind_port` and `local_bind_socket_path`".to_owned());
        fields.wrong_with(fields.at(), "", said, hint);
    }
    if !has_socket && let Some(at) = fields.where_is("local_bind_socket_mode") {
        let message = "needs a `local_bind_socket_path`";
        fields.wrong(at, "local_bind_socket_mode", message);
    }
    fields.finish();
    name.map(|_| upstream)
}

/// The path of a Unix socket: absolute, and short enough for `sun_path`
/// (unix(7)).
fn socket_path(text: &str) -> Result<String, &'static str> {
    match text.starts_with('/') && text.len() < 108 && !text.contains('\0') {
        true => Ok(text.to_owned()),
        false => Err("must begin with `/` and have at most 107 bytes"),
    }
}

fn socket_mode(text: &str) -> Result<String, &'static str> {
    let fine = !text.is_empty() && text.len() <= 4 && text.chars().all(|c| c.is_digit(8));
    match fine {
        true => Ok(text.to_owned()),
        false => Err("must be octal, such as \"0660\""),
    }
}

fn path(mut fields: Fields<'_>) -> Option<ExposePath> {
    let path = fields.parsed("path", |text| match crate::normalize_path(text) {
        Ok(normal) if normal == text => Ok(text.to_owned()),
        Ok(normal) => Err(format!("can never match; write it as `{normal}`")),
        Err(error) => Err(error.to_string()),
    });
    let path = fields.required("path", path, "path = \"/healthz\"");
    let local = fields.port("local_path_port", 1);
    let local = fields.required("local_path_port", local, "local_path_port = 8080");
    let listener = fields.port("listener_port", 1);
    let listener = fields.required("listener_port", listener, "listener_port = 21500");
    let protocol = fields.word("protocol", &["http", "http2"], |text| match text {
        "http" => Some(String::new()),
        "http2" => Some(text.to_owned()),
        _ => None,
    });
    fields.finish();
    Some(ExposePath {
        path: path?,
        local_path_port: local?,
        listener_port: listener?,
        protocol: protocol.unwrap_or_default(),
    })
}
