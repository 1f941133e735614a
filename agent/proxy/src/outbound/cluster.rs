//! Instances to choose from, and what this worker knows of them.

use std::cell::RefCell;
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

/// A cluster on one worker. It outlives configs: what was learned stays.
pub(crate) struct ClusterState {
    worker: Rc<Worker>,
    config: RefCell<Arc<config::Cluster>>,
    set: RefCell<EndpointSet<Arc<str>, Rc<Instance>>>,
    budget: RefCell<RetryBudget>,
    /// By the name of the destination.
    pub(crate) retries: Arc<Counter>,
    pub(crate) http: Rc<HttpSeries>,
    pub(crate) streams: Rc<StreamSeries>,
}

/// One instance, and its connections.
pub(crate) struct Instance {
    pub(crate) endpoint: Arc<config::Endpoint>,
    pub(crate) peer: Rc<Peer>,
}

impl ClusterState {
    pub(crate) fn new(worker: &Rc<Worker>, source: &str, config: Arc<config::Cluster>) -> Rc<Self> {
        let destination = config.service.to_string();
        let metrics = &worker.metrics;
        let protocol = match config.protocol.is_http() {
            true => config.protocol.as_str(),
            false => "http",
        };
        let state = Rc::new(Self {
            worker: worker.clone(),
            set: RefCell::new(EndpointSet::new(policy(config.load_balancer))),
            budget: RefCell::new(RetryBudget::new(BudgetConfig::default())),
            retries: metrics.retries(&destination),
            http: metrics.http(Direction::Outbound, source, &destination, protocol),
            streams: metrics.streams(Direction::Outbound, source, &destination, "tcp"),
            config: RefCell::new(config.clone()),
        });
        state.update(config);
        state
    }

    /// Takes a new list of instances.
    pub(crate) fn update(&self, config: Arc<config::Cluster>) {
        let mut set = self.set.borrow_mut();
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
        *self.config.borrow_mut() = config;
    }

    pub(crate) fn config(&self) -> Arc<config::Cluster> {
        self.config.borrow().clone()
    }

    /// Chooses an instance that was not tried, or where there is none one that
    /// was.
    pub(crate) fn pick(self: &Rc<Self>, tried: &[Token]) -> Option<Pick> {
        let random = &mut *self.worker.random.borrow_mut();
        let now = self.worker.now();
        let mut set = self.set.borrow_mut();
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
        self.budget.borrow_mut().request(self.worker.now());
    }

    /// Whether retries do not make an overload worse; counts one.
    pub(crate) fn may_retry(&self) -> bool {
        self.budget.borrow_mut().try_retry(self.worker.now())
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
    pub(crate) fn connected(&self) {
        if let Some(picked) = &self.picked {
            let now = self.cluster.worker.now();
            self.cluster.set.borrow_mut().connected(picked, now);
        }
    }

    /// It is over.
    pub(crate) fn done(mut self, outcome: Outcome) {
        self.give_back(outcome);
    }

    fn give_back(&mut self, outcome: Outcome) {
        if let Some(picked) = self.picked.take() {
            let now = self.cluster.worker.now();
            self.cluster.set.borrow_mut().done(picked, outcome, now);
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
