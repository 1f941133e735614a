//! The data plane as a whole.
//!
//! A config is taken in three steps, so that it is taken wholly or not at all:
//! compile it (touches nothing), bind what must be listened at and is not yet
//! (the only step that can fail for reasons outside), then hand config and
//! sockets to every worker. The policy goes another way, which cannot fail:
//! what it denies must not wait for a port.

mod command;
mod drain;
mod error;
mod options;
mod shared;
mod snapshot;
mod thread;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh_policy::{NotUnderstood, PolicyForm};
use mesh_proto::config::{ProxyConfig, ServicePolicy};
use mesh_tls::{Credential, Leaf, MeshTls, Revocations, Trust};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub(crate) use command::Command;
pub use drain::Drained;
pub use error::ApplyError;
pub use options::{AccessLog, Limits, LogSink, Options};
pub(crate) use shared::{Current, Shared};
pub use snapshot::{Bound, BoundAddress, BoundTo, Snapshot};

use crate::config::{Compiled, ListenKey};
use crate::listen::{self, Listener, SocketFile};
use crate::memory;
use crate::telemetry::Telemetry;
use crate::transparent::{self, Marking, Thread, Want};

/// The data plane of a sidecar: its workers, and what they run.
///
/// All methods may be called from any thread, and from any runtime.
pub struct DataPlane {
    shared: Arc<Shared>,
    telemetry: Telemetry,
    workers: Vec<mpsc::UnboundedSender<Command>>,
    /// One config is taken at a time.
    applying: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    config: Option<Arc<Compiled>>,
    listeners: BTreeMap<ListenKey, Listening>,
    dns: Option<Dns>,
    /// The thread that answers it, once there was a transparent config.
    beside: Option<Thread>,
}

impl State {
    fn listen_no_more(&mut self) {
        self.listeners.clear();
        self.dns = None;
        self.beside = None;
    }
}

/// DNS, while the config is transparent.
struct Dns {
    port: u16,
    addresses: Vec<SocketAddr>,
}

struct Listening {
    address: BoundAddress,
    _file: Option<SocketFile>,
}

/// What became of a config that was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// What of its policy this build does not understand, and therefore denies.
    pub not_understood: Vec<NotUnderstood>,
}

impl DataPlane {
    /// A data plane that listens nowhere and denies everything, until it gets a
    /// config.
    ///
    /// # Panics
    /// When the system gives no thread.
    #[must_use]
    pub fn new(tls: Arc<MeshTls>, options: Options) -> Arc<Self> {
        let count = options.concurrency.max(1);
        let telemetry = Telemetry::new(count, &options.access_log, tls.clone());
        let shared = Arc::new(Shared::new(tls, options, telemetry.for_dns()));
        let workers = (0..count)
            .map(|index| thread::spawn(index, shared.clone(), telemetry.for_worker(index)))
            .collect();
        Arc::new(Self {
            shared,
            telemetry,
            workers,
            applying: tokio::sync::Mutex::default(),
            state: Mutex::default(),
        })
    }

    /// Runs a config in place of the one before. What the two have in common
    /// goes on untouched: listeners with their connections, instances with
    /// their pools and their balancers' knowledge.
    ///
    /// The config's policy is in force first and in any case.
    ///
    /// # Errors
    /// When it cannot be run; then the one before runs on.
    pub async fn apply(&self, config: ProxyConfig) -> Result<Applied, ApplyError> {
        self.take(config, None).await
    }

    /// The same, with certificates that belong to the config: they are in use
    /// when it is, and not at all when it cannot be run.
    ///
    /// # Errors
    /// When it cannot be run, or the leaf is not a service's; then the config
    /// and the certificates before stay.
    pub async fn apply_with(
        &self,
        config: ProxyConfig,
        leaf: Credential,
        roots: Trust,
    ) -> Result<Applied, ApplyError> {
        self.take(config, Some((leaf, roots))).await
    }

