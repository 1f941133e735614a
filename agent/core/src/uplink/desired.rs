//! What the servers should have of this node: instances, made of registrations and the states of
//! their checks.

use std::collections::BTreeMap;

use mesh_model::Instance;

use crate::catalog::View;
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
            let instance = entry.instance(node, address, |check| board.status(check));
            (instance.id.clone(), instance)
        })
        .collect()
}
