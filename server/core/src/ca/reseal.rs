//! The CA's keys in envelopes of another sealing key: every server can open them before they are
//! written. And the key of those that are written is fetched from Vault, where it is there.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use mesh_ca::{SealBy, SealedWith, reseal};
use mesh_proto::servers::v1::CanOpenRequest;
use mesh_raft::Peer;

use super::read_state;
use super::rotate::{Plan, Refused, finish};
use crate::core::Core;

/// Between two attempts to have Vault open a key.
const AGAIN: Duration = Duration::from_secs(2);

/// Seals the CA's keys with another key, or with `dry_run` says what it would be.
pub(crate) async fn seal_with(
    core: &Core,
    by: SealBy,
    cas: Option<u64>,
    dry_run: bool,
) -> Result<Plan, Refused> {
    let state = core.store.state();
    let row = state.ca().ok_or(Refused::NoCa)?;
    let ca = read_state(&row.value).map_err(Refused::Failed)?;
    let cas = cas.unwrap_or(row.modify_index);
    let failed = |error: mesh_ca::CaError| Refused::Failed(error.to_string());
    let keyring = &core.ca.keyring;
    let old = keyring.open(&ca.sealing).await.map_err(failed)?;
    let new = keyring.fresh(by).await;
    let new = new.map_err(|error| Refused::Wrong(error.to_string()))?;
    let mut plan = Plan::default();
    if new.id() == old.id() {
        return Ok(plan);
    }
    all_open(core, &new.sealed_with())
        .await
        .map_err(Refused::Wrong)?;
    let words = |by: SealBy, id: &str| format!("{} {id}", by.as_str());
    plan.changes.push(format!(
        "sealed with: {} -> {}",
        words(ca.sealing.by(), old.id()),
        words(by, new.id())
    ));
    let next = reseal(&ca, &old, &new).map_err(failed)?;
    keyring.hold(new);
    finish(core, plan, next, cas, dry_run).await
}

/// Whether every server can open what this key seals; one that cannot would sign nothing.
pub(crate) async fn all_open(core: &Core, with: &SealedWith) -> Result<(), String> {
    let status = core.raft.status();
    let members = status.voters.iter().chain(&status.learners);
    let others: Vec<&Peer> = members.filter(|peer| peer.id != core.me.id).collect();
    let transit = with.transit.clone();
    let ask = CanOpenRequest {
        key_id: with.id.clone(),
        mount: transit
            .as_ref()
            .map(|one| one.mount.clone())
            .unwrap_or_default(),
        key: transit
            .as_ref()
            .map(|one| one.key.clone())
            .unwrap_or_default(),
        data_key: transit.map(|one| one.data_key).unwrap_or_default(),
    };
    let answers = others
        .iter()
        .map(|peer| core.peers.can_open(&peer.addr, ask.clone()));
    for (peer, answer) in others.iter().zip(join_all(answers).await) {
        let why = match answer {
            Ok(answer) if answer.problem.is_empty() => continue,
            Ok(answer) => answer.problem,
            Err(status) => format!(
                "it does not answer whether it could open the keys: {}; start it, or remove it \
                 from the cluster",
                status.message()
            ),
        };
        return Err(format!("server {}: {why}", peer.name));
    }
    Ok(())
}

/// Has Vault open the key of the CA that is there, until it does. For as long as it is polled.
pub(crate) async fn keep_open(core: Arc<Core>) {
    let mut versions = core.versions.clone();
    loop {
        versions.borrow_and_update();
        let state = core.store.state();
        let ca = state.ca().and_then(|row| read_state(&row.value).ok());
        let closed =
            ca.filter(|ca| ca.sealing.transit.is_some() && core.ca.keyring.of(ca).is_err());
        let opened = match &closed {
            Some(ca) => Some(tokio::select! {
                () = core.stop.cancelled() => return,
                opened = core.ca.keyring.open(&ca.sealing) => opened,
            }),
            None => None,
        };
        match opened {
            Some(Err(error)) => {
                tracing::warn!(%error, "the CA's keys cannot be opened, so this server does not sign");
                tokio::select! {
                    () = core.stop.cancelled() => return,
                    () = tokio::time::sleep(AGAIN) => {}
                }
            }
            Some(Ok(key)) => {
                tracing::info!(key = key.id(), "Vault opened the key of the CA's keys")
            }
            None => tokio::select! {
                () = core.stop.cancelled() => return,
                changed = versions.changed() => if changed.is_err() { return },
            },
        }
    }
}
