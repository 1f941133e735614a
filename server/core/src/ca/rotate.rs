//! Changing the root: what is asked for becomes a state of the CA, and the leader takes the next
//! step when every proxy is where it must be.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use mesh_ca::{
    AWS_PCA, AwsPca, CaConfig, CaError, CaState, Cross, Import, VAULT, create, create_in_aws,
    create_in_vault, cross_obstacle, cross_sign, import, rotation,
};
use mesh_model::{NodeState, Version};
use mesh_proto::servers::v1::{AgentStatus, IdentifyResponse, ProxyStatus};
use mesh_raft::Peer;
use mesh_state::{Command, State};
use serde::Serialize;

use super::{no_vault, read_state};
use crate::core::Core;
use crate::error::WriteFailure;
use crate::peers::gather;

/// A sidecar that was started and is not connected to its agent is waited for so long: it, or its
/// agent, may be starting again. After that it is taken to be gone.
const GONE: Duration = Duration::from_secs(15);
/// How many of those that are waited for are named.
const NAMED: usize = 20;

/// Why a change of the CA was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// There is no CA yet.
    #[error("there is no CA yet; the leader makes it: try again")]
    NoCa,
    /// What was asked for does not go.
    #[error("{0}")]
    Wrong(String),
    /// Vault, or this server, could not do it now.
    #[error("{0}")]
    Failed(String),
    /// It was not committed.
    #[error(transparent)]
    Write(#[from] WriteFailure),
}

/// What is wanted of the CA.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    /// Other settings; where they name another root, that one.
    Config(CaConfig),
    /// Another root with the same settings.
    NewRoot,
    /// A root and an intermediate that somebody has already.
    Import(Arc<Import>),
    /// The rotation that has begun is undone.
    Abort,
}

/// What a wish comes to.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Plan {
    /// What is changed, for people.
    pub(crate) changes: Vec<String>,
    /// Whether the root is changed, step by step.
    pub(crate) rotates: bool,
    /// The id of the new root; in a dry run none is made.
    pub(crate) root: Option<String>,
    /// Whether the new root is certified by the old one; null where none is changed.
    pub(crate) cross_signature: Option<CrossSignature>,
    /// The index of the change; 0: nothing was written.
    pub(crate) index: u64,
}

/// Whether a new root is certified by the old one as well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct CrossSignature {
    /// The root that was asked to.
    pub(crate) by: String,
    /// Whether it did; in a dry run, whether nothing is known that forbids it.
    pub(crate) made: bool,
    /// Why not.
    pub(crate) reason: Option<String>,
}

impl CrossSignature {
    pub(crate) fn of(cross: &Cross) -> Self {
        Self {
            by: cross.by.clone(),
            made: cross.pem.is_some(),
            reason: cross.missing.clone(),
        }
    }

    /// What can be told before there is a new root.
    fn expected(core: &Core, ca: &CaState) -> Option<Self> {
        let reason = cross_obstacle(ca, now(core));
        Some(Self {
            by: ca.active_root()?.id.clone(),
            made: reason.is_none(),
            reason,
        })
    }
}

