//! One stream to one server, from the hello to its end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::{Node, NodeState, Version};
use mesh_proto::fact::Topic;
use mesh_proto::servers::v1 as pb;
use mesh_proto::servers::v1::from_agent::Message as From;
use mesh_proto::servers::v1::servers_client::ServersClient;
use mesh_proto::servers::v1::to_agent::Message as To;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::Uplink;
use super::backoff::Backoff;
use super::desired::desired;
use super::sync::Sync;
use crate::facts::Put;

/// How long a server may take to welcome us.
const WELCOME: Duration = Duration::from_secs(30);
/// How long a server may leave what we say unread.
const UNREAD: Duration = Duration::from_secs(10);
/// Changes of the catalog within this time go together.
const CATALOG_DELAY: Duration = Duration::from_millis(10);
/// Changes of the proxies' states within this time go together.
const STATUS_DELAY: Duration = Duration::from_millis(20);
/// Messages that wait for the connection.
const OUTBOX: usize = 64;

/// Why a stream ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The servers have another state than the one that it began with.
    Restored,
    /// Anything else.
    Failed(String),
}

impl std::convert::From<String> for End {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Restored => "the servers' state was restored: beginning anew",
            Self::Failed(reason) => reason,
        })
    }
}

/// A stream whose server has welcomed us.
pub(super) struct Session<'a> {
    uplink: &'a Uplink,
    out: mpsc::Sender<pb::FromAgent>,
    inbound: Streaming<pb::ToAgent>,
    heartbeat: Duration,
    epoch: String,
    subscribed: Arc<BTreeSet<Topic>>,
    sync: Sync,
    reported: Option<Vec<pb::ProxyStatus>>,
    acked: Option<pb::Ack>,
    again: Again,
}

/// Facts that did not come as they should, to be asked for again: later each time, since a server
/// may have nothing better.
#[derive(Default)]
struct Again {
    topics: BTreeSet<Topic>,
    at: Option<Instant>,
    backoff: Backoff,
}

impl Again {
    fn ask(&mut self, topic: Topic) {
        self.topics.insert(topic);
        if self.at.is_none() {
            self.at = Some(Instant::now() + self.backoff.step());
        }
    }

    fn came(&mut self, topic: &str) {
        self.topics.retain(|it| it.to_string() != topic);
        if self.topics.is_empty() {
            *self = Self::default();
        }
    }
}

impl<'a> Session<'a> {
    /// Says hello, and checks whose the server is.
    pub(super) async fn open(
        uplink: &'a Uplink,
        client: &mut ServersClient<Channel>,
    ) -> Result<Self, String> {
        let (out, outbox) = mpsc::channel(OUTBOX);
        let node = Node {
            id: uplink.parts.node_id.clone(),
            name: uplink.parts.node_name.clone(),
            address: uplink.parts.advertise.clone(),
            version: crate::VERSION.to_owned(),
            meta: uplink.parts.meta.clone(),
            state: NodeState::Alive,
            stream: 0,
        };
        let hello = pb::AgentHello {
            node: serde_json::to_vec(&node).map_err(|e| e.to_string())?,
            features: uplink.parts.facts.features(),
            cluster_id: uplink.parts.membership.hello(),
        };
        send(&out, From::Hello(hello)).await?;
        let welcomed = async {
            let answer = client.open(ReceiverStream::new(outbox)).await;
            let mut inbound = answer.map_err(|s| shown(&s))?.into_inner();
            let first = inbound.message().await.map_err(|s| shown(&s))?;
            match first.and_then(|first| first.message) {
                Some(To::Welcome(welcome)) => Ok((inbound, welcome)),
                Some(_) => Err("its first message is not a welcome".to_owned()),
                None => Err("it ended the stream without a welcome".to_owned()),
            }
        };
        let (inbound, welcome) = tokio::time::timeout(WELCOME, welcomed)
            .await
            .map_err(|_| format!("no welcome within {} s", WELCOME.as_secs()))??;
        let (membership, asked) = (uplink.parts.membership.clone(), welcome.clone());
        tokio::task::spawn_blocking(move || membership.check(&asked))
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
        tracing::info!(
            server = welcome.server,
            cluster = welcome.cluster_id,
            "the stream to a server began"
        );
        Ok(Self {
            uplink,
            out,
            inbound,
            heartbeat: Duration::from_millis(welcome.heartbeat_ms.clamp(100, 60_000).into()),
            epoch: welcome.version.unwrap_or_default().epoch,
            subscribed: Arc::default(),
            sync: Sync::default(),
            reported: None,
            acked: None,
            again: Again::default(),
        })
    }

