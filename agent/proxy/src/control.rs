//! The control side: what comes from the agent becomes what the data plane runs.
//!
//! Leaf, roots and config may come in any order. The data plane is made when
//! all three are there; from then on each is swapped on its own, and what is
//! refused leaves the last good one in use and is said in the ack. Only the
//! policy is always taken: what is unknown in it denies.

mod leaf;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub(crate) use leaf::trust;
use mesh_model::Version;
use mesh_policy::NotUnderstood;
use mesh_proto::config::ProxyConfig;
use mesh_proto::proxies::v1 as wire;
use mesh_proto::proxies::v1::ack::What;
use mesh_tls::{Credential, MeshTls, Revocations, Trust};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::feed::{Event, Wish};
use crate::keys::Keys;
use crate::lifecycle::at;
use crate::renewal::{LOOK, Renewal};
use crate::revoked;
use crate::status::Status;
use crate::{Ask, DataPlane, Options, Want};

/// How long after a leaf without the names that it needs another is asked for.
const NAMES_RETRY: Duration = Duration::from_secs(5);

/// The control side of one sidecar.
pub(crate) struct Control {
    /// Its id, for what is logged.
    pub(crate) proxy: String,
    /// The key of its leaf.
    pub(crate) keys: Arc<Keys>,
    /// With what the data plane is started.
    pub(crate) options: Options,
    /// What is said of it.
    pub(crate) status: Status,
    /// To the agent. Unbounded, so that this side never waits for the other,
    /// which may wait for this one; what is left of an ended stream the feed
    /// throws away.
    pub(crate) wishes: mpsc::UnboundedSender<Wish>,
    /// The data plane, once there is one: for the metrics and the drain.
    pub(crate) plane: tokio::sync::watch::Sender<Option<Arc<DataPlane>>>,
    /// The chain in use, DER: shown to an agent that has forgotten the key.
    pub(crate) chain: Arc<arc_swap::ArcSwap<Vec<Vec<u8>>>>,
}

/// Why the control side ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error(
        "the agent does not know this proxy any more, and its leaf is no proof: {0}. It must be started with a new ticket"
    )]
    Unknown(String),
    #[error(
        "this proxy's leaf was revoked, and its key is no proof any more: {0}. It must be started with a new ticket"
    )]
    Revoked(String),
}

#[derive(Default)]
struct Held {
    trust: Option<Trust>,
    /// Whom nobody is to believe; nothing runs before that is known.
    revoked: Option<Revocations>,
    leaf: Option<Credential>,
    config: Option<Pending>,
    tls: Option<Arc<MeshTls>>,
    /// When to ask for a leaf, as soon as there is an agent to ask.
    renewal: Renewal,
    connected: bool,
    not_after: Option<SystemTime>,
    /// When the leaf ends. None once that was told.
    end: Option<Instant>,
    /// Each root with its id, and the id of the one that signs now.
    roots: Vec<(Vec<u8>, Trust)>,
    active: Vec<u8>,
    /// Of the config that runs.
    version: Option<Version>,
    /// What the newest config needs in the leaf.
    dns_names: Vec<String>,
}

struct Pending {
    config: ProxyConfig,
    serial: u64,
    version: Version,
}