/// Does what is wished, or with `dry_run` says what it would be.
pub(crate) async fn change(
    core: &Core,
    wish: Wish,
    cas: Option<u64>,
    dry_run: bool,
) -> Result<Plan, Refused> {
    let state = core.store.state();
    let row = state.ca().ok_or(Refused::NoCa)?;
    let ca = read_state(&row.value).map_err(Refused::Failed)?;
    let cas = cas.unwrap_or(row.modify_index);
    let wrong = |error: CaError| Refused::Wrong(error.to_string());
    let mut plan = Plan::default();
    let wanted = match wish {
        Wish::Abort => {
            let next = rotation::abort(&ca).map_err(wrong)?;
            plan.changes.push("the rotation is undone".to_owned());
            return finish(core, plan, next, cas, dry_run).await;
        }
        Wish::Config(config) => {
            plan.changes = differences(&ca.config, &config);
            if plan.changes.is_empty() {
                return Ok(plan);
            }
            if !other_root(&ca.config, &config) {
                let next = CaState {
                    config,
                    ..ca.clone()
                };
                // What is on its way would bring the old settings back.
                rotation::idle(&ca).map_err(wrong)?;
                return finish(core, plan, next, cas, dry_run).await;
            }
            config
        }
        Wish::NewRoot => {
            if ca.config.aws_pca.is_some() {
                return Err(Refused::Wrong(in_aws()));
            }
            plan.changes.push("another root is made".to_owned());
            ca.config.clone()
        }
        Wish::Import(given) => return take_over(core, &ca, &given, plan, cas, dry_run).await,
    };
    plan.rotates = true;
    rotation::idle(&ca).map_err(wrong)?;
    all_reach(core, wanted.provider())
        .await
        .map_err(Refused::Wrong)?;
    if dry_run {
        plan.cross_signature = CrossSignature::expected(core, &ca);
        return Ok(plan);
    }
    let next = make(core, &ca, wanted).await?;
    let (id, now) = (next.active_root().map(|root| root.id.clone()), now(core));
    if id == ca.active_root().map(|root| root.id.clone()) {
        // The place is another one, and the root there is the one that signs.
        plan.rotates = false;
        let next = CaState {
            provider: next.provider,
            config: next.config,
            intermediate: next.intermediate,
            ..ca.clone()
        };
        return finish(core, plan, next, cas, dry_run).await;
    }
    plan.root = id;
    let begun = rotation::begin(&ca, next, now).map_err(wrong)?;
    let next = crossed(core, begun, &mut plan).await;
    finish(core, plan, next, cas, dry_run).await
}

/// Changes to a CA that somebody has, or to another intermediate of the root that signs.
async fn take_over(
    core: &Core,
    ca: &CaState,
    given: &Import,
    mut plan: Plan,
    cas: u64,
    dry_run: bool,
) -> Result<Plan, Refused> {
    let wrong = |error: CaError| Refused::Wrong(error.to_string());
    rotation::idle(ca).map_err(wrong)?;
    let domain = ca.domain().map_err(|e| Refused::Failed(e.to_string()))?;
    let sealing = core.ca.keyring.open(&ca.sealing).await;
    let sealing = &*sealing.map_err(|e| Refused::Failed(e.to_string()))?;
    let config = ca.config.clone();
    let next = import(&domain, &ca.dc, config, given, sealing, now(core)).map_err(wrong)?;
    plan.changes = differences(&ca.config, &next.config);
    let (Some(root), Some(intermediate)) = (next.active_root(), &next.intermediate) else {
        return Err(Refused::Failed(
            "ca: what was imported is not whole".to_owned(),
        ));
    };
    let subject = &root.subject;
    if ca.active_root().is_none_or(|active| active.id != root.id) {
        plan.rotates = true;
        plan.changes
            .push(format!("the root {subject} is taken over"));
        plan.root = Some(root.id.clone());
        let mut next = rotation::begin(ca, next, now(core)).map_err(wrong)?;
        match dry_run {
            true => plan.cross_signature = CrossSignature::expected(core, ca),
            false => next = crossed(core, next, &mut plan).await,
        }
        return finish(core, plan, next, cas, dry_run).await;
    }
    if next.root_key.is_some() && ca.root_key.is_none() {
        plan.changes
            .push(format!("the key of the root {subject} is here from now on"));
    }
    if ca
        .intermediate
        .as_ref()
        .is_none_or(|one| one.id != intermediate.id)
    {
        plan.changes
            .push(format!("another intermediate of the root {subject} signs"));
    }
    if plan.changes.is_empty() {
        return Ok(plan);
    }
    let next = CaState {
        provider: next.provider,
        config: next.config,
        intermediate: next.intermediate,
        root_key: next.root_key.or_else(|| ca.root_key.clone()),
        ..ca.clone()
    };
    finish(core, plan, next, cas, dry_run).await
}

