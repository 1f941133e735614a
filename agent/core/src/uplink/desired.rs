//! What the servers should have of this node: instances, made of registrations and the states of
//! their checks.

use std::collections::BTreeMap;

use mesh_model::{Check, Instance, ProxyEndpoint};

use crate::catalog::{Entry, View};
use crate::checks::Board;

/// Every instance of this node, by id. `address` is where other nodes reach it.
pub(super) fn desired(
    view: &View,
    board: &Board,
    node: &str,
    address: &str,
) -> BTreeMap<String, Instance> {
    view.iter()
        .map(|entry| {
            let instance = instance(entry, board, node, address);
            (instance.id.clone(), instance)
        })
        .collect()
}

fn instance(entry: &Entry, board: &Board, node: &str, address: &str) -> Instance {
    let registration = &entry.registration;
    let or_node = |given: &Option<String>| given.clone().unwrap_or_else(|| address.to_owned());
    let checks = entry.checks().map(|(_, check)| {
        let state = Check {
            name: check.name.clone(),
            status: board.status(check),
        };
        (check.id.clone(), state)
    });
    Instance {
        namespace: registration.namespace.clone(),
        service: registration.service.clone(),
        id: registration.id.clone(),
        node: node.to_owned(),
        address: or_node(&registration.address),
        port: registration.port,
        tags: registration.tags.clone(),
        meta: registration.meta.clone(),
        weights: registration.weights,
        proxy: registration.sidecar.as_ref().map(|sidecar| ProxyEndpoint {
            id: sidecar.id.clone(),
            address: or_node(&sidecar.address),
            port: sidecar.port,
        }),
        checks: checks.collect(),
    }
}