    /// Serves the stream until it ends, and says why it did.
    pub(super) async fn run(mut self) -> End {
        match self.serve().await {
            Ok(()) => End::Failed("the server ended it".to_owned()),
            Err(end) => end,
        }
    }

    async fn serve(&mut self) -> Result<(), End> {
        let parts = &self.uplink.parts;
        let mut catalog = parts.catalog.watch();
        let mut checks = parts.board.watch();
        let mut wanted = parts.compiler.wanted();
        let mut done = parts.compiler.done();
        let mut records = parts.records.watch();
        wanted.mark_changed();
        let mut look_at = Some(Instant::now());
        let mut tell_at = Some(Instant::now());
        let mut heartbeat = tokio::time::interval(self.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let gone = |_| stops();
        loop {
            tokio::select! {
                message = self.inbound.message() => {
                    let Some(message) = message.map_err(|s| shown(&s))? else { return Ok(()) };
                    if self.take(message).await? {
                        look_at.get_or_insert_with(Instant::now);
                    }
                }
                changed = wanted.changed() => {
                    changed.map_err(gone)?;
                    let topics = wanted.borrow_and_update().clone();
                    self.subscribe(topics).await?;
                }
                changed = catalog.changed() => {
                    changed.map_err(gone)?;
                    look_at.get_or_insert_with(|| Instant::now() + CATALOG_DELAY);
                    tell_at.get_or_insert_with(|| Instant::now() + STATUS_DELAY);
                }
                changed = checks.changed() => {
                    changed.map_err(gone)?;
                    look_at.get_or_insert_with(|| Instant::now() + CATALOG_DELAY);
                }
                changed = done.changed() => {
                    changed.map_err(gone)?;
                    tell_at.get_or_insert_with(|| Instant::now() + STATUS_DELAY);
                }
                changed = records.changed() => {
                    changed.map_err(gone)?;
                    tell_at.get_or_insert_with(|| Instant::now() + STATUS_DELAY);
                }
                () = at(look_at) => {
                    look_at = None;
                    self.catalog().await?;
                }
                () = at(self.again.at) => {
                    self.again.at = None;
                    let topics: Vec<Topic> = self.again.topics.iter().cloned().collect();
                    self.ask_anew(&topics).await?;
                }
                () = at(self.sync.wakes_at()) => self.catalog().await?,
                () = at(self.sync.late_at()) => {
                    return Err("it did not answer a change of the catalog in time".to_owned().into());
                }
                () = at(tell_at) => {
                    tell_at = None;
                    self.tell().await?;
                }
                _ = heartbeat.tick() => {
                    send(&self.out, From::Heartbeat(pb::Heartbeat {})).await?;
                }
                () = self.uplink.parts.stop.cancelled() => return Err(stops().into()),
            }
        }
    }

    /// Takes a message; whether the catalog may go on by it.
    async fn take(&mut self, message: pb::ToAgent) -> Result<bool, End> {
        let facts = &self.uplink.parts.facts;
        match message.message {
            Some(To::Fact(fact)) => {
                self.same_epoch(fact.version.as_ref())?;
                let topic = fact.topic.clone();
                match facts.put(fact) {
                    Put::AskAgain(topic) => self.again.ask(topic),
                    Put::Taken | Put::Older => self.again.came(&topic),
                    Put::Unknown => {}
                }
            }
            Some(To::Mark(mark)) => {
                self.same_epoch(mark.version.as_ref())?;
                facts.set_mark(mark.version.unwrap_or_default().into());
            }
            Some(To::Checksums(sums)) => {
                let topics = facts.differing(&sums);
                for topic in &topics {
                    tracing::error!(%topic, "what is held is not what the server has; asking again");
                }
                self.ask_anew(&topics).await?;
            }
            Some(To::CatalogResult(result)) => {
                if let Some(error) = self.sync.answered(&result, Instant::now()) {
                    tracing::error!(error, "the servers refuse a change of this node's catalog");
                }
                return Ok(true);
            }
            Some(To::Welcome(_)) => return Err("it welcomed us twice".to_owned().into()),
            // A newer server's; it knows from our features that we do not have it.
            None => {}
        }
        Ok(false)
    }

    /// In another epoch nothing that this stream built on need hold: not whose cluster it is, not
    /// that this node is registered, not what was taken of its catalog. So another one begins.
    fn same_epoch(&self, version: Option<&pb::Version>) -> Result<(), End> {
        match version {
            Some(version) if version.epoch != self.epoch => {
                tracing::warn!(
                    from = self.epoch,
                    to = version.epoch,
                    "the servers' state is of another epoch"
                );
                Err(End::Restored)
            }
            _ => Ok(()),
        }
    }

    /// Subscribes as if nothing were held.
    async fn ask_anew(&mut self, topics: &[Topic]) -> Result<(), String> {
        if topics.is_empty() {
            return Ok(());
        }
        let add = topics.iter().map(|topic| pb::Held {
            topic: topic.to_string(),
            ..pb::Held::default()
        });
        let subscribe = pb::Subscribe {
            add: add.collect(),
            remove: Vec::new(),
        };
        send(&self.out, From::Subscribe(subscribe)).await
    }

    /// Asks for what is wanted now. The first time also when nothing is: that too is said.
    async fn subscribe(&mut self, wanted: Arc<BTreeSet<Topic>>) -> Result<(), String> {
        let held = |topic| self.uplink.parts.facts.held(topic, &self.epoch);
        let add = wanted.difference(&self.subscribed).map(held).collect();
        let remove = self.subscribed.difference(&wanted);
        let remove = remove.map(Topic::to_string).collect();
        send(&self.out, From::Subscribe(pb::Subscribe { add, remove })).await?;
        self.subscribed = wanted;
        Ok(())
    }

    /// Sends the next change of the catalog, if there is one.
    async fn catalog(&mut self) -> Result<(), String> {
        let parts = &self.uplink.parts;
        let view = parts.catalog.view();
        let desired = desired(&view, &parts.board, &parts.node_id, &parts.advertise);
        match self.sync.next(&desired, Instant::now()) {
            Some(change) => send(&self.out, From::Catalog(change)).await,
            None => Ok(()),
        }
    }

    /// Says how the proxies are, and what they run, where that is news.
    async fn tell(&mut self) -> Result<(), String> {
        let parts = &self.uplink.parts;
        let view = parts.catalog.view();
        // Before the records: who lags behind it is seen then.
        let done: Version = parts.compiler.done().borrow().clone();
        let (records, compiler) = (&parts.records, &parts.compiler);
        let proxies = records.report(&view, compiler, &parts.node_id, &done);
        if self.reported.as_ref() != Some(&proxies) {
            let report = pb::ProxyReport {
                proxies: proxies.clone(),
            };
            send(&self.out, From::Proxies(report)).await?;
            self.reported = Some(proxies);
        }
        if done.epoch != self.epoch || done.epoch.is_empty() {
            return Ok(());
        }
        let ack = pb::Ack {
            lagging: records.lagging(&view, compiler, &parts.keys),
            version: Some(done.into()),
        };
        if self.acked.as_ref() != Some(&ack) {
            send(&self.out, From::Ack(ack.clone())).await?;
            self.acked = Some(ack);
        }
        Ok(())
    }
}

fn stops() -> String {
    "the agent stops".to_owned()
}

async fn send(out: &mpsc::Sender<pb::FromAgent>, message: From) -> Result<(), String> {
    let message = pb::FromAgent {
        message: Some(message),
    };
    let sent = out.send_timeout(message, UNREAD).await;
    sent.map_err(|_| "it does not read what we say".to_owned())
}

/// A moment that may never come.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn shown(status: &tonic::Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