/// With the new root certified by the old one, where that can be done.
async fn crossed(core: &Core, begun: CaState, plan: &mut Plan) -> CaState {
    // Who made the new CA has it; else that would have failed.
    let Ok(sealing) = core.ca.keyring.open(&begun.sealing).await else {
        return begun;
    };
    let next = cross_sign(&begun, core.ca.vault.as_deref(), &sealing, now(core)).await;
    let cross = next.rotation.as_ref().and_then(|one| one.cross.as_ref());
    plan.cross_signature = cross.map(CrossSignature::of);
    if let Some(reason) = cross.and_then(|cross| cross.missing.as_ref()) {
        tracing::warn!(%reason, "the new root is not certified by the old one");
    }
    next
}

pub(crate) async fn finish(
    core: &Core,
    mut plan: Plan,
    next: CaState,
    cas: u64,
    dry_run: bool,
) -> Result<Plan, Refused> {
    if !dry_run {
        plan.index = put(core, &next, cas).await?;
        tracing::info!(changes = ?plan.changes, root = plan.root, "the CA is changed");
    }
    Ok(plan)
}

async fn put(core: &Core, next: &CaState, cas: u64) -> Result<u64, Refused> {
    let value = serde_json::to_value(next).map_err(|e| Refused::Failed(e.to_string()))?;
    let cas = Some(cas);
    let applied = core.write(Command::PutCa { value, cas }).await?;
    Ok(applied.version.index)
}

/// A new root where a CA in AWS has it.
fn in_aws() -> String {
    "the root is a CA in AWS, and a CA there has one root; make another CA there, and change to it \
     with `meshctl ca config write`"
        .to_owned()
}

/// A server that does not know how Vault is reached could sign nothing, and its agents would not
/// know; one that is built without AWS could not renew when it leads.
async fn all_reach(core: &Core, provider: &str) -> Result<(), String> {
    type Reaches = fn(&IdentifyResponse) -> bool;
    let (here, reaches, why_not): (_, Reaches, _) = match provider {
        VAULT => (
            core.ca.vault.as_ref().map(drop).ok_or_else(no_vault),
            |answer| answer.reaches_vault,
            "its configuration does not say how Vault is reached; give it \
             `ca { vault { address = …, auth … } }` and start it again",
        ),
        AWS_PCA => (
            match core.ca.aws.is_built() {
                true => Ok(()),
                false => Err(format!("server {}: {}", core.me.name, AwsPca::not_built())),
            },
            |answer| answer.reaches_aws,
            AwsPca::not_built(),
        ),
        _ => return Ok(()),
    };
    here?;
    let status = core.raft.status();
    let members = status.voters.iter().chain(&status.learners);
    let others: Vec<&Peer> = members.filter(|peer| peer.id != core.me.id).collect();
    let answers = join_all(others.iter().map(|peer| core.peers.identify(&peer.addr))).await;
    for (peer, answer) in others.iter().zip(answers) {
        let why = match answer {
            Ok(answer) if reaches(&answer) => continue,
            Ok(_) => why_not.to_owned(),
            Err(status) => format!(
                "it does not answer whether it can reach {provider}: {}",
                status.message()
            ),
        };
        return Err(format!("server {}: {why}", peer.name));
    }
    Ok(())
}

/// A whole CA with other settings, or another root.
async fn make(core: &Core, ca: &CaState, config: CaConfig) -> Result<CaState, Refused> {
    let failed = |error: CaError| Refused::Failed(error.to_string());
    let domain = ca.domain().map_err(|e| Refused::Failed(e.to_string()))?;
    let sealing = &*core.ca.keyring.open(&ca.sealing).await.map_err(failed)?;
    let now = now(core);
    // Where the place stays, the root that is there is the one to leave.
    let path = |config: &CaConfig| Some(config.vault.as_ref()?.root_pki_path.clone());
    let stays = path(&ca.config) == path(&config);
    let not = ca.active_root().map(|root| root.id.as_str());
    let not = not.filter(|_| stays);
    match config.provider() {
        AWS_PCA => create_in_aws(&core.ca.aws, &domain, &ca.dc, config, sealing, now)
            .await
            .map_err(failed),
        VAULT => {
            let vault = core.ca.vault.as_deref();
            let vault = vault.ok_or_else(|| Refused::Wrong(no_vault()))?;
            create_in_vault(vault, &domain, &ca.dc, config, not, sealing, now)
                .await
                .map_err(failed)
        }
        _ => create(&domain, &ca.dc, config, sealing, now).map_err(failed),
    }
}

