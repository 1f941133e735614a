//! One agent's stream, from its hello to its end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mesh_model::{Node, Version};
use mesh_policy::Features;
use mesh_proto::servers::v1 as wire;
use mesh_proto::servers::v1::from_agent::Message as From;
use mesh_proto::servers::v1::to_agent::Message as To;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tonic::{Status, Streaming};

use super::MAX_TOPICS;
use super::catalog::{Stream, Worker, register};
use super::registry::Place;
use super::subscriptions::Subscriptions;
use crate::core::Core;

/// How long the hello may take.
const HELLO: Duration = Duration::from_secs(10);
/// Answers that wait for an agent that does not read.
const MAX_ANSWERS: usize = 256;
/// An agent that asks for nothing is marked all the same after this.
const ASKS_LATE: Duration = Duration::from_secs(2);

/// What goes to the agent.
pub(crate) type Outbox = mpsc::Sender<Result<wire::ToAgent, Status>>;

/// Serves a stream until it ends, and says why to the agent.
pub(crate) async fn serve(
    core: Arc<Core>,
    node: String,
    mut inbound: Streaming<wire::FromAgent>,
    out: Outbox,
) {
    let result = match greet(&core, &node, &mut inbound, &out).await {
        Ok((node, stream)) => match core.registry.open(&node.id, core.options.limits.agents) {
            None => Err(Status::resource_exhausted(
                "as many agents as this server takes are connected; try another",
            )),
            Some(place) => {
                tracing::info!(node = %node.id, "an agent's stream began");
                let session = Session::new(core.clone(), node, stream, place.clone());
                let result = session.run(inbound, &out).await;
                core.registry.close(&place);
                result
            }
        },
        Err(status) => Err(status),
    };
    if let Err(status) = result {
        tracing::info!(node, reason = %status.message(), "an agent's stream was ended");
        let _ = out.send(Err(status)).await;
    } else {
        tracing::info!(node, "an agent's stream ended");
    }
}

