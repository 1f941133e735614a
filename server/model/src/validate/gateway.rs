//! A gateway, and the services that it names.

use std::collections::HashSet;

use super::{MOST, Notes, View, protocol, speaks_tcp};
use crate::gateway::check_ingress_host;
use crate::{
    Edge, ExposedService, Gateway, Ingress, Key, LinkedService, Listener, Terminating, WILDCARD,
};

pub(super) fn check(view: &dyn View, gateway: &Gateway, notes: &mut Notes) {
    if let Err(error) = gateway.key().check() {
        notes.error(error);
    }
    match &gateway.edge {
        Edge::Ingress(ingress) => check_ingress(gateway, ingress, notes),
        Edge::Terminating(terminating) => check_terminating(gateway, terminating, notes),
    }
    let key = notes.key.to_string();
    for message in missing(view, gateway, None) {
        let message = message.strip_prefix(&format!("{key}: "));
        notes.error(message.unwrap_or_default());
    }
}

fn check_ingress(gateway: &Gateway, ingress: &Ingress, notes: &mut Notes) {
    if ingress.listeners.is_empty() {
        notes.error("has no listener; add listener { port = 8080 … }");
    }
    too_many(ingress.listeners.len(), "listeners", notes);
    let names = ingress.dns_names("dc1").len();
    if names > MOST {
        notes.error(format!(
            "tls: {names} names for one certificate; at most {MOST} are taken: use `*.example.com`, or \
             more gateways"
        ));
    }
    let mut ports = HashSet::new();
    for listener in &ingress.listeners {
        let place = format!("listener {}", listener.port);
        if listener.port == 0 {
            notes.error("a listener has port 0; write one from 1 to 65535");
        }
        if !ports.insert(listener.port) {
            notes.error(format!("{place}: two listeners have this port"));
        }
        match listener.protocol.is_http() {
            true => check_http(gateway, ingress, listener, &place, notes),
            false => check_tcp(gateway, listener, &place, notes),
        }
    }
}

fn check_tcp(gateway: &Gateway, listener: &Listener, place: &str, notes: &mut Notes) {
    let [exposed] = listener.services.as_slice() else {
        let count = listener.services.len();
        return notes.error(format!(
            "{place}: {count} services; byte streams go to one, so name exactly one"
        ));
    };
    if exposed.service.name == WILDCARD {
        notes.error(format!(
            "{place}: service *: needs requests; set protocol to http"
        ));
        return;
    }
    named(gateway, &exposed.service, place, notes);
    if !exposed.hosts.is_empty() {
        notes.error(format!(
            "{place}: service {}: hosts need requests; set protocol to http, or leave them out",
            exposed.service
        ));
    }
}

fn check_http(
    gateway: &Gateway,
    ingress: &Ingress,
    listener: &Listener,
    place: &str,
    notes: &mut Notes,
) {
    if listener.services.is_empty() {
        notes.error(format!(
            "{place}: has no service; add service {{ name = \"web\" }}"
        ));
    }
    too_many(listener.services.len(), "services", notes);
    let mut services = HashSet::new();
    let mut hosts = HashSet::new();
    for exposed in &listener.services {
        let ExposedService {
            service,
            hosts: own,
        } = exposed;
        let place = format!("{place}: service {service}");
        if !services.insert(service) {
            notes.error(format!("{place}: stands twice"));
        }
        match service.name == WILDCARD {
            true => {
                if let Err(error) = service.check_pattern() {
                    notes.error(format!("{place}: {error}"));
                }
                if !own.is_empty() {
                    notes.error(format!(
                        "{place}: every service has a host of its own; leave hosts out"
                    ));
                }
            }
            false => named(gateway, service, &place, notes),
        }
        too_many(own.len(), "hosts", notes);
        for host in own {
            if let Err(error) = check_ingress_host(host) {
                notes.error(format!("{place}: hosts: {error}"));
            }
            if host == WILDCARD && ingress.tls.enabled {
                notes.error(format!(
                    "{place}: hosts: `*` is no name for a certificate; name the hosts, or turn tls off"
                ));
            }
            if !hosts.insert(host.to_ascii_lowercase()) {
                notes.error(format!(
                    "{place}: hosts: `{host}` stands twice at this port"
                ));
            }
        }
    }
}

fn check_terminating(gateway: &Gateway, terminating: &Terminating, notes: &mut Notes) {
    if terminating.services.is_empty() {
        notes.error("has no service; add service { name = \"legacy\" }");
    }
    too_many(terminating.services.len(), "services", notes);
    let mut services = HashSet::new();
    for linked in &terminating.services {
        let LinkedService { service, .. } = linked;
        let place = format!("service {service}");
        if service.name == WILDCARD {
            notes.error(
                "service *: is not supported yet; name each service, since the gateway gets its identity",
            );
            continue;
        }
        named(gateway, service, &place, notes);
        if !services.insert(service) {
            notes.error(format!("{place}: stands twice"));
        }
        if linked.cert_file.is_empty() != linked.key_file.is_empty() {
            notes.error(format!(
                "{place}: cert_file and key_file go together; write both or none"
            ));
        }
        if (!linked.cert_file.is_empty() || !linked.sni.is_empty()) && !linked.is_tls() {
            notes.error(format!(
                "{place}: cert_file and sni are for TLS; write ca_file as well"
            ));
        }
        for (name, path) in [
            ("ca_file", &linked.ca_file),
            ("cert_file", &linked.cert_file),
            ("key_file", &linked.key_file),
        ] {
            if !path.is_empty() && !path.starts_with('/') {
                notes.error(format!("{place}: {name}: `{path}` does not begin with `/`"));
            }
        }
        if !linked.sni.is_empty()
            && (linked.sni.contains('*') || check_ingress_host(&linked.sni).is_err())
        {
            notes.error(format!("{place}: sni: `{}` is not a host name", linked.sni));
        }
    }
}

fn named(gateway: &Gateway, service: &Key, place: &str, notes: &mut Notes) {
    if let Err(error) = service.check() {
        notes.error(format!("{place}: {error}"));
    }
    if *service == gateway.key() {
        notes.error(format!("{place}: is the gateway itself"));
    }
}

fn too_many(count: usize, what: &str, notes: &mut Notes) {
    if count > MOST {
        notes.error(format!("{count} {what}; at most {MOST} are taken"));
    }
}

/// What the gateway needs and the set has not; only of one service where one
/// is given. A listener and its service both see requests, or neither does:
/// byte streams to a service with permissions would go past them.
pub(super) fn missing(view: &dyn View, gateway: &Gateway, of: Option<&Key>) -> Vec<String> {
    let mut all = Vec::new();
    let listeners = gateway.ingress().map_or(&[][..], |it| &it.listeners);
    for listener in listeners {
        for exposed in &listener.services {
            let service = &exposed.service;
            if service.name == WILDCARD || of.is_some_and(|of| of != service) {
                continue;
            }
            let place = format!("gateway {}: listener {}", gateway.key(), listener.port);
            let spoken = protocol(view, service);
            match (listener.protocol.is_http(), spoken.is_http()) {
                (true, false) => all.push(format!(
                    "{place}: {}",
                    speaks_tcp(view, service, "this listener's hosts")
                )),
                (false, true) => all.push(format!(
                    "{place}: service {service} speaks {spoken}, and this listener carries byte \
                     streams; set the listener's protocol to {spoken}"
                )),
                _ => {}
            }
        }
    }
    all
}