/// Whether settings name another root than others.
pub(crate) fn other_root(is: &CaConfig, wanted: &CaConfig) -> bool {
    let moves = match (&is.vault, &wanted.vault) {
        (None, None) => false,
        (Some(is), Some(wanted)) => is.root_pki_path != wanted.root_pki_path,
        (None, Some(_)) | (Some(_), None) => true,
    };
    let moves = moves || is.aws_pca != wanted.aws_pca;
    moves || is.key_type != wanted.key_type
}

/// What differs, for people.
pub(crate) fn differences(is: &CaConfig, wanted: &CaConfig) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: &str, is: String, wanted: String| {
        if is != wanted {
            found.push(format!("{what}: {is} -> {wanted}"));
        }
    };
    let provider = |config: &CaConfig| config.provider().to_owned();
    let seconds = |seconds: u64| mesh_model::Duration::from_secs(seconds).to_string();
    compare("provider", provider(is), provider(wanted));
    let key = |config: &CaConfig| config.key_type.as_str().to_owned();
    compare("key_type", key(is), key(wanted));
    for (what, is, wanted) in [
        ("leaf_ttl", is.leaf_ttl_seconds, wanted.leaf_ttl_seconds),
        (
            "intermediate_ttl",
            is.intermediate_ttl_seconds,
            wanted.intermediate_ttl_seconds,
        ),
        ("root_ttl", is.root_ttl_seconds, wanted.root_ttl_seconds),
    ] {
        compare(what, seconds(is), seconds(wanted));
    }
    if let (Some(is), Some(wanted)) = (&is.vault, &wanted.vault) {
        let (a, b) = (is, wanted);
        compare(
            "root_pki_path",
            a.root_pki_path.clone(),
            b.root_pki_path.clone(),
        );
        compare(
            "intermediate_pki_path",
            a.intermediate_pki_path.clone(),
            b.intermediate_pki_path.clone(),
        );
        compare(
            "leaf_signing",
            a.leaf_signing.as_str().to_owned(),
            b.leaf_signing.as_str().to_owned(),
        );
    }
    if let (Some(is), Some(wanted)) = (&is.aws_pca, &wanted.aws_pca) {
        let arns = [&is.existing_arn, &wanted.existing_arn].map(String::clone);
        let [is, wanted] = arns;
        compare("existing_arn", is, wanted);
    }
    found
}

/// Where the proxies are with the roots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Standing {
    /// Proxies that are connected, and of those the ones that trust the root that comes.
    pub(crate) proxies: usize,
    pub(crate) trusting: usize,
    /// Leaves of connected proxies, by the root that they hang on; empty: not known.
    pub(crate) leaves: BTreeMap<String, usize>,
    /// How many of them are in the last third of their life: they were not renewed.
    pub(crate) late: usize,
    /// Who is waited for before the new root may sign: some of them.
    pub(crate) waiting: Vec<Waiting>,
    /// How many they are.
    pub(crate) waits: usize,
}

/// Somebody who is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Waiting {
    pub(crate) node: String,
    pub(crate) proxy: String,
    pub(crate) reason: String,
}

/// Since when a proxy is not connected, as the leader saw it.
pub(crate) type Absent = HashMap<(String, String), Duration>;

