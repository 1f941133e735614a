//! What all workers look at.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use mesh_model::Key;
use mesh_policy::{Features, NotUnderstood, Policy, PolicyForm};
use mesh_proto::config::ServicePolicy;
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
    /// Of the services that a terminating gateway stands for.
    services: HashMap<Key, Policy>,
    nobody: Policy,
    pub(crate) not_understood: Vec<NotUnderstood>,
}

impl Current {
    /// The policy of a service that a terminating gateway stands for; of none, the
    /// proxy's own.
    pub(crate) fn of(&self, service: Option<&Key>) -> &Policy {
        match service {
            None => &self.policy,
            Some(service) => self.services.get(service).unwrap_or(&self.nobody),
        }
    }
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
                services: HashMap::new(),
                nobody: Policy::deny_all(),
                not_understood: Vec::new(),
            }),
            policy_changed: watch::Sender::new(0),
            draining: AtomicBool::new(false),
        }
    }

    /// How long the proxy's own certificate is good; nothing once it has ended.
    pub(crate) fn leaf_left(&self) -> Duration {
        let end = self.tls.leaf().map(|leaf| leaf.not_after);
        let left = end.map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
        left.unwrap_or(Duration::MAX)
    }

    pub(crate) fn policy(&self) -> arc_swap::Guard<Arc<Current>> {
        self.policy.load()
    }

    /// Has all workers look at what is live again.
    pub(crate) fn look_again(&self) {
        self.policy_changed.send_modify(|_| {});
    }

    /// Puts a policy in force. From its return on every new request, stream
    /// and connection is decided by it.
    pub(crate) fn apply_policies(
        &self,
        form: &PolicyForm,
        services: &[ServicePolicy],
        features: &Features,
    ) -> Vec<NotUnderstood> {
        let (mut policy, mut not_understood) = Policy::compile(form, features);
        let mut of_services = HashMap::new();
        for one in services {
            let (compiled, more) = Policy::compile(&one.policy, features);
            not_understood.extend(more);
            of_services.insert(one.service.clone(), compiled);
        }
        // One after the other, and the pointer before the wake.
        self.policy_changed.send_modify(|version| {
            *version += 1;
            self.policy.store(Arc::new(Current {
                version: *version,
                policy: std::mem::replace(&mut policy, Policy::deny_all()),
                services: std::mem::take(&mut of_services),
                nobody: Policy::deny_all(),
                not_understood: not_understood.clone(),
            }));
        });
        not_understood
    }
}
