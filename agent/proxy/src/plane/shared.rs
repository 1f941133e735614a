//! What all workers look at.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use mesh_policy::{Features, NotUnderstood, Policy, PolicyForm};
use mesh_tls::MeshTls;
use tokio::sync::watch;

use crate::Options;
use crate::telemetry::DnsMetrics;
use crate::transparent::Transparency;

/// What all workers look at; none of it is locked on a request's path.
pub(crate) struct Shared {
    pub(crate) tls: Arc<MeshTls>,
    pub(crate) options: Options,
    policy: ArcSwap<Current>,
    /// Counts the policies, and wakes who must look at live connections again.
    pub(crate) policy_changed: watch::Sender<u64>,
    pub(crate) draining: AtomicBool,
    pub(crate) transparent: Arc<Transparency>,
}

/// The policy in force.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) version: u64,
    pub(crate) policy: Policy,
    pub(crate) not_understood: Vec<NotUnderstood>,
}

impl Shared {
    pub(crate) fn new(tls: Arc<MeshTls>, options: Options, dns: DnsMetrics) -> Self {
        Self {
            transparent: Arc::new(Transparency::new(&options, dns)),
            tls,
            options,
            policy: ArcSwap::from_pointee(Current {
                version: 0,
                policy: Policy::deny_all(),
                not_understood: Vec::new(),
            }),
            policy_changed: watch::Sender::new(0),
            draining: AtomicBool::new(false),
        }
    }

    pub(crate) fn policy(&self) -> arc_swap::Guard<Arc<Current>> {
        self.policy.load()
    }

    /// Puts a policy in force. From its return on every new request, stream
    /// and connection is decided by it.
    pub(crate) fn apply_policy(
        &self,
        form: &PolicyForm,
        features: &Features,
    ) -> Vec<NotUnderstood> {
        let (policy, not_understood) = Policy::compile(form, features);
        // One after the other, and the pointer before the wake.
        self.policy_changed.send_modify(|version| {
            *version += 1;
            self.policy.store(Arc::new(Current {
                version: *version,
                policy,
                not_understood: not_understood.clone(),
            }));
        });
        not_understood
    }
}
