//! Which service outside the mesh is meant, at a terminating gateway.

use std::collections::HashMap;
use std::rc::Rc;

use crate::config::{ListenKey, OwnName, Terminating};
use crate::listening::Listening;

/// What a worker has for a terminating gateway's port.
pub(crate) struct TerminatingView {
    services: Vec<(OwnName, Rc<Listening>)>,
}

impl TerminatingView {
    pub(crate) fn new(config: &Terminating, now: &HashMap<ListenKey, Rc<Listening>>) -> Self {
        let services = config.services.iter();
        let services = services
            .filter_map(|service| Some((service.name.clone(), now.get(&service.key)?.clone())));
        Self {
            services: services.collect(),
        }
    }

    /// The service that a TLS hello names.
    pub(super) fn meant(&self, name: &str) -> Option<Rc<Listening>> {
        let found = self.services.iter().find(|(own, _)| own.is(name));
        found.map(|(_, listening)| listening.clone())
    }
}
