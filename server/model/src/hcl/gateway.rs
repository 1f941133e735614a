//! The `gateway` block: what a Nomad job's `gateway` block is, so that one is
//! copied from the other.

use crate::fields::Fields;
use crate::gateway::check_ingress_host;
use crate::{
    Edge, ExposedService, Gateway, Ingress, IngressTls, Key, LinkedService, Listener, Protocol,
    Terminating, WILDCARD,
};

pub(super) fn gateway(mut fields: Fields<'_>, key: Option<Key>) -> Option<Gateway> {
    let ingress = fields.block("ingress").map(ingress);
    let terminating = fields.block("terminating").map(terminating);
    for inner in fields.bare_blocks("mesh") {
        inner.wrong(
            inner.at(),
            "",
            "a gateway between meshes is not supported yet",
        );
    }
    let meta = fields.map("meta");
    let edge = match (ingress, terminating) {
        (Some(ingress), None) => Some(Edge::Ingress(ingress)),
        (None, Some(terminating)) => Some(Edge::Terminating(terminating)),
        (Some(_), Some(_)) => {
            let hint = Some("make two gateways of it".to_owned());
            fields.wrong_with(fields.at(), "", "is both an ingress and terminating", hint);
            None
        }
        (None, None) => {
            let hint = Some("add `ingress { … }` or `terminating { … }`".to_owned());
            fields.wrong_with(
                fields.at(),
                "",
                "is neither an ingress nor terminating",
                hint,
            );
            None
        }
    };
    fields.finish();
    let (key, edge) = (key?, edge?);
    Some(Gateway {
        namespace: key.namespace,
        name: key.name,
        edge,
        meta,
    })
}

fn ingress(mut fields: Fields<'_>) -> Ingress {
    let tls = fields.block("tls").map(|mut inner| {
        let tls = IngressTls {
            enabled: inner.bool("enabled").unwrap_or_default(),
        };
        inner.finish();
        tls
    });
    let listeners = fields.bare_blocks("listener");
    let ingress = Ingress {
        tls: tls.unwrap_or_default(),
        listeners: listeners.into_iter().filter_map(listener).collect(),
    };
    fields.finish();
    ingress
}

fn listener(mut fields: Fields<'_>) -> Option<Listener> {
    let port = fields.port("port", 1);
    let port = fields.required("port", port, "port = 8080");
    if let Some(port) = port {
        fields.mark(format!("listener {port}"));
    }
    let protocol = fields.word(
        "protocol",
        &["tcp", "http", "http2", "grpc"],
        Protocol::parse,
    );
    let services = fields.bare_blocks("service");
    let services = services.into_iter().filter_map(exposed).collect();
    fields.finish();
    Some(Listener {
        port: port?,
        protocol: protocol.unwrap_or_default(),
        services,
    })
}

fn exposed(mut fields: Fields<'_>) -> Option<ExposedService> {
    let service = service(&mut fields);
    let mut hosts = Vec::new();
    for (host, at) in fields.texts("hosts") {
        match check_ingress_host(host) {
            Ok(()) => hosts.push(host.to_owned()),
            Err(error) => fields.wrong(at, "hosts", error),
        }
    }
    fields.finish();
    let service = service?;
    Some(ExposedService { service, hosts })
}

fn terminating(mut fields: Fields<'_>) -> Terminating {
    let services = fields.bare_blocks("service");
    let terminating = Terminating {
        services: services.into_iter().filter_map(linked).collect(),
    };
    fields.finish();
    terminating
}

fn linked(mut fields: Fields<'_>) -> Option<LinkedService> {
    let service = service(&mut fields);
    let mut text = |key| fields.string(key).unwrap_or_default();
    let (ca_file, cert_file) = (text("ca_file"), text("cert_file"));
    let (key_file, sni) = (text("key_file"), text("sni"));
    fields.finish();
    Some(LinkedService {
        service: service?,
        ca_file,
        cert_file,
        key_file,
        sni,
    })
}

/// A service's name, which may be `*`; where that means nothing it is refused
/// with what only the whole set can tell.
fn service(fields: &mut Fields<'_>) -> Option<Key> {
    let key = fields.parsed("name", |text| match text {
        WILDCARD => Ok(Key::of(WILDCARD)),
        text => text.parse::<Key>(),
    });
    fields.required("name", key, "name = \"web\"")
}
