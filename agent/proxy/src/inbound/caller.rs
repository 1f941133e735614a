//! Who calls, as its certificate proved it, and what holds for it.

use std::cell::RefCell;
use std::rc::Rc;

use http::HeaderValue;
use mesh_model::{Action, Key};
use mesh_policy::{ConnectionDecision, Decider, Policy};
use mesh_tls::SpiffeId;

use crate::link::Link;
use crate::plane::{Current, Shared};

/// Who is at the other end of a connection from another sidecar.
pub(crate) struct Caller {
    pub(crate) key: Key,
    /// As metrics and logs name it.
    pub(crate) name: String,
    /// For the application.
    pub(crate) header: HeaderValue,
    /// The connection that it came by.
    link: Option<Rc<Link>>,
    /// The service that is called, where it has a policy of its own.
    service: Option<Key>,
    verdict: RefCell<(u64, Rc<Verdict>)>,
}

/// What holds for all that a caller does.
#[derive(Debug)]
pub(crate) enum Verdict {
    Allow,
    Deny(Decider),
    /// Permissions decide, request by request.
    ByRequest,
}

impl Caller {
    pub(crate) fn new(identity: &SpiffeId, link: Option<Rc<Link>>, service: Option<Key>) -> Self {
        let key = Key::new(identity.namespace(), identity.service());
        Self {
            name: key.to_string(),
            key,
            link,
            service,
            // An identity is plain ASCII by its form.
            header: HeaderValue::from_str(identity.as_str())
                .unwrap_or_else(|_| HeaderValue::from_static("")),
            // Before any policy.
            verdict: RefCell::new((u64::MAX, Rc::new(Verdict::ByRequest))),
        }
    }

    /// Whether the connection that it came by was cut: its certificate is revoked.
    pub(crate) fn is_cut(&self) -> bool {
        let link = self.link.as_ref();
        link.is_some_and(|link| link.cut_cell().get().is_some())
    }

    /// The policy that decides about it.
    pub(crate) fn policy<'a>(&self, current: &'a Current) -> &'a Policy {
        current.of(self.service.as_ref())
    }

    /// What holds by the policy in force; looked up once for each policy.
    pub(crate) fn verdict(&self, shared: &Shared) -> Rc<Verdict> {
        let current = shared.policy();
        let mut known = self.verdict.borrow_mut();
        if known.0 != current.version {
            let verdict = match self.policy(&current).connection(&self.key) {
                ConnectionDecision::ByRequest { .. } => Verdict::ByRequest,
                ConnectionDecision::Whole(decision) if decision.action == Action::Allow => {
                    Verdict::Allow
                }
                ConnectionDecision::Whole(decision) => Verdict::Deny(decision.by),
            };
            *known = (current.version, Rc::new(verdict));
        }
        known.1.clone()
    }
}