    async fn take(
        &self,
        config: ProxyConfig,
        certificates: Option<(Credential, Trust)>,
    ) -> Result<Applied, ApplyError> {
        let not_understood = self.apply_policies(&config.policy, &config.policies);
        self.check_runs()?; // a drain holds the lock for long
        let _one_at_a_time = self.applying.lock().await;
        self.check_runs()?;
        let compiled = Arc::new(Compiled::new(config, &self.shared.options.features)?);
        let leaf = match &certificates {
            Some((leaf, _)) => Some(leaf.leaf().clone()),
            None => self.shared.tls.leaf(),
        };
        check_identity(&compiled, leaf.as_deref())?;
        let mark = match compiled.transparent {
            Some(_) => Marking::try_out()?,
            None => false,
        };
        let (sockets, fresh) = self.bind_missing(&compiled)?;
        let dns = self.bind_dns(&compiled)?;
        if let Some((leaf, roots)) = certificates {
            self.shared.tls.swap_leaf(leaf)?;
            self.shared.tls.swap_roots(roots);
        }
        let handshakes = compiled.handshakes.clone();
        self.shared.tls.swap_handshakes(handshakes);
        self.shared.transparent.marking.set(mark);
        let done: Vec<_> = self
            .workers
            .iter()
            .zip(sockets)
            .map(|(worker, sockets)| {
                let (done, is_done) = oneshot::channel();
                let _ = worker.send(Command::Apply {
                    config: compiled.clone(),
                    sockets,
                    done,
                });
                is_done
            })
            .collect();
        for (index, done) in done.into_iter().enumerate() {
            done.await.map_err(|_| ApplyError::Worker(index))?;
        }
        let mut state = self.state();
        state.listeners.extend(fresh);
        let keys: BTreeSet<_> = compiled.listen_keys().cloned().collect();
        state.listeners.retain(|key, _| keys.contains(key));
        self.answer_dns(&mut state, &compiled, dns);
        state.config = Some(compiled);
        memory::give_back_soon();
        Ok(Applied { not_understood })
    }

    /// Puts a policy in force, and gives back what of it is not understood and
    /// therefore denied. When this returns every new request is decided by it;
    /// what runs and is now denied ends within moments.
    pub fn apply_policy(&self, policy: &PolicyForm) -> Vec<NotUnderstood> {
        self.apply_policies(policy, &[])
    }

    /// The same, with the policies of the services that a terminating gateway
    /// stands for. A service without one may be called by nobody.
    pub fn apply_policies(
        &self,
        policy: &PolicyForm,
        services: &[ServicePolicy],
    ) -> Vec<NotUnderstood> {
        self.shared
            .apply_policies(policy, services, &self.shared.options.features)
    }

    /// Believes none of these any more. When this returns no handshake with one
    /// ends well; what runs with one is cut within moments, at whichever end it
    /// was made.
    pub fn revoke(&self, revoked: Revocations) {
        self.shared.tls.swap_revoked(revoked);
        self.shared.look_again();
    }

