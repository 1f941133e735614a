//! A worker: one thread, and everything that its connections need.
//!
//! All of it is the worker's own, so none of it is locked; connections and
//! streams are tasks that share it through `Rc`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::Key;
use mesh_proto::config::OriginTls;
use mesh_tls::{Handshakes, PeerLeaf, RevokedBy, SpiffeId};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rustls::ServerConfig;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::blocks;
use crate::config::{Address, Compiled, Endpoint, ListenKey, Transparent};
use crate::cut::Cut;
use crate::doors::Doors;
use crate::inbound::{Application, InboundView, TerminatingView};
use crate::ingress::IngressView;
use crate::lifecycle::Phase;
use crate::listen::Listener;
use crate::listening::{Listening, Role};
use crate::live::Live;
use crate::memory;
use crate::outbound::{ClusterState, OutboundView};
use crate::peer::{H2, HTTP_1, Peer};
use crate::plane::{Command, Drained, Shared};
use crate::scratch;
use crate::telemetry::{Direction, Metrics, Throttle, WorkerLog, WorkerTelemetry};
use crate::transparent::RedirectedView;
use crate::wide::{self, Wide};

/// How often idle connections are looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(15);
/// So many connections that ended leave memory that is worth giving back.
const A_CROWD: usize = 100;
/// How long what was cut may take to see it.
const AFTER_CUT: Duration = Duration::from_secs(1);
/// How often at least the end of the own certificate is looked at: the clock may be set.
const LOOK_AT_LEAF: Duration = Duration::from_secs(10);
/// The same while it has ended.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Where an application is, and how TLS is spoken to it.
type ApplicationKey = (Address, Option<Arc<OriginTls>>);

/// With what callers' handshakes are answered.
struct Accepting {
    /// The policy that it is made of.
    of: Arc<Handshakes>,
    worded: Arc<ServerConfig>,
    /// Made when it is first needed, which is seldom.
    wordless: Option<Arc<ServerConfig>>,
}

/// One worker.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Metrics,
    pub(crate) log: WorkerLog,
    pub(crate) live: Live,
    /// What callers could fill the log with.
    pub(crate) handshakes: Throttle,
    pub(crate) denials: Throttle,
    /// What instances could.
    pub(crate) dials: Throttle,
    /// What the application could.
    pub(crate) redirects: Throttle,
    /// Redirected connections that wait to be known.
    pub(crate) held: Rc<Cell<usize>>,
    pub(crate) random: RefCell<SmallRng>,
    accepting: RefCell<Option<Accepting>>,
    /// The own certificate had ended when that was last looked at.
    expired: Cell<bool>,
    began: std::time::Instant,
    clusters: RefCell<HashMap<String, Rc<ClusterState>>>,
    /// By the service as well: a gateway stands for several, and which is meant is
    /// said once, when the connection is made.
    peers: RefCell<HashMap<(Address, SpiffeId, Key), Rc<Peer>>>,
    applications: RefCell<HashMap<ApplicationKey, Rc<Application>>>,
    listening: RefCell<HashMap<ListenKey, Rc<Listening>>>,
    pub(crate) doors: Doors,
    /// Listeners that ended, with connections that have not.
    leaving: RefCell<Vec<Rc<Listening>>>,
}

impl Worker {
    pub(crate) fn new(index: usize, shared: Arc<Shared>, telemetry: WorkerTelemetry) -> Self {
        let random = match shared.options.seed {
            Some(seed) => SmallRng::seed_from_u64(seed.wrapping_add(index as u64)),
            None => SmallRng::from_os_rng(),
        };
        Self {
            metrics: Metrics::new(telemetry.registry),
            log: WorkerLog::new(telemetry.log),
            live: Live::default(),
            handshakes: Throttle::default(),
            denials: Throttle::default(),
            dials: Throttle::default(),
            redirects: Throttle::default(),
            held: Rc::default(),
            random: RefCell::new(random),
            accepting: RefCell::default(),
            expired: Cell::new(false),
            began: std::time::Instant::now(),
            clusters: RefCell::default(),
            peers: RefCell::default(),
            applications: RefCell::default(),
            listening: RefCell::default(),
            doors: Doors::default(),
            leaving: RefCell::default(),
            shared,
        }
    }

