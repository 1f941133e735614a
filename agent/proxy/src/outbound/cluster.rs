//! Instances to choose from, and what this worker knows of them.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_balance::{
    BudgetConfig, Endpoint, EndpointSet, Health, Outcome, Outlier, Picked, Policy, RetryBudget,
    Token,
};
use mesh_model::{LoadBalancer, OutlierDetection};
use mesh_proto::config as form;

use crate::config;
use crate::peer::Peer;
use crate::telemetry::{Counter, Direction, HttpSeries, StreamSeries};
use crate::worker::Worker;

/// A cluster on one worker. It outlives configs: what was learned stays. What nobody called has
/// nothing but its config, since much may be configured that is never called.
pub(crate) struct ClusterState {
    worker: Rc<Worker>,
    source: Arc<str>,
    config: RefCell<Arc<config::Cluster>>,
    learned: OnceCell<Box<Learned>>,
    retries: OnceCell<Arc<Counter>>,
    http: OnceCell<Rc<HttpSeries>>,
    streams: OnceCell<Rc<StreamSeries>>,
}

/// What calls have taught, from the first on.
struct Learned {
    set: RefCell<EndpointSet<Arc<str>, Rc<Instance>>>,
    budget: RefCell<RetryBudget>,
}

/// One instance, and its connections.
pub(crate) struct Instance {
    pub(crate) endpoint: Arc<config::Endpoint>,
    pub(crate) peer: Rc<Peer>,
}

impl ClusterState {
    pub(crate) fn new(
        worker: &Rc<Worker>,
        source: &Arc<str>,
        config: Arc<config::Cluster>,
    ) -> Rc<Self> {
        Rc::new(Self {
            worker: worker.clone(),
            source: source.clone(),
            config: RefCell::new(config),
            learned: OnceCell::new(),
            retries: OnceCell::new(),
            http: OnceCell::new(),
            streams: OnceCell::new(),
        })
    }

    /// Takes a new list of instances.
    pub(crate) fn update(&self, config: Arc<config::Cluster>) {
        if let Some(learned) = self.learned.get() {
            self.fill(&mut learned.set.borrow_mut(), &config);
        }
        *self.config.borrow_mut() = config;
    }

    /// The requests to it.
    pub(crate) fn http(&self) -> &Rc<HttpSeries> {
        self.http.get_or_init(|| {
            let config = self.config.borrow();
            let protocol = match config.protocol.is_http() {
                true => config.protocol.as_str(),
                false => "http",
            };
            let destination = config.service.to_string();
            (self.worker.metrics).http(Direction::Outbound, &self.source, &destination, protocol)
        })
    }

    /// The byte streams to it.
    pub(crate) fn streams(&self) -> &Rc<StreamSeries> {
        self.streams.get_or_init(|| {
            let destination = self.config.borrow().service.to_string();
            (self.worker.metrics).streams(Direction::Outbound, &self.source, &destination, "tcp")
        })
    }

    /// The retries, by the name of the destination.
    pub(crate) fn retries(&self) -> &Counter {
        let make = || {
            let destination = self.config.borrow().service.to_string();
            self.worker.metrics.retries(&destination)
        };
        self.retries.get_or_init(make)
    }

    fn learned(&self) -> &Learned {
        self.learned.get_or_init(|| {
            let config = self.config.borrow();
            let mut set = EndpointSet::new(policy(config.load_balancer));
            self.fill(&mut set, &config);
            Box::new(Learned {
                set: RefCell::new(set),
                budget: RefCell::new(RetryBudget::new(BudgetConfig::default())),
            })
        })
    }

    fn fill(&self, set: &mut EndpointSet<Arc<str>, Rc<Instance>>, config: &config::Cluster) {
        set.set_policy(policy(config.load_balancer));
        set.set_outlier(config.outlier.as_ref().map(outlier));
        let endpoints = config.endpoints.iter().map(|endpoint| Endpoint {
            key: endpoint.id.clone(),
            weight: endpoint.weight,
            health: match endpoint.health {
                form::Health::Healthy => Health::Passing,
                form::Health::Unknown => Health::Unknown,
            },
            value: Rc::new(Instance {
                endpoint: endpoint.clone(),
                peer: self.worker.peer(endpoint, &config.service),
            }),
        });
        let random = &mut *self.worker.random.borrow_mut();
        set.update(endpoints, self.worker.now(), random);
    }

    pub(crate) fn config(&self) -> Arc<config::Cluster> {
        self.config.borrow().clone()
    }

    /// Chooses an instance that was not tried, or where there is none one that
    /// was.
    pub(crate) fn pick(self: &Rc<Self>, tried: &[Token], now: Duration) -> Option<Pick> {
        let learned = self.learned();
        let random = &mut *self.worker.random.borrow_mut();
        let mut set = learned.set.borrow_mut();
        let picked = match set.pick(now, random, tried) {
            Some(picked) => picked,
            None if tried.is_empty() => return None,
            None => set.pick(now, random, &[])?,
        };
        let Some(instance) = set.value(&picked).cloned() else {
            set.done(picked, Outcome::Cancelled, now);
            return None;
        };
        Some(Pick {
            cluster: self.clone(),
            instance,
            picked: Some(picked),
        })
    }

    /// A request (not a retry) begins.
    pub(crate) fn request(&self) {
        let mut budget = self.learned().budget.borrow_mut();
        budget.request(self.worker.now());
    }

    /// Whether retries do not make an overload worse; counts one.
    pub(crate) fn may_retry(&self) -> bool {
        let mut budget = self.learned().budget.borrow_mut();
        budget.try_retry(self.worker.now())
    }
}

/// A choice, until it is known how it went.
pub(crate) struct Pick {
    cluster: Rc<ClusterState>,
    instance: Rc<Instance>,
    picked: Option<Picked>,
}

impl Pick {
    pub(crate) fn instance(&self) -> &Rc<Instance> {
        &self.instance
    }

    pub(crate) fn id(&self) -> &Arc<str> {
        &self.instance.endpoint.id
    }

    pub(crate) fn token(&self) -> Option<Token> {
        self.picked.as_ref().map(Picked::token)
    }

    /// There is a connection.
    pub(crate) fn connected(&self, now: Duration) {
        if let Some(picked) = &self.picked {
            self.cluster
                .learned()
                .set
                .borrow_mut()
                .connected(picked, now);
        }
    }

    /// It is over.
    pub(crate) fn done(mut self, outcome: Outcome) {
        self.give_back(outcome);
    }

    fn give_back(&mut self, outcome: Outcome) {
        if let Some(picked) = self.picked.take() {
            let now = self.cluster.worker.now();
            self.cluster
                .learned()
                .set
                .borrow_mut()
                .done(picked, outcome, now);
        }
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.give_back(Outcome::Cancelled);
    }
}

fn policy(balancer: LoadBalancer) -> Policy {
    match balancer {
        LoadBalancer::RoundRobin => Policy::RoundRobin,
        LoadBalancer::LeastRequest => Policy::LeastRequest,
        LoadBalancer::Random => Policy::Random,
    }
}

fn outlier(form: &OutlierDetection) -> Outlier {
    let base = form
        .base_ejection_time
        .map_or(Duration::from_secs(30), Into::into);
    Outlier {
        consecutive_failures: form.consecutive_5xx,
        base_ejection_time: base,
        max_ejection_time: base.max(Duration::from_secs(300)),
        max_ejection_percent: form.max_ejection_percent.unwrap_or(50),
    }
}
