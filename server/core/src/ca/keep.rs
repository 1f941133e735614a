//! The leader's part: the CA is made once, its intermediate renewed in time, and a change of the root
//! goes on to its next step.
//!
//! It is a task of its own beside the leader's other duties: Vault may take its time.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use mesh_ca::{
    AWS_PCA, CaError, CaState, Import, VAULT, Vault, create, create_in_aws, create_in_vault,
    import, renew_in_aws, renew_in_vault, renew_intermediate, renewal_due,
};
use mesh_state::{Command, State};

use super::rotate::{Absent, differences, look, step};
use super::{no_vault, read_state, warnings};
use crate::core::{Core, Freshness};
use crate::error::WriteFailure;

/// Between two looks at what is seldom due.
const SELDOM: Duration = Duration::from_secs(30);
/// Between two looks where the proxies are while the root changes.
const ROTATES: Duration = Duration::from_millis(250);
/// Between two warnings of what ends.
const WARNINGS: Duration = Duration::from_secs(3600);
/// Between two attempts at what failed, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Makes and renews what is due while this server leads. For as long as it runs.
pub(crate) async fn keep(core: Arc<Core>) {
    let mut leadership = core.raft.watch_leadership();
    let mut again = AGAIN.0;
    let mut absent = Absent::new();
    let mut warned = Warned::default();
    loop {
        let leads = leadership.borrow_and_update().is_leader;
        let seen = rows(&core);
        let mut pause = SELDOM * 100;
        if !leads {
            core.ca.keeps(None);
            absent.clear();
        } else {
            // Vault may take its time; what is given up here was not committed, or was.
            let kept = tokio::select! {
                () = core.stop.cancelled() => return,
                kept = maintain(&core, &mut absent) => kept,
            };
            pause = match kept {
                Kept::Well => {
                    core.ca.keeps(None);
                    again = AGAIN.0;
                    SELDOM
                }
                Kept::Waits(pause) => {
                    core.ca.keeps(None);
                    again = AGAIN.0;
                    pause
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
        warned.warn(&core, leads);
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
    /// A change of the root waits for somebody, or for a time.
    Waits(Duration),
    /// There is no cluster yet.
    Unnamed,
    Failed(String),
}

/// One round: what is due is made. Nothing is done when nothing is.
async fn maintain(core: &Core, absent: &mut Absent) -> Kept {
    if let Err(error) = core.fresh(Freshness::Consistent).await {
        tracing::debug!(%error, "this server leads, but cannot yet prove it");
        return Kept::Unnamed;
    }
    let state = core.store.state();
    if state.cluster().is_none() {
        return Kept::Unnamed;
    }
    // A change of the root goes first: it may be the way out of a Vault that is gone.
    let (next, cas) = match rotate(core, &state, absent).await {
        Ok(Next::Step(next)) => *next,
        waits => match (due(core, &state).await, waits) {
            (Ok(Some(due)), _) => due,
            (Err(error), _) | (_, Err(error)) => return Kept::Failed(error),
            (Ok(None), Ok(Next::Pause(pause))) => return Kept::Waits(pause),
            (Ok(None), Ok(_)) => return Kept::Well,
        },
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

/// What there is to do of a change of the root.
enum Next {
    Nothing,
    Pause(Duration),
    Step(Box<(CaState, u64)>),
}

async fn rotate(core: &Core, state: &State, absent: &mut Absent) -> Result<Next, String> {
    let Some(row) = state.ca() else {
        return Ok(Next::Nothing);
    };
    let ca = read_state(&row.value)?;
    let now = core.clock.unix_millis() / 1000;
    if ca.rotation.is_none() {
        let first = ca.retiring().filter_map(|root| root.retires).min();
        match first.map(|at| at.saturating_sub(now)) {
            None => {
                absent.clear();
                return Ok(Next::Nothing);
            }
            Some(0) => {}
            Some(left) => return Ok(Next::Pause(SELDOM.min(Duration::from_secs(left)))),
        }
    }
    let standing = look(core, state, &ca, absent).await;
    let next = step(core, &ca, &standing).map_err(|error| error.to_string())?;
    let Some(next) = next else {
        return Ok(Next::Pause(ROTATES));
    };
    match &ca.rotation {
        Some(rotation) => {
            tracing::info!(root = %rotation.to, proxies = standing.proxies, "another root signs now");
        }
        None => tracing::info!(left = next.roots.len(), "a root is no longer trusted"),
    }
    Ok(Next::Step(Box::new((next, row.modify_index))))
}

/// What was told of a CA, so that it is told again only after a while.
#[derive(Default)]
struct Warned {
    at: Option<Duration>,
    /// That this server's configuration says something else.
    differs: bool,
}

impl Warned {
    fn warn(&mut self, core: &Core, leads: bool) {
        let state = core.store.state();
        let Some(ca) = state.ca().and_then(|row| read_state(&row.value).ok()) else {
            return;
        };
        let differs = differences(&ca.config, &core.options.ca);
        if !differs.is_empty() && !self.differs {
            let differs = differs.join(", ");
            tracing::warn!(
                %differs,
                "the CA is not as this server's configuration says; \
                 `meshctl ca config write` changes it"
            );
        }
        self.differs = !differs.is_empty();
        let now = core.clock.monotonic();
        if leads && self.at.is_none_or(|at| now.saturating_sub(at) > WARNINGS) {
            self.at = Some(now);
            for warning in warnings(&ca, core.ca.aws.is_built(), core.clock.unix_millis() / 1000) {
                tracing::warn!("{warning}");
            }
        }
    }
}

/// The next state of the CA, and the index of the one that it follows.
async fn due(core: &Core, state: &State) -> Result<Option<(CaState, u64)>, String> {
    let Some(cluster) = state.cluster() else {
        return Ok(None);
    };
    let now = UNIX_EPOCH + Duration::from_millis(core.clock.unix_millis());
    let keyring = &core.ca.keyring;
    let text = |error: CaError| error.to_string();
    let wanted = &core.options.ca;
    let Some(row) = state.ca() else {
        let sealing = &*keyring.fresh(keyring.by()).await.map_err(text)?;
        let cluster = &cluster.value;
        let domain = cluster.trust_domain.parse();
        let domain = domain.map_err(|error| format!("trust domain: {error}"))?;
        let (dc, config) = (&cluster.datacenter, wanted.clone());
        let files = core.options.import.as_ref();
        let files = files.map(|files| {
            let root_key = files.root_key_file.as_deref();
            Import::from_files(&files.cert_file, &files.key_file, root_key)
        });
        let ca = match config.provider() {
            VAULT => create_in_vault(vault(core)?, &domain, dc, config, None, sealing, now).await,
            AWS_PCA => create_in_aws(&core.ca.aws, &domain, dc, config, sealing, now).await,
            _ if let Some(given) = files.transpose().map_err(text)? => {
                import(&domain, dc, config, &given, sealing, now)
            }
            _ => create(&domain, dc, config, sealing, now),
        };
        return Ok(Some((ca.map_err(text)?, 0)));
    };
    let ca = read_state(&row.value)?;
    if let Some(why) = renewal_due(&ca, now) {
        tracing::info!(%why, "a new intermediate is made");
        let sealing = &*keyring.open(&ca.sealing).await.map_err(text)?;
        let renewed = match ca.config.provider() {
            VAULT => renew_in_vault(vault(core)?, &ca, sealing).await,
            AWS_PCA => renew_in_aws(&core.ca.aws, &ca, sealing, now).await,
            _ => renew_intermediate(&ca, sealing, now),
        };
        return Ok(Some((renewed.map_err(text)?, row.modify_index)));
    }
    Ok(None)
}

fn vault(core: &Core) -> Result<&Vault, String> {
    core.ca.vault.as_deref().ok_or_else(no_vault)
}
