//! ingress-gateway and terminating-gateway, as Nomad's servers write them for
//! the `gateway` block of a job.

use super::Fragment;
use crate::fields::Fields;
use crate::gateway::check_ingress_host;
use crate::{
    Edge, ExposedService, Ingress, IngressTls, Key, LinkedService, Listener, Protocol, Terminating,
    WILDCARD,
};

pub(super) fn ingress(fields: &mut Fields<'_>, own: &Key) -> Fragment {
    fields.later(&["Defaults"]);
    let tls = fields.object("TLS").map(|mut inner| {
        inner.later(&["CipherSuites", "TLSMaxVersion", "TLSMinVersion"]);
        no_sds(&mut inner);
        let enabled = inner.bool("Enabled").unwrap_or_default();
        inner.finish();
        IngressTls { enabled }
    });
    let listeners = fields.objects("Listeners");
    Fragment::Gateway(Edge::Ingress(Ingress {
        tls: tls.unwrap_or_default(),
        listeners: listeners
            .into_iter()
            .filter_map(|inner| listener(inner, own))
            .collect(),
    }))
}

fn listener(mut fields: Fields<'_>, own: &Key) -> Option<Listener> {
    fields.later(&[
        "MaxConcurrentRequests",
        "MaxConnections",
        "MaxPendingRequests",
        "PassiveHealthCheck",
    ]);
    let port = fields.port("Port", 1);
    let port = fields.required("Port", port, "Port = 8080");
    let protocol = fields.word("Protocol", &["tcp", "http", "http2", "grpc"], |text| {
        Protocol::parse(&text.to_ascii_lowercase())
    });
    if let Some(mut inner) = fields.object("TLS") {
        inner.later(&["CipherSuites", "Enabled", "TLSMaxVersion", "TLSMinVersion"]);
        no_sds(&mut inner);
        inner.finish();
    }
    let services = fields.objects("Services");
    let services = services
        .into_iter()
        .filter_map(|inner| exposed(inner, own))
        .collect();
    fields.finish();
    Some(Listener {
        port: port?,
        protocol: protocol.unwrap_or_default(),
        services,
    })
}

fn exposed(mut fields: Fields<'_>, own: &Key) -> Option<ExposedService> {
    fields.later(&[
        "MaxConcurrentRequests",
        "MaxConnections",
        "MaxPendingRequests",
        "Meta",
        "PassiveHealthCheck",
    ]);
    let service = service(&mut fields, own);
    let mut hosts = Vec::new();
    for (host, at) in fields.texts("Hosts") {
        match check_ingress_host(host) {
            Ok(()) => hosts.push(host.to_owned()),
            Err(error) => fields.wrong(at, "Hosts", error),
        }
    }
    if let Some(mut inner) = fields.object("TLS") {
        no_sds(&mut inner);
        inner.finish();
    }
    for key in ["RequestHeaders", "ResponseHeaders"] {
        if let Some(mut inner) = fields.object(key) {
            inner.later(&["Add", "Remove", "Set"]);
            inner.finish();
        }
    }
    fields.finish();
    let service = service?;
    Some(ExposedService { service, hosts })
}

/// Certificates from elsewhere. Nomad writes the object without anything in it.
fn no_sds(fields: &mut Fields<'_>) {
    if let Some(mut inner) = fields.object("SDS") {
        inner.later(&["CertResource", "ClusterName"]);
        inner.finish();
    }
}

pub(super) fn terminating(fields: &mut Fields<'_>, own: &Key) -> Fragment {
    let services = fields.objects("Services");
    Fragment::Gateway(Edge::Terminating(Terminating {
        services: services
            .into_iter()
            .filter_map(|inner| linked(inner, own))
            .collect(),
    }))
}

fn linked(mut fields: Fields<'_>, own: &Key) -> Option<LinkedService> {
    fields.later(&["DisableAutoHostRewrite"]);
    let service = service(&mut fields, own);
    let mut text = |key| fields.string(key).unwrap_or_default();
    let (ca_file, cert_file) = (text("CAFile"), text("CertFile"));
    let (key_file, sni) = (text("KeyFile"), text("SNI"));
    fields.finish();
    Some(LinkedService {
        service: service?,
        ca_file,
        cert_file,
        key_file,
        sni,
    })
}

fn service(fields: &mut Fields<'_>, own: &Key) -> Option<Key> {
    let name = fields.text("Name");
    let (name, at) = fields.required("Name", name, "Name = \"web\"")?;
    let namespace = fields.string("Namespace");
    super::partition(fields);
    let key = Key::new(namespace.unwrap_or_else(|| own.namespace.clone()), name);
    let checked = match key.name.as_str() {
        WILDCARD => key.check_pattern(),
        _ => key.check(),
    };
    match checked {
        Ok(()) => Some(key),
        Err(error) => {
            fields.wrong(at, "Name", error);
            None
        }
    }
}