impl Control {
    /// Runs until the agent refuses a proxy that can prove nothing.
    pub(crate) async fn run(
        self,
        mut events: mpsc::Receiver<Event>,
        mut asks: mpsc::UnboundedReceiver<Ask>,
    ) -> Result<(), Refused> {
        let mut held = Held::default();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let renew = held.renewal.due().filter(|_| held.connected);
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.take(event, &mut held).await?,
                    None => return Ok(()),
                },
                Some(ask) = asks.recv() => self.ask(ask, &held),
                () = at(renew) => self.want_leaf(&mut held),
                // Also while there is no agent: that is when it matters.
                _ = look.tick() => self.look(&mut held),
                // At once: of a leaf of minutes the last third is short.
                () = at(held.renewal.late()) => self.look(&mut held),
                () = at(held.end) => {
                    held.end = None;
                    tracing::error!(
                        proxy = self.proxy,
                        "the leaf has expired, and was not renewed: nothing goes through the mesh \
                         until a server signs another"
                    );
                }
            }
        }
    }

    fn want_leaf(&self, held: &mut Held) {
        held.renewal.asked(Instant::now(), rand::random());
        self.wish(Wish::Leaf);
    }

    fn look(&self, held: &mut Held) {
        let (now, clock) = (Instant::now(), SystemTime::now());
        held.renewal.look(now, clock);
        if held.renewal.is_late(now, clock) {
            tracing::error!(
                proxy = self.proxy,
                connected = held.connected,
                "the leaf is in the last third of its life, and is not renewed yet"
            );
        }
    }

    async fn take(&self, event: Event, held: &mut Held) -> Result<(), Refused> {
        match event {
            Event::Connected => {
                tracing::info!(proxy = self.proxy, "connected to the agent");
                self.status.agent(String::new());
                held.connected = true;
                let due = held.renewal.is_due(Instant::now());
                let wants = self.plane.borrow().as_ref().map(|plane| plane.wants());
                if let Some(wants) = wants.filter(|wants| !wants.is_empty()) {
                    self.wish(Wish::Wants(on_the_wire(&wants)));
                }
                if let Some(ends) = held.not_after {
                    // This may be another agent, or one that has forgotten.
                    self.ack_leaf(ends, held);
                }
                if held.not_after.is_none() || due {
                    self.want_leaf(held);
                }
            }
            Event::Disconnected(reason) => {
                held.connected = false;
                tracing::warn!(
                    proxy = self.proxy,
                    reason,
                    "no agent; going on with the last config"
                );
                self.no_answers(&reason);
                self.status.agent(reason);
            }
            Event::Refused(reason) => {
                held.connected = false;
                self.no_answers(&reason);
                let alive = held.not_after.is_some_and(|end| end > SystemTime::now());
                if !alive {
                    return Err(Refused::Unknown(reason));
                }
                tracing::error!(
                    proxy = self.proxy,
                    reason,
                    "the agent refused this proxy; going on until the leaf ends"
                );
                self.status.agent(reason);
            }
            Event::Revoked(reason) => return Err(Refused::Revoked(reason)),
            Event::Revocations(list) => self.revocations(&list, held).await,
            Event::Roots(roots) => self.roots(roots, held).await,
            Event::Leaf(leaf) => {
                self.leaf(leaf, held).await;
                if self.lacks_names(held) {
                    // Whoever signed it did not know them yet.
                    held.renewal.by(Instant::now() + NAMES_RETRY);
                }
            }
            Event::Config(config) => {
                self.config(config, held).await;
                self.ask_for_names(held);
            }
            Event::Dns(answer) => {
                let message = match answer.error.is_empty() {
                    true => Ok(answer.message),
                    false => Err(answer.error),
                };
                if let Some(plane) = &*self.plane.borrow() {
                    plane.dns_answer(answer.id, message);
                }
            }
        }
        Ok(())
    }

    /// Asks for another leaf where the one in use has not the names that the
    /// config needs.
    fn ask_for_names(&self, held: &mut Held) {
        if self.lacks_names(held) && held.connected {
            self.want_leaf(held);
        }
    }

    fn lacks_names(&self, held: &Held) -> bool {
        let leaf = match &held.tls {
            Some(tls) => tls.leaf(),
            None => held.leaf.as_ref().map(|leaf| leaf.leaf().clone()),
        };
        leaf.is_some_and(|leaf| {
            held.dns_names
                .iter()
                .any(|name| !leaf.dns_names.contains(name))
        })
    }

    /// What the data plane asks. While there is no agent nothing is kept for
    /// it: wants are said when it is back, and a resolver asks again.
    fn ask(&self, ask: Ask, held: &Held) {
        match ask {
            Ask::Wants(wants) if held.connected => self.wish(Wish::Wants(on_the_wire(&wants))),
            Ask::Wants(_) => {}
            Ask::Dns { id, message } if held.connected => {
                self.wish(Wish::Dns(wire::DnsQuestion { id, message }));
            }
            Ask::Dns { id, .. } => {
                if let Some(plane) = &*self.plane.borrow() {
                    plane.dns_answer(id, Err("there is no agent".to_owned()));
                }
            }
        }
    }

    fn no_answers(&self, reason: &str) {
        if let Some(plane) = &*self.plane.borrow() {
            plane.dns_failed(reason);
        }
    }

    async fn revocations(&self, list: &wire::Revocations, held: &mut Held) {
        let (revoked, error) = match revoked::read(&list.list) {
            Ok(revoked) => (revoked, String::new()),
            Err(error) => {
                tracing::error!(
                    proxy = self.proxy,
                    error,
                    "what is revoked is not understood: nobody is believed"
                );
                (Revocations::everybody(), error)
            }
        };
        if let Some(tls) = &held.tls {
            tls.swap_revoked(revoked.clone());
        }
        if let Some(plane) = &*self.plane.borrow() {
            plane.revoke(revoked.clone());
        }
        self.status.have_revocations();
        let understood = error.is_empty();
        held.revoked = Some(revoked);
        self.ack(What::Revocations(list.serial), error, &[]);
        if understood {
            self.own_leaf(held);
        }
        self.start(held).await;
    }

    async fn config(&self, came: wire::Config, held: &mut Held) {
        let version: Version = came.version.clone().map(Into::into).unwrap_or_default();
        let newest = (held.config.as_ref()).map_or(held.version.as_ref(), |it| Some(&it.version));
        if let Some(error) = newest.and_then(|newest| older(&version, newest)) {
            // Nothing of it, its policy neither: it says what held before.
            tracing::warn!(proxy = self.proxy, error, "config is not taken");
            return self.ack(What::Config(came.serial), error, &[]);
        }
        match self.read(&came) {
            Ok(config) => {
                held.dns_names.clone_from(&config.dns_names);
                held.config = Some(Pending {
                    config,
                    serial: came.serial,
                    version,
                });
                self.start(held).await;
            }
            Err(error) => {
                tracing::error!(
                    proxy = self.proxy,
                    error,
                    "config is not taken; the last one stays, with the new policy"
                );
                self.status.refused(error.clone());
                let mut not_understood = Vec::new();
                if let Some(plane) = self.plane.borrow().clone() {
                    // Without a readable policy nobody may call.
                    let policy = ProxyConfig::policy_of(&came.config).unwrap_or_default();
                    let services = ProxyConfig::policies_of(&came.config);
                    not_understood = plane.apply_policies(&policy, &services);
                }
                self.ack(What::Config(came.serial), error, &not_understood);
            }
        }
    }

    fn read(&self, came: &wire::Config) -> Result<ProxyConfig, String> {
        let missing = self
            .options
            .features
            .missing(came.needs.iter().map(String::as_str));
        if !missing.is_empty() {
            return Err(format!(
                "needs {}, which this proxy does not have; upgrade it",
                missing.join(", ")
            ));
        }
        serde_json::from_slice(&came.config).map_err(|error| error.to_string())
    }

    /// Applies the newest config, once there are a leaf and roots.
    async fn start(&self, held: &mut Held) {
        if held.tls.is_none() {
            // All or none: what came alone waits for the others.
            let (Some(leaf), Some(trust), Some(revoked)) = (&held.leaf, &held.trust, &held.revoked)
            else {
                return;
            };
            match MeshTls::new(leaf.clone(), trust.clone()) {
                Ok(tls) => {
                    tls.swap_revoked(revoked.clone());
                    held.tls = Some(Arc::new(tls));
                }
                Err(error) => {
                    tracing::error!(proxy = self.proxy, %error, "leaf is not taken");
                    self.status.refused(error.to_string());
                    return;
                }
            }
        }
        let (Some(tls), Some(pending)) = (&held.tls, held.config.take()) else {
            return;
        };
        if self.plane.borrow().is_none() {
            let plane = DataPlane::new(tls.clone(), self.options.clone());
            self.plane.send_replace(Some(plane));
        }
        let Some(plane) = self.plane.borrow().clone() else {
            return;
        };
        let (error, not_understood) = match plane.apply(pending.config).await {
            Ok(applied) => {
                tracing::info!(
                    proxy = self.proxy,
                    version = %pending.version,
                    "config in use"
                );
                // The plane's own: a config is not held twice.
                if let Some(config) = plane.snapshot().config {
                    self.status.running(config, shown_version(&pending.version));
                }
                held.version = Some(pending.version);
                (String::new(), applied.not_understood)
            }
            Err(error) => {
                let error = error.to_string();
                tracing::error!(
                    proxy = self.proxy,
                    error,
                    "config is not taken; the last one stays"
                );
                self.status.refused(error.clone());
                (error, Vec::new())
            }
        };
        for one in &not_understood {
            tracing::error!(
                proxy = self.proxy,
                "denied, since it is not understood: {one}"
            );
        }
        self.ack(What::Config(pending.serial), error, &not_understood);
    }

    fn ack(&self, what: What, error: String, not_understood: &[NotUnderstood]) {
        self.wish(Wish::Ack(wire::Ack {
            what: Some(what),
            error,
            not_understood: not_understood.iter().map(ToString::to_string).collect(),
            ..wire::Ack::default()
        }));
    }

    fn wish(&self, wish: Wish) {
        // The feed ends only with the process.
        let _ = self.wishes.send(wish);
    }
}

/// Why a config of `came` is not taken in place of one of `now`: an agent that
/// was away may begin with what it had. Of another epoch nothing is known.
fn older(came: &Version, now: &Version) -> Option<String> {
    let empty = |version: &Version| *version == Version::default();
    let older = match empty(came) {
        true => !empty(now),
        false => came.epoch == now.epoch && came.index < now.index,
    };
    older.then(|| format!("it is of version {came}, and {now} runs"))
}

/// A version for people; nothing for none.
fn shown_version(version: &Version) -> String {
    match *version == Version::default() {
        true => String::new(),
        false => version.to_string(),
    }
}

fn on_the_wire(wants: &[Want]) -> wire::Wants {
    use wire::want::What;
    let wants = wants.iter().map(|want| wire::Want {
        what: Some(match want {
            Want::Service(key) => What::Service(format!("{}/{}", key.namespace, key.name)),
            Want::Address(address) => What::Address(address.to_string()),
        }),
    });
    wire::Wants {
        wants: wants.collect(),
    }
}

#[cfg(test)]
mod tests;
