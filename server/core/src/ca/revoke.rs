//! Who is revoked, as whoever signs asks it; and how long a leaf is, as whoever revokes one does.

use std::time::Duration;

use mesh_model::Key;
use mesh_state::{Command, Revoked, State};

use super::record::{flush, key_id};
use crate::core::Core;
use crate::error::WriteFailure;

/// How much longer a leaf of a key may be good than one that is signed now: another server signs it
/// in this moment, and clocks differ.
const SLACK: Duration = Duration::from_secs(30);

/// Why no leaf is signed for this service, or this key; in words.
pub(super) fn refusal(state: &State, service: &Key, public_key: &[u8]) -> Option<String> {
    if let Some(revocation) = state.revoked_service(service) {
        let reason = in_words(&revocation.reason);
        return Some(format!(
            "service {service} is revoked{reason}; `meshctl ca unrevoke -service {service}` makes it \
             good again"
        ));
    }
    let revocation = state.revoked_key(&key_id(public_key))?;
    let reason = in_words(&revocation.reason);
    Some(format!(
        "this key is that of a leaf that is revoked{reason}; ask with another key"
    ))
}

fn in_words(reason: &str) -> String {
    match reason.is_empty() {
        true => String::new(),
        false => format!(" ({reason})"),
    }
}

/// Revokes a service, or a leaf and all others of its key.
pub(crate) async fn revoke(
    core: &Core,
    what: Revoked,
    reason: String,
) -> Result<mesh_state::Applied, WriteFailure> {
    let until = match &what {
        Revoked::Service(_) => None,
        Revoked::Serial(_) => {
            // Best that its key is known; the rest follows with the record.
            flush(core).await;
            let opening = core.ca.of(&core.store.state());
            let ttl = opening.state.as_ref().map(|ca| ca.config.leaf_ttl());
            let longest = ttl.unwrap_or_default() + SLACK;
            Some(core.clock.unix_millis() / 1000 + longest.as_secs())
        }
    };
    let command = Command::Revoke {
        what,
        reason,
        until,
    };
    core.write(command).await
}
