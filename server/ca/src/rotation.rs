//! Changing the root, or who has it, while traffic flows.
//!
//! A change goes in steps, each one state of the CA that follows another one:
//!
//! 1. [`begin`]: the new root is trusted beside the old; what it will sign with stands ready
//!    ([`Rotation`]). The old one still signs.
//! 2. [`switch`]: the new one signs. The old is still trusted, and retires when every leaf that
//!    it may have signed has ended.
//! 3. [`retire`]: it is trusted no more.
//!
//! When the next step may be taken is the servers' to judge: the first when every proxy trusts the
//! new root, the second when none shows a leaf of the old. All that a step needs stands in the
//! state, so it does not matter which server takes it, and a step that was not committed was not
//! taken. [`abort`] undoes the first.

use std::collections::BTreeSet;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::cross::Cross;
use crate::error::CaError;
use crate::seal::Sealed;
use crate::state::{CaConfig, CaState, IntermediateEntry, RootEntry, short};
use crate::x509;

/// A server that has not heard of the switch may sign with the old root for so long, in seconds.
const LATE: u64 = 30;

/// A change of the root that has begun: what the CA is after the switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// The id of the new root.
    pub to: String,
    /// When it began, in seconds since 1970.
    pub began: u64,
    /// Who will sign.
    pub provider: String,
    /// With what settings.
    pub config: CaConfig,
    /// The new root's private key; only of the built-in CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_key: Option<Sealed>,
    /// What will sign leaves.
    pub intermediate: IntermediateEntry,
    /// The new root, certified by the old one: for programs that trust only that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cross: Option<Cross>,
}

impl CaState {
    /// The root that a rotation leads to.
    #[must_use]
    pub fn next_root(&self) -> Option<&RootEntry> {
        let rotation = self.rotation.as_ref()?;
        self.roots.iter().find(|root| root.id == rotation.to)
    }

    /// The roots that sign no more and are still trusted.
    pub fn retiring(&self) -> impl Iterator<Item = &RootEntry> {
        self.roots.iter().filter(|root| root.retires.is_some())
    }
}

/// Says when a rotation waits for its switch.
///
/// # Errors
/// When one does: which, and what can be done.
pub fn idle(state: &CaState) -> Result<(), CaError> {
    let Some(rotation) = &state.rotation else {
        return Ok(());
    };
    let to = short(&rotation.to);
    let reason = format!("a change to root {to} is under way; wait for it, or abort it");
    Err(CaError::state("rotation", reason))
}

/// The CA, with a rotation to what `next` is: a CA of the same trust domain, as
/// [`create`](crate::create) or [`create_in_vault`](crate::create_in_vault) make one.
///
/// # Errors
/// When a rotation is under way already, or the root is the one that signs now.
pub fn begin(state: &CaState, next: CaState, now: SystemTime) -> Result<CaState, CaError> {
    idle(state)?;
    if next.trust_domain != state.trust_domain {
        return Err(CaError::state("rotation", "the trust domain never changes"));
    }
    let (Some(new), Some(intermediate)) = (next.active_root(), next.intermediate.clone()) else {
        return Err(CaError::state("rotation", "the new CA is not whole"));
    };
    if state.active_root().is_some_and(|root| root.id == new.id) {
        let reason = format!("root {} signs already", short(&new.id));
        return Err(CaError::state("rotation", reason));
    }
    let mut roots = state.roots.clone();
    match roots.iter_mut().find(|root| root.id == new.id) {
        // Back to one that was on its way out.
        Some(known) => known.issuer.clone_from(&new.issuer),
        None => roots.push(RootEntry {
            active: false,
            ..new.clone()
        }),
    }
    Ok(CaState {
        roots,
        rotation: Some(Rotation {
            to: new.id.clone(),
            began: x509::unix(now),
            provider: next.provider,
            config: next.config,
            root_key: next.root_key,
            intermediate,
            cross: None,
        }),
        ..state.clone()
    })
}

/// The new root signs. Leaves of the old are to be replaced within `spread` seconds.
///
/// # Errors
/// When no rotation is under way.
pub fn switch(state: &CaState, spread: u64, now: SystemTime) -> Result<CaState, CaError> {
    let rotation = state
        .rotation
        .clone()
        .ok_or_else(|| CaError::state("rotation", "none is under way"))?;
    // Settings may have changed while it went: the longest life that a leaf may have had.
    let life = [&state.config, &rotation.config].map(|config| config.leaf_ttl().as_secs());
    let retires = x509::unix(now) + life.into_iter().max().unwrap_or(0) + LATE;
    let roots = state.roots.iter().cloned().map(|mut root| {
        let is_new = root.id == rotation.to;
        if is_new {
            root.retires = None;
            root.cross.clone_from(&rotation.cross);
        } else if root.active {
            root.retires = Some(retires);
        }
        root.active = is_new;
        root
    });
    Ok(CaState {
        provider: rotation.provider,
        roots: roots.collect(),
        intermediate: Some(rotation.intermediate),
        root_key: rotation.root_key,
        config: rotation.config,
        rotation: None,
        reissue_seconds: spread,
        ..state.clone()
    })
}

/// The CA without the roots that have retired, except those in `used`, of which a leaf was seen.
/// `None`: there is none to drop.
#[must_use]
pub fn retire(state: &CaState, used: &BTreeSet<String>, now: SystemTime) -> Option<CaState> {
    let now = x509::unix(now);
    let next = state.rotation.as_ref().map(|rotation| rotation.to.as_str());
    let stays = |root: &&RootEntry| {
        let over = root.retires.is_some_and(|at| at <= now);
        !over || root.active || used.contains(&root.id) || next == Some(root.id.as_str())
    };
    let mut roots: Vec<RootEntry> = state.roots.iter().filter(stays).cloned().collect();
    let left: BTreeSet<String> = roots.iter().map(|root| root.id.clone()).collect();
    for root in &mut roots {
        // With the root goes what it certified.
        root.cross = root.cross.take().filter(|cross| left.contains(&cross.by));
    }
    (roots.len() < state.roots.len()).then(|| CaState {
        roots,
        ..state.clone()
    })
}

/// The CA without the rotation that has begun: its root is trusted no more, unless it was before.
///
/// # Errors
/// When none is under way.
pub fn abort(state: &CaState) -> Result<CaState, CaError> {
    let rotation = state
        .rotation
        .as_ref()
        .ok_or_else(|| CaError::state("rotation", "none is under way"))?;
    let stays = |root: &&RootEntry| root.id != rotation.to || root.active || root.retires.is_some();
    Ok(CaState {
        roots: state.roots.iter().filter(stays).cloned().collect(),
        rotation: None,
        ..state.clone()
    })
}