/// Looks at every proxy that is registered on a node that is alive.
pub(crate) async fn look(
    core: &Core,
    state: &State,
    ca: &CaState,
    absent: &mut Absent,
) -> Standing {
    let gathered = gather(core).await;
    let agents: HashMap<&str, &AgentStatus> = gathered
        .agents
        .iter()
        .map(|agent| (agent.node.as_str(), agent))
        .collect();
    let comes = ca.rotation.as_ref().map(|rotation| rotation.to.as_str());
    let index = state.ca().map_or(0, |row| row.modify_index);
    let (epoch, now) = (state.version().epoch, core.clock.monotonic());
    let late = core.clock.unix_millis() / 1000 + ca.config.leaf_ttl().as_secs() / 3;
    let mut standing = Standing::default();
    let mut missing = Absent::new();
    for row in state.nodes() {
        if row.value.state != NodeState::Alive {
            continue;
        }
        let node = row.value.id.as_str();
        let agent = agents.get(node);
        for instance in state.instances_on(node) {
            let Some(proxy) = &instance.value.proxy else {
                continue;
            };
            let status = agent.and_then(|agent| of(agent, &proxy.id));
            if let Some(status) = status.filter(|status| status.connected) {
                standing.proxies += 1;
                *standing.leaves.entry(status.leaf_root.clone()).or_default() += 1;
                let ends = u64::try_from(status.leaf_not_after).unwrap_or(0);
                standing.late += usize::from(ends > 0 && ends < late);
            }
            let wait = match (agent, status) {
                (None, _) => Some("its agent is connected to no server"),
                (Some(agent), _) if !has(agent, &epoch, index) => {
                    Some("its agent does not have the newest roots yet")
                }
                (Some(_), Some(status)) if status.connected => {
                    let trusts = |root: &str| status.roots.iter().any(|id| id == root);
                    match comes {
                        Some(root) if !trusts(root) => Some("it does not trust the new root yet"),
                        _ => {
                            standing.trusting += 1;
                            None
                        }
                    }
                }
                // Not connected to its agent: starting again, or gone.
                (Some(_), _) => {
                    let key = (node.to_owned(), proxy.id.clone());
                    let since = absent.get(&key).copied().unwrap_or(now);
                    missing.insert(key, since);
                    (now.saturating_sub(since) < GONE).then_some("it is not connected to its agent")
                }
            };
            if let Some(reason) = wait {
                standing.waits += 1;
                if standing.waiting.len() < NAMED {
                    standing.waiting.push(Waiting {
                        node: node.to_owned(),
                        proxy: proxy.id.clone(),
                        reason: reason.to_owned(),
                    });
                }
            }
        }
    }
    *absent = missing;
    standing
}

fn of<'a>(agent: &'a AgentStatus, proxy: &str) -> Option<&'a ProxyStatus> {
    agent.proxies.iter().find(|status| status.proxy == proxy)
}

/// Whether an agent has what the CA's row says.
fn has(agent: &AgentStatus, epoch: &str, index: u64) -> bool {
    let acked = agent.acked.clone().map(Version::from);
    acked.is_some_and(|acked| acked.epoch == epoch && acked.index >= index)
}

/// The next step of a rotation, when it may be taken: the next state of the CA.
pub(crate) fn step(
    core: &Core,
    ca: &CaState,
    standing: &Standing,
) -> Result<Option<CaState>, CaError> {
    let now = now(core);
    if ca.rotation.is_some() && standing.waits == 0 {
        // Half of what one server signs in a second, so that there is room for all else.
        let rate = u64::from(core.options.limits.sign_per_second / 2).max(1);
        let spread = (standing.proxies as u64).div_ceil(rate);
        return rotation::switch(ca, spread, now).map(Some);
    }
    if ca.retiring().next().is_none() || standing.waits > 0 {
        return Ok(None);
    }
    let used: BTreeSet<String> = standing.leaves.keys().cloned().collect();
    Ok(rotation::retire(ca, &used, now))
}

fn now(core: &Core) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(core.clock.unix_millis())
}