    /// Whether the inbound port is bound, or a gateway's ports: the proxy can be
    /// called.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        let state = self.state();
        let Some(config) = &state.config else {
            return false;
        };
        let inbound = config.inbound.iter().map(|inbound| &inbound.key);
        let ingress = config.ingress.iter().flat_map(|one| &one.keys);
        let terminating = config.terminating.iter().flat_map(|one| &one.keys);
        let mut keys = inbound.chain(ingress).chain(terminating).peekable();
        keys.peek().is_some()
            && keys.all(|key| state.listeners.contains_key(key))
            && !self.shared.draining.load(Ordering::Acquire)
    }

    /// Takes nothing new from other sidecars, lets what runs end, and then, or
    /// at the limit, stops. The application can call out until the end.
    ///
    /// Gives back what was cut.
    pub async fn drain(&self, limit: Duration) -> Drained {
        self.shared.draining.store(true, Ordering::Release);
        let _one_at_a_time = self.applying.lock().await;
        let deadline = Instant::now() + limit;
        let mut cut = self
            .to_all(|done| Command::DrainInbound { deadline, done })
            .await;
        cut += self
            .to_all(|done| Command::DrainOutbound { deadline, done })
            .await;
        self.state().listen_no_more();
        self.telemetry.flush_log().await;
        cut
    }

    /// All counters, in Prometheus' text form.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.telemetry.text()
    }

    /// What runs now, for people.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state();
        Snapshot::new(
            state.config.as_deref(),
            state.listeners.iter().map(|(key, one)| (key, &one.address)),
            state.dns.as_ref().map_or(&[], |dns| &dns.addresses),
            &self.shared,
        )
    }

    /// What the application asked for, in order; empty where the config is not
    /// transparent. Whoever feeds the plane says it again on each new stream.
    #[must_use]
    pub fn wants(&self) -> Vec<Want> {
        let transparent = &self.shared.transparent;
        match transparent.answers.borrow().is_some() {
            true => transparent.wanted.all(),
            false => Vec::new(),
        }
    }

    /// Takes an answer to [`Ask::Dns`](crate::Ask::Dns), or why there is none.
    pub fn dns_answer(&self, id: u64, answer: Result<Vec<u8>, String>) {
        self.shared.transparent.questions.answer(id, answer);
    }

    /// No answer will come any more to what was asked so far.
    pub fn dns_failed(&self, reason: &str) {
        self.shared.transparent.questions.fail(reason);
    }

    /// Where each listener is bound.
    #[must_use]
    pub fn bound(&self) -> Vec<Bound> {
        self.snapshot().listeners
    }

    async fn to_all(&self, command: impl Fn(oneshot::Sender<Drained>) -> Command) -> Drained {
        let waiting: Vec<_> = self
            .workers
            .iter()
            .map(|worker| {
                let (done, is_done) = oneshot::channel();
                let _ = worker.send(command(done));
                is_done
            })
            .collect();
        let mut sum = Drained::default();
        for one in waiting {
            sum += one.await.unwrap_or_default();
        }
        sum
    }

    fn check_runs(&self) -> Result<(), ApplyError> {
        match self.shared.draining.load(Ordering::Acquire) {
            true => Err(ApplyError::Draining),
            false => Ok(()),
        }
    }

    /// Binds what is not bound yet: for each worker its sockets, and what to
    /// remember.
    #[allow(clippy::type_complexity)]
    fn bind_missing(
        &self,
        config: &Compiled,
    ) -> Result<(Vec<Vec<(ListenKey, Listener)>>, Vec<(ListenKey, Listening)>), ApplyError> {
        let mut for_workers: Vec<_> = self.workers.iter().map(|_| Vec::new()).collect();
        let mut fresh = Vec::new();
        let before: Vec<ListenKey> = self.state().listeners.keys().cloned().collect();
        let stays: BTreeSet<_> = config.listen_keys().collect();
        for key in config.listen_keys().filter(|key| !before.contains(key)) {
            let goes = |old: &&ListenKey| !stays.contains(old) && old.has_port_of(key);
            let may_share = before.iter().any(|old| goes(&old));
            if !key.is_bound() {
                continue;
            }
            let bound = listen::bind(key, self.workers.len(), may_share);
            let optional = (config.transparent.as_ref()).is_some_and(|one| one.is_optional(key));
            if optional && bound.as_ref().is_err_and(listen::is_without_ipv6) {
                continue;
            }
            let sockets = bound.map_err(|source| ApplyError::Bind {
                address: key.to_string(),
                purpose: snapshot::purpose(config, key).to_string(),
                source,
            })?;
            for (worker, socket) in for_workers.iter_mut().zip(sockets.each) {
                worker.push((key.clone(), socket));
            }
            let listening = Listening {
                address: sockets.address,
                _file: sockets.file,
            };
            fresh.push((key.clone(), listening));
        }
        Ok((for_workers, fresh))
    }

    /// Binds the ports for DNS, where they are others than now.
    fn bind_dns(&self, config: &Compiled) -> Result<Option<transparent::Sockets>, ApplyError> {
        let Some(transparent) = &config.transparent else {
            return Ok(None);
        };
        let port = transparent.dns_port;
        let same = (self.state().dns.as_ref()).is_some_and(|dns| dns.port == port);
        if same {
            return Ok(None);
        }
        let bound = transparent::bind(port);
        bound.map(Some).map_err(|source| ApplyError::Bind {
            address: format!("port {port} of 127.0.0.1 and ::1"),
            purpose: BoundTo::Dns.to_string(),
            source,
        })
    }

    /// Answers DNS as a config says that runs now. Last, so that an address is
    /// taken by each worker before anybody hears of it.
    fn answer_dns(&self, state: &mut State, config: &Compiled, new: Option<transparent::Sockets>) {
        let shared = &self.shared.transparent;
        let Some(transparent) = &config.transparent else {
            shared.answers.send_replace(None);
            shared.wanted.clear();
            state.dns = None;
            state.beside = None;
            return;
        };
        shared
            .answers
            .send_replace(Some(transparent.answers.clone()));
        if let Some(sockets) = new {
            state.dns = Some(Dns {
                port: transparent.dns_port,
                addresses: sockets.addresses.clone(),
            });
            let start = || Thread::start(self.shared.clone());
            let beside = state.beside.get_or_insert_with(start);
            beside.listen(sockets);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing is left half done under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_identity(config: &Compiled, leaf: Option<&Leaf>) -> Result<(), ApplyError> {
    match leaf.and_then(|leaf| leaf.uri.as_ref()) {
        Some(leaf) if leaf != config.identity.as_str() => Err(ApplyError::Identity {
            config: config.identity.to_string(),
            leaf: leaf.clone(),
        }),
        _ => Ok(()),
    }
}

impl std::fmt::Debug for DataPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataPlane")
            .field("workers", &self.workers.len())
            .finish_non_exhaustive()
    }
}