    /// Carries out orders until there are no more.
    pub(crate) async fn run(self: Rc<Self>, mut orders: mpsc::UnboundedReceiver<Command>) {
        tokio::task::spawn_local(self.clone().watch_policy());
        tokio::task::spawn_local(self.clone().watch_leaf());
        tokio::task::spawn_local(self.clone().keep_house());
        let worker = self.clone();
        tokio::task::spawn_local(async move { worker.live.arm_deadlines().await });
        while let Some(order) = orders.recv().await {
            match order {
                Command::Apply {
                    config,
                    sockets,
                    done,
                } => {
                    self.apply(&config, sockets);
                    tell(done, ());
                }
                Command::DrainInbound { deadline, done } => {
                    tell(done, self.drain_inbound(deadline).await);
                }
                Command::DrainOutbound { deadline, done } => {
                    let cut = self.drain_outbound(deadline).await;
                    self.log.flush();
                    tell(done, cut);
                }
            }
        }
        self.log.flush();
        // Clusters know their worker: it could not go otherwise.
        self.doors.forget();
        self.listening.take();
        self.clusters.take();
    }

    /// Says in the log what an intention denied, where the access log does not.
    pub(crate) fn say_denied(&self, source: &str, destination: &str, what: &str, reason: &str) {
        if self.log.is_on() {
            return;
        }
        if let Some(kept_back) = self.denials.may_say(std::time::Instant::now()) {
            tracing::warn!(source, destination, what, reason, kept_back, "denied");
        }
    }

    /// Whether the own certificate has ended, so that nothing may begin: also on connections that
    /// stand yet, since the other end may be slower to cut them.
    pub(crate) fn has_expired(&self) -> bool {
        // The clock is asked when it is known to have ended: there may be the next one.
        self.expired.get() && self.shared.leaf_left().is_zero()
    }