/// Takes the hello and answers it.
async fn greet(
    core: &Core,
    certified: &str,
    inbound: &mut Streaming<wire::FromAgent>,
    out: &Outbox,
) -> Result<(Node, Stream), Status> {
    let first = tokio::time::timeout(HELLO, inbound.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no hello came in time"))??;
    let Some(From::Hello(hello)) = first.and_then(|first| first.message) else {
        return Err(Status::invalid_argument("the first message is not a hello"));
    };
    let node: Node = serde_json::from_slice(&hello.node)
        .map_err(|error| Status::invalid_argument(format!("hello: node: {error}")))?;
    if node.id != certified {
        return Err(Status::permission_denied(format!(
            "hello: node {} is not {certified}, which the certificate names; give the agent its own certificate",
            node.id
        )));
    }
    // Without a leader the facts may be old; another server may have one.
    let fresh = core.fresh(crate::core::Freshness::Default).await;
    fresh.map_err(|error| Status::unavailable(error.to_string()))?;
    let state = core.store.state();
    let Some(cluster) = state.cluster() else {
        return Err(Status::unavailable("there is no cluster yet; try again"));
    };
    let cluster = &cluster.value;
    if !hello.cluster_id.is_empty() && hello.cluster_id != cluster.cluster_id {
        return Err(Status::failed_precondition(format!(
            "the agent belongs to cluster {}, and this is {}; start it once with -rejoin if that is meant",
            hello.cluster_id, cluster.cluster_id
        )));
    }
    let welcome = wire::Welcome {
        cluster_id: cluster.cluster_id.clone(),
        trust_domain: cluster.trust_domain.clone(),
        datacenter: cluster.datacenter.clone(),
        server: core.me.name.clone(),
        features: Features::default().names(),
        heartbeat_ms: heartbeat(core).as_millis() as u32,
        version: Some(state.version().into()),
    };
    let registered = register(core, &node).await;
    let stream = registered.map_err(|error| match error.may_pass() {
        true => Status::unavailable(error.to_string()),
        false => Status::invalid_argument(format!("hello: {error}")),
    })?;
    core.leases.heard(&node.id);
    send(out, To::Welcome(welcome)).await?;
    Ok((node, stream))
}

/// Three in a lease.
fn heartbeat(core: &Core) -> Duration {
    core.options.timing.lease / 3
}

async fn send(out: &Outbox, message: To) -> Result<(), Status> {
    let message = wire::ToAgent {
        message: Some(message),
    };
    let sent = out.send(Ok(message)).await;
    sent.map_err(|_| Status::cancelled("the agent is gone"))
}

struct Session {
    core: Arc<Core>,
    place: Place,
    worker: Worker,
    topics: Subscriptions,
    /// Messages that go before facts.
    answers: VecDeque<To>,
    /// The agent has said what it wants, or had the time to.
    asked: bool,
    marked: Option<Version>,
    mark_at: Instant,
}

impl Session {
    fn new(core: Arc<Core>, node: Node, stream: Stream, place: Place) -> Self {
        Self {
            worker: Worker::begin(core.clone(), node, stream),
            core,
            place,
            topics: Subscriptions::default(),
            answers: VecDeque::new(),
            asked: false,
            marked: None,
            mark_at: Instant::now(),
        }
    }

    async fn run(
        mut self,
        mut inbound: Streaming<wire::FromAgent>,
        out: &Outbox,
    ) -> Result<(), Status> {
        let core = self.core.clone();
        let timing = core.options.timing.clone();
        let replaced = self.place.replaced.clone();
        let mut versions = core.versions.clone();
        versions.mark_changed();
        let mut news = false;
        // A follower may not have applied yet what the hello had registered.
        let mut known = false;
        let asks_late = tokio::time::sleep(ASKS_LATE);
        tokio::pin!(asks_late);
        let mut resync = interval(timing.resync);
        let mut watchdog = interval(timing.leader_grace / 4);
        let mut heard = Instant::now();
        let silence = timing.lease * 2;
        loop {
            let mark_due = news && self.asked && !self.topics.is_dirty();
            // Who does not read is not read.
            let full = self.answers.len() >= MAX_ANSWERS;
            let to_send = !self.answers.is_empty() || self.topics.is_dirty();
            tokio::select! {
                () = core.stop.cancelled() => {
                    return Err(Status::unavailable("the server stops; try another"));
                }
                () = replaced.cancelled() => {
                    return Err(superseded());
                }
                message = inbound.message(), if !full => {
                    let Some(message) = message? else { return Ok(()) };
                    heard = Instant::now();
                    core.leases.heard(&self.place.node);
                    self.take(message)?;
                }
                Some(result) = self.worker.results.recv(), if !full => {
                    let result = result.map_err(|_| superseded())?;
                    self.answers.push_back(To::CatalogResult(result));
                }
                () = self.topics.woken() => {}
                permit = out.reserve(), if to_send => {
                    let permit = permit.map_err(|_| Status::cancelled("the agent is gone"))?;
                    if let Some(message) = self.next()? {
                        permit.send(Ok(wire::ToAgent { message: Some(message) }));
                    }
                }
                changed = versions.changed() => {
                    changed.map_err(|_| Status::unavailable("the server stops"))?;
                    news = true;
                    let was_known = known;
                    known = core.store.state().node(&self.place.node).is_some();
                    if was_known && !known {
                        // The agent lives: a stream that begins anew brings all of it back.
                        return Err(Status::aborted("this node was removed; say hello again"));
                    }
                }
                () = tokio::time::sleep_until(self.mark_at), if mark_due => {
                    news = !self.mark();
                    self.mark_at = Instant::now() + timing.mark_interval;
                }
                () = &mut asks_late, if !self.asked => self.asked = true,
                _ = resync.tick() => self.resync()?,
                _ = watchdog.tick() => {
                    if core.is_cut_off() {
                        let reason = "this server has lost the leader; try another";
                        return Err(Status::unavailable(reason));
                    }
                    // Also by a hello that came late: the agent begins again, and is heard.
                    if self.worker.is_superseded(&core.store.state(), &self.place.node) {
                        return Err(superseded());
                    }
                    if heard.elapsed() > silence {
                        return Err(Status::deadline_exceeded("the agent was not heard in time"));
                    }
                }
            }
        }
    }

    /// What the agent says.
    fn take(&mut self, message: wire::FromAgent) -> Result<(), Status> {
        match message.message {
            Some(From::Hello(_)) => {
                return Err(Status::invalid_argument(
                    "a second hello came on one stream",
                ));
            }
            Some(From::Subscribe(subscribe)) => self.subscribe(subscribe)?,
            Some(From::Ack(ack)) => {
                let version = ack.version.unwrap_or_default().into();
                self.core.registry.acked(&self.place, version, ack.lagging);
            }
            Some(From::Catalog(change)) => {
                let refused = self.worker.push(change);
                self.answers.extend(refused.map(To::CatalogResult));
            }
            Some(From::Proxies(report)) => {
                self.core.registry.reported(&self.place, report.proxies);
            }
            Some(From::Heartbeat(_)) => {}
            // A newer agent's; it knows from our features that we do not have it.
            None => tracing::debug!(node = %self.place.node, "a message is not known here"),
        }
        Ok(())
    }

    fn subscribe(&mut self, subscribe: wire::Subscribe) -> Result<(), Status> {
        for text in &subscribe.remove {
            if let Ok(topic) = text.parse() {
                self.topics.remove(&topic);
            }
        }
        for held in subscribe.add {
            let topic = held.topic.parse();
            let topic = topic.map_err(|error: mesh_proto::fact::UnknownTopic| {
                Status::invalid_argument(error.to_string())
            })?;
            if self.topics.len() >= MAX_TOPICS && !self.topics.has(&topic) {
                return Err(Status::resource_exhausted(format!(
                    "more than {MAX_TOPICS} topics on one stream"
                )));
            }
            let has = held
                .version
                .map(|version| (Version::from(version), Bytes::from(held.checksum)));
            self.topics.add(topic, has);
        }
        self.asked = true;
        Ok(())
    }

    /// What goes to the agent next.
    fn next(&mut self) -> Result<Option<To>, Status> {
        if !self.answers.is_empty() {
            return Ok(self.answers.pop_front());
        }
        let fact = self.topics.next(&self.core.store, &self.core.facts);
        // Nothing is better than something empty.
        let fact = fact.map_err(|error| {
            tracing::error!(%error, "a fact cannot be made");
            Status::internal(error)
        })?;
        if let Some(fact) = &fact {
            let kind = if fact.unchanged { "unchanged" } else { "whole" };
            self.core
                .metrics
                .feed_facts
                .with_label_values(&[kind])
                .inc();
        }
        Ok(fact.map(To::Fact))
    }

    /// Says that everything is as of a version, if it is so; whether it was said.
    fn mark(&mut self) -> bool {
        let state = self.core.store.state();
        let version = state.version();
        if self.marked.as_ref() == Some(&version) {
            return true;
        }
        if !self.topics.is_current(&state) {
            return false;
        }
        self.core.registry.marked(&self.place, version.clone());
        self.core.metrics.feed_marks.inc();
        self.answers.push_back(To::Mark(wire::Mark {
            version: Some(version.clone().into()),
        }));
        self.marked = Some(version);
        true
    }

    fn resync(&mut self) -> Result<(), Status> {
        let state = self.core.store.state();
        if self.topics.len() == 0 || !self.topics.is_current(&state) {
            return Ok(()); // facts are on their way anyhow
        }
        let topics = self.topics.checksums(&state, &self.core.facts);
        self.answers.push_back(To::Checksums(wire::Checksums {
            version: Some(state.version().into()),
            topics: topics.map_err(Status::internal)?,
        }));
        Ok(())
    }
}

fn superseded() -> Status {
    Status::aborted("another stream of this node counts by now; say hello again")
}

/// Ticks, the first time after one period.
fn interval(period: Duration) -> tokio::time::Interval {
    let period = period.max(Duration::from_millis(1));
    let mut interval = tokio::time::interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
