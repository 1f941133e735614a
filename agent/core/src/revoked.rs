//! What the servers say is revoked, as this agent itself needs it: for the proofs of its proxies, and
//! for applications that are in the mesh by themselves.

use std::sync::Arc;

use mesh_proto::fact::{RevocationsFact, Topic};
use mesh_tls::Revocations;
use tokio_util::sync::CancellationToken;

use crate::facts::Facts;
use crate::feed::Keys;

/// What is revoked; none: it is not known here. What is not understood may be anybody.
pub(crate) fn of(facts: &Facts) -> Option<Revocations> {
    facts.body(&Topic::Revocations).map(|body| {
        read(&body).unwrap_or_else(|error| {
            tracing::error!(
                error,
                "what is revoked is not understood; upgrade this agent"
            );
            Revocations::everybody()
        })
    })
}

fn read(body: &[u8]) -> Result<Revocations, String> {
    let fact = serde_json::from_slice::<RevocationsFact>(body);
    let fact = fact.map_err(|error| error.to_string())?;
    let keys = fact.keys()?;
    let serials = fact.leaves.into_iter().map(|leaf| leaf.serial);
    Ok(Revocations::new(fact.identities, serials, keys))
}

/// Bars each remembered key that is revoked, for good: it is no proof either when its leaf has ended
/// and nobody speaks of it any more. For as long as the agent runs.
pub(crate) async fn bar(facts: Arc<Facts>, keys: Arc<Keys>, stop: CancellationToken) {
    let mut changed = facts.watch();
    changed.mark_changed();
    let mut seen = None;
    loop {
        tokio::select! {
            it = changed.changed() => if it.is_err() { return },
            () = stop.cancelled() => return,
        }
        let body = facts.body(&Topic::Revocations);
        if body == seen {
            continue;
        }
        // What cannot be read bars nobody for good.
        if let Some(Ok(revoked)) = body.as_deref().map(read) {
            let keys = keys.clone();
            let is_revoked = move |key: &[u8]| revoked.has_key(&mesh_tls::fingerprint(key));
            let barring = tokio::task::spawn_blocking(move || keys.bar(is_revoked));
            if let Ok(Err(error)) = barring.await {
                tracing::error!(%error, "that a proxy's key is revoked cannot be remembered");
            }
        }
        seen = body;
    }
}