    /// The time of balancers.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        self.accepting(|it| it.worded.clone())
    }

    /// The same, without a word of what the bytes are.
    pub(crate) fn wordless_config(&self) -> Arc<ServerConfig> {
        self.accepting(|it| {
            let make = || self.shared.tls.server_config(&[]);
            it.wordless.get_or_insert_with(make).clone()
        })
    }

    /// What is made of the policy of handshakes, made again when that is another.
    fn accepting<T>(&self, with: impl FnOnce(&mut Accepting) -> T) -> T {
        let mut held = self.accepting.borrow_mut();
        let now = self.shared.tls.handshakes();
        let held = match &mut *held {
            Some(held) if Arc::ptr_eq(&held.of, &now) => held,
            other => other.insert(Accepting {
                worded: self.shared.tls.server_config(&[H2, HTTP_1, mesh_mux::ALPN]),
                wordless: None,
                of: now,
            }),
        };
        with(held)
    }

    /// Lets a connection to another sidecar, or from one, be cut when the
    /// certificate that was shown is revoked; whether it is good now.
    pub(crate) fn link<T>(&self, tls: &mut T) -> bool
    where
        T: Secured,
    {
        let (socket, session) = tls.parts();
        let Some(leaf) = PeerLeaf::of(session) else {
            return false;
        };
        // It may have been revoked since the handshake looked.
        let good = self.shared.tls.revoked().covers(&leaf).is_none();
        socket.set_linked(self.live.links.add(leaf));
        good
    }

    /// Cuts the connections whose other end is revoked.
    fn cut_revoked(&self) {
        let revoked = self.shared.tls.revoked();
        let tell = |leaf: &PeerLeaf, by: RevokedBy| {
            self.metrics.cut_revoked();
            if let Some(kept_back) = self.handshakes.may_say(std::time::Instant::now()) {
                let (peer, serial) = (&leaf.identity, &leaf.serial);
                tracing::warn!(peer, serial, reason = %by, kept_back, "a connection is cut");
            }
        };
        self.live.links.cut(&revoked, tell);
        if !revoked.is_empty() {
            // Nobody looks at these until they are used.
            for peer in self.peers.borrow().values() {
                peer.close_idle_http1();
            }
        }
    }

    /// The connections to an instance.
    pub(crate) fn peer(&self, endpoint: &Endpoint, service: &Key) -> Rc<Peer> {
        let (address, identity) = (endpoint.address.clone(), endpoint.identity.clone());
        let key = (address.clone(), identity.clone(), service.clone());
        let mut peers = self.peers.borrow_mut();
        let peer = peers
            .entry(key)
            .or_insert_with(|| Rc::new(Peer::new(address, identity)));
        peer.set_native(endpoint.native);
        peer.clone()
    }

    /// The connections to an application, or over TLS to a service outside.
    pub(crate) fn application(
        &self,
        address: &Address,
        tls: Option<&Arc<OriginTls>>,
    ) -> Rc<Application> {
        let transparent = &self.shared.transparent;
        let mut all = self.applications.borrow_mut();
        let (address, tls) = (address.clone(), tls.cloned());
        let application = all.entry((address.clone(), tls.clone()));
        let make = || Rc::new(Application::new(address, tls, transparent.clone()));
        let application = application.or_insert_with(make);
        application.clone()
    }

    /// Runs a config. Nothing in it can fail: it was compiled, and bound.
    fn apply(self: &Rc<Self>, config: &Compiled, sockets: Vec<(ListenKey, Listener)>) {
        self.update_clusters(config);
        let mut sockets: HashMap<_, _> = sockets.into_iter().collect();
        let mut before = self.listening.take();
        let mut now = HashMap::new();
        let mut run = |now: &mut HashMap<_, _>, key: ListenKey, role: Role| {
            if let Some(listening) = before.remove(&key) {
                listening.set_role(role);
                now.insert(key, listening);
            } else if let Some(socket) = sockets.remove(&key) {
                now.insert(key, Listening::begin(self, role, socket));
            } else if !key.is_bound() {
                now.insert(key, Listening::unbound(self, role));
            }
        };
        for (key, role) in self.roles(config) {
            run(&mut now, key, role);
        }
        if let Some(terminating) = &config.terminating {
            let view = Rc::new(TerminatingView::new(terminating, &now));
            for key in &terminating.keys {
                run(&mut now, key.clone(), Role::Terminating(view.clone()));
            }
        }
        for ingress in &config.ingress {
            // What is behind it is there now.
            let view = Rc::new(IngressView::new(self, ingress, &now));
            for key in &ingress.keys {
                run(&mut now, key.clone(), Role::Ingress(view.clone()));
            }
        }
        if let Some(transparent) = &config.transparent {
            // What it needs is there now.
            let view = Rc::new(self.redirected(config, transparent, &now));
            for key in &transparent.keys {
                run(&mut now, key.clone(), Role::Redirected(view.clone()));
            }
        }
        *self.listening.borrow_mut() = now;
        for listening in before.into_values() {
            self.leave(listening);
        }
        self.forget_unused();
    }

    /// Ends a listener; what it began goes on to its end.
    fn leave(self: &Rc<Self>, listening: Rc<Listening>) {
        listening.close(self);
        let mut leaving = self.leaving.borrow_mut();
        leaving.retain(|listening| listening.life.members() > 0);
        leaving.push(listening);
    }

    fn update_clusters(self: &Rc<Self>, config: &Compiled) {
        let source = Arc::from(config.service.to_string());
        let mut clusters = self.clusters.take();
        clusters.retain(|name, _| config.clusters.contains_key(name));
        for (name, cluster) in &config.clusters {
            match clusters.get(name) {
                Some(state) if state.config().service == cluster.service => {
                    state.update(cluster.clone());
                }
                _ => {
                    let state = ClusterState::new(self, &source, cluster.clone());
                    clusters.insert(name.clone(), state);
                }
            }
        }
        *self.clusters.borrow_mut() = clusters;
    }

    fn roles(&self, config: &Compiled) -> Vec<(ListenKey, Role)> {
        let clusters = self.clusters.borrow();
        let mut roles = Vec::new();
        if let Some(inbound) = &config.inbound {
            let view = InboundView::new(self, inbound.clone());
            roles.push((inbound.key.clone(), Role::Inbound(Rc::new(view))));
        }
        for outside in config.outside() {
            let view = InboundView::new(self, outside.clone());
            roles.push((outside.key.clone(), Role::Inbound(Rc::new(view))));
        }
        for outbound in &config.outbound {
            if let Some(view) = OutboundView::new(outbound.clone(), &clusters) {
                roles.push((outbound.key.clone(), Role::Outbound(Rc::new(view))));
            }
        }
        for expose in &config.expose {
            let role = Role::Exposed(Rc::new((**expose).clone()));
            roles.push((expose.key.clone(), role));
        }
        roles
    }

    fn redirected(
        &self,
        config: &Compiled,
        transparent: &Transparent,
        now: &HashMap<ListenKey, Rc<Listening>>,
    ) -> RedirectedView {
        let outbound = config.outbound.iter();
        let virtuals = outbound.filter_map(|one| match one.key {
            ListenKey::Virtual(address) => {
                let at = now.get(&one.key)?.clone();
                Some((address, (one.service.clone(), at)))
            }
            _ => None,
        });
        let source = config.service.to_string();
        RedirectedView::new(self, &source, transparent.mesh_only, virtuals.collect())
    }

    async fn drain_inbound(self: &Rc<Self>, deadline: Instant) -> Drained {
        let inbound: Vec<_> = self
            .all()
            .into_iter()
            .filter(|it| it.is_inbound())
            .collect();
        self.end(&inbound, deadline, Direction::Inbound).await
    }

    async fn drain_outbound(self: &Rc<Self>, deadline: Instant) -> Drained {
        // Until nothing of it is under way the application may call on.
        let quiet = self.live.open(Direction::Outbound).quiet();
        let in_time = timeout_at(deadline, quiet).await.is_ok();
        let others: Vec<_> = self
            .all()
            .into_iter()
            .filter(|it| !it.is_inbound())
            .collect();
        let deadline = match in_time {
            true => deadline.min(Instant::now() + AFTER_CUT),
            false => deadline,
        };
        self.end(&others, deadline, Direction::Outbound).await
    }

    fn all(&self) -> Vec<Rc<Listening>> {
        let mut all: Vec<_> = self.listening.borrow().values().cloned().collect();
        all.extend(self.leaving.borrow().iter().cloned());
        all
    }

    /// Lets listeners end, and cuts what has not ended at the deadline.
    async fn end(
        self: &Rc<Self>,
        all: &[Rc<Listening>],
        deadline: Instant,
        direction: Direction,
    ) -> Drained {
        for one in all {
            one.close(self);
        }
        let ended = async {
            for one in all {
                one.life.empty().await;
            }
        };
        if timeout_at(deadline, ended).await.is_ok() {
            return Drained::default();
        }
        let cut = self.live.open(direction).count();
        for one in all {
            one.life.enter(Phase::Ended);
        }
        let gone = async {
            for one in all {
                one.life.empty().await;
            }
        };
        let _ = timeout(AFTER_CUT, gone).await;
        cut
    }

    /// Looks at everything live again, each time that the policy changes, or what
    /// is revoked.
    async fn watch_policy(self: Rc<Self>) {
        let mut changed = self.shared.policy_changed.subscribe();
        // The first look is for a change before this task ran.
        loop {
            self.cut_revoked();
            self.live.check_again(&self.shared.policy());
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Cuts what goes through the mesh when this proxy's own certificate ends. One that can be
    /// renewed is replaced long before; so each end that cannot ends what it has, and whoever
    /// can need not know until when the other's next certificate is good.
    async fn watch_leaf(self: Rc<Self>) {
        loop {
            let left = self.shared.leaf_left();
            self.expired.set(left.is_zero());
            if left.is_zero() {
                self.live.cut_all(Cut::OwnExpired);
            }
            let next = if left.is_zero() { LOOK_AGAIN } else { left };
            sleep(next.min(LOOK_AT_LEAF)).await;
        }
    }

    async fn keep_house(self: Rc<Self>) {
        let idle = self.shared.options.limits.idle;
        let mut most = 0;
        loop {
            sleep(HOUSEKEEPING.min(idle)).await;
            let Some(before) = Instant::now().checked_sub(idle) else {
                continue;
            };
            for peer in self.peers.borrow().values() {
                peer.close_idle_since(before);
            }
            for application in self.applications.borrow().values() {
                application.close_idle_since(before);
            }
            self.forget_unused();
            memory::look(self.live.take_began());
            // What many connections had is not what few need, also of those that came and went
            // in between.
            let (highest, now) = self.all().iter().fold((0, 0), |(highest, now), one| {
                (highest + one.life.take_most(), now + one.life.members())
            });
            most = most.max(highest);
            blocks::let_go();
            wide::let_go();
            mesh_mux::let_go();
            let moved = scratch::let_go();
            if most - now > A_CROWD || moved >= scratch::MUCH {
                memory::give_back();
                most = now;
            }
        }
    }

    /// Lets go of pools that no cluster and nothing under way needs; what runs
    /// on their connections ends first.
    fn forget_unused(&self) {
        let unused = |count: usize| count == 1;
        self.peers
            .borrow_mut()
            .retain(|_, peer| !unused(Rc::strong_count(peer)));
        let mut applications = self.applications.borrow_mut();
        applications.retain(|_, application| !unused(Rc::strong_count(application)));
        self.metrics.forget_unused();
    }
}

/// A connection over TLS, at either end.
pub(crate) trait Secured {
    /// Its socket, and what was agreed.
    fn parts(&mut self) -> (&mut Wide, &rustls::CommonState);
}

impl Secured for tokio_rustls::server::TlsStream<Wide> {
    fn parts(&mut self) -> (&mut Wide, &rustls::CommonState) {
        let (socket, session) = self.get_mut();
        (socket, session)
    }
}

impl Secured for tokio_rustls::client::TlsStream<Wide> {
    fn parts(&mut self) -> (&mut Wide, &rustls::CommonState) {
        let (socket, session) = self.get_mut();
        (socket, session)
    }
}

/// Who asked may have gone.
fn tell<T>(done: oneshot::Sender<T>, value: T) {
    let _ = done.send(value);
}
