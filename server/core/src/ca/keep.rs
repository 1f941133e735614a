//! The leader's part: the CA is made once, and its intermediate renewed in time.

use std::time::{Duration, UNIX_EPOCH};

use mesh_ca::{CaError, CaState, create, renew_intermediate, renewal_due};
use mesh_state::{Command, State};

use super::read_state;
use crate::core::Core;
use crate::error::WriteFailure;

/// Makes or renews what is due. Does nothing when nothing is.
pub(crate) async fn maintain(core: &Core) {
    let state = core.store.state();
    let (next, cas) = match due(core, &state) {
        Ok(None) => return,
        Ok(Some(due)) => due,
        Err(error) => return tracing::error!(%error, "the CA cannot be kept"),
    };
    let value = match serde_json::to_value(&next) {
        Ok(value) => value,
        Err(error) => return tracing::error!(%error, "the CA cannot be written"),
    };
    let cas = Some(cas);
    match core.write(Command::PutCa { value, cas }).await {
        Ok(_) => tracing::info!(cas, "the CA was written"),
        // Another leader was faster.
        Err(WriteFailure::Refused(_)) => {}
        Err(error) => tracing::warn!(%error, "the CA was not written"),
    }
}

/// The next state of the CA, and the index of the one that it follows.
fn due(core: &Core, state: &State) -> Result<Option<(CaState, u64)>, String> {
    let Some(cluster) = state.cluster() else {
        return Ok(None);
    };
    let now = UNIX_EPOCH + Duration::from_millis(core.clock.unix_millis());
    let sealing = &core.sealing;
    let text = |error: CaError| error.to_string();
    let Some(row) = state.ca() else {
        let cluster = &cluster.value;
        let domain = cluster.trust_domain.parse();
        let domain = domain.map_err(|error| format!("trust domain: {error}"))?;
        let config = core.options.ca.clone();
        let ca = create(&domain, &cluster.datacenter, config, sealing, now).map_err(text)?;
        return Ok(Some((ca, 0)));
    };
    let mut ca = read_state(&row.value)?;
    let mut changed = false;
    if ca.config != core.options.ca {
        tracing::info!("the CA's settings are those of this server's configuration now");
        ca.config = core.options.ca.clone();
        changed = true;
    }
    if let Some(why) = renewal_due(&ca, now) {
        tracing::info!(%why, "a new intermediate is made");
        ca = renew_intermediate(&ca, sealing, now).map_err(text)?;
        changed = true;
    }
    Ok(changed.then_some((ca, row.modify_index)))
}
