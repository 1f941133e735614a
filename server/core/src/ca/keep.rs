//! The leader's part: the CA is made once, and its intermediate renewed in time.
//!
//! It is a task of its own beside the leader's other duties: Vault may take its time.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use mesh_ca::{
    CaError, CaState, Vault, create, create_in_vault, renew_in_vault, renew_intermediate,
    renewal_due,
};
use mesh_state::{Command, State};

use super::{no_vault, read_state};
use crate::core::{Core, Freshness};
use crate::error::WriteFailure;

/// Between two looks at what is seldom due.
const SELDOM: Duration = Duration::from_secs(30);
/// Between two attempts at what failed, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Makes and renews what is due while this server leads. For as long as it runs.
pub(crate) async fn keep(core: Arc<Core>) {
    let mut leadership = core.raft.watch_leadership();
    let mut again = AGAIN.0;
    loop {
        let leads = leadership.borrow_and_update().is_leader;
        let seen = rows(&core);
        let mut pause = SELDOM * 100;
        if !leads {
            core.ca.keeps(None);
        } else {
            pause = match maintain(&core).await {
                Kept::Well => {
                    core.ca.keeps(None);
                    again = AGAIN.0;
                    SELDOM
                }
                Kept::Unnamed => core.options.timing.join_retry,
                Kept::Failed(reason) => {
                    tracing::error!(%reason, "the CA cannot be kept; it is tried again");
                    core.ca.keeps(Some(reason));
                    let pause = again;
                    again = (again * 2).min(AGAIN.1);
                    pause
                }
            };
        }
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = other_rows(&core, seen), if leads => {}
            changed = leadership.changed() => match changed {
                Ok(()) => again = AGAIN.0,
                Err(_) => return,
            },
            () = core.clock.sleep(pause) => {}
        }
    }
}

/// The indices of the rows that a round looks at.
fn rows(core: &Core) -> (u64, u64) {
    let state = core.store.state();
    let index = |row: Option<u64>| row.unwrap_or(0);
    (
        index(state.cluster().map(|row| row.modify_index)),
        index(state.ca().map(|row| row.modify_index)),
    )
}

/// Waits until they are others.
async fn other_rows(core: &Core, seen: (u64, u64)) {
    let mut versions = core.versions.clone();
    // The sender ends only with the server.
    let _ = versions.wait_for(|_| rows(core) != seen).await;
}

/// How a round went.
enum Kept {
    Well,
    /// There is no cluster yet.
    Unnamed,
    Failed(String),
}

/// One round: what is due is made. Nothing is done when nothing is.
async fn maintain(core: &Core) -> Kept {
    if let Err(error) = core.fresh(Freshness::Consistent).await {
        tracing::debug!(%error, "this server leads, but cannot yet prove it");
        return Kept::Unnamed;
    }
    let state = core.store.state();
    if state.cluster().is_none() {
        return Kept::Unnamed;
    }
    let (next, cas) = match due(core, &state).await {
        Ok(None) => return Kept::Well,
        Ok(Some(due)) => due,
        Err(error) => return Kept::Failed(error),
    };
    let value = match serde_json::to_value(&next) {
        Ok(value) => value,
        Err(error) => return Kept::Failed(error.to_string()),
    };
    let cas = Some(cas);
    match core.write(Command::PutCa { value, cas }).await {
        Ok(_) => tracing::info!(cas, "the CA was written"),
        // Another leader was faster.
        Err(WriteFailure::Refused(_)) => {}
        Err(error) => return Kept::Failed(error.to_string()),
    }
    Kept::Well
}

/// The next state of the CA, and the index of the one that it follows.
async fn due(core: &Core, state: &State) -> Result<Option<(CaState, u64)>, String> {
    let Some(cluster) = state.cluster() else {
        return Ok(None);
    };
    let now = UNIX_EPOCH + Duration::from_millis(core.clock.unix_millis());
    let sealing = &core.sealing;
    let text = |error: CaError| error.to_string();
    let wanted = &core.options.ca;
    let Some(row) = state.ca() else {
        let cluster = &cluster.value;
        let domain = cluster.trust_domain.parse();
        let domain = domain.map_err(|error| format!("trust domain: {error}"))?;
        let (dc, config) = (&cluster.datacenter, wanted.clone());
        let ca = match &config.vault {
            None => create(&domain, dc, config, sealing, now),
            Some(_) => create_in_vault(vault(core)?, &domain, dc, config, sealing, now).await,
        };
        return Ok(Some((ca.map_err(text)?, 0)));
    };
    let mut ca = read_state(&row.value)?;
    let mut changed = false;
    if ca.config != *wanted {
        if let Some(what) = needs_rotation(&ca, wanted) {
            tracing::warn!(
                what,
                "the mesh has another CA than this server's configuration says, and keeps it"
            );
        } else {
            tracing::info!("the CA's settings are those of this server's configuration now");
            ca.config = wanted.clone();
            changed = true;
        }
    }
    if let Some(why) = renewal_due(&ca, now) {
        tracing::info!(%why, "a new intermediate is made");
        let renewed = match ca.config.vault {
            None => renew_intermediate(&ca, sealing, now),
            Some(_) => renew_in_vault(vault(core)?, &ca, sealing).await,
        };
        ca = renewed.map_err(text)?;
        changed = true;
    }
    Ok(changed.then_some((ca, row.modify_index)))
}

fn vault(core: &Core) -> Result<&Vault, String> {
    core.ca.vault.as_deref().ok_or_else(no_vault)
}

/// What of the configuration would make another root of this CA.
fn needs_rotation(ca: &CaState, wanted: &mesh_ca::CaConfig) -> Option<&'static str> {
    match (&ca.config.vault, &wanted.vault) {
        (None, None) => None,
        (Some(is), Some(wanted)) if is.root_pki_path == wanted.root_pki_path => None,
        (Some(_), Some(_)) => Some("root_pki_path"),
        (None, Some(_)) | (Some(_), None) => Some("provider"),
    }
}
