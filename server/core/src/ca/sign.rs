//! A leaf for a proxy. What it certifies is the state's word, not the caller's: the service of the
//! instance that the calling node has registered with that proxy.

use std::time::Duration;

use mesh_ca::{AuthorityError, IssuedLeaf, LeafRequest};
use mesh_model::{GatewayKind, Key};
use mesh_state::State;
use mesh_tls::SpiffeId;
use tonic::Status;

use super::record::signed as recorded;
use super::revoke::refusal;
use crate::core::{Core, Freshness};

/// How long an authority may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a request may wait for its turn, where many come at once: a herd is served in a row, and
/// not sent away. With both limits it is less than agents wait.
const QUEUE: Duration = Duration::from_secs(12);

/// Why a leaf was not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignFailure {
    /// No such proxy is registered on the calling node.
    #[error(
        "proxy {proxy} is not registered on node {node}; register its service there, then ask again"
    )]
    NotRegistered { node: String, proxy: String },
    /// The request itself is wrong.
    #[error("{0}")]
    Request(String),
    /// It may work later.
    #[error("{0}; ask again later")]
    Later(String),
    /// It will not work until somebody changes something.
    #[error("{0}")]
    Refused(String),
}

impl From<SignFailure> for Status {
    fn from(failure: SignFailure) -> Self {
        let message = failure.to_string();
        match failure {
            SignFailure::NotRegistered { .. } => Self::not_found(message),
            SignFailure::Request(_) => Self::invalid_argument(message),
            SignFailure::Later(_) => Self::unavailable(message),
            SignFailure::Refused(_) => Self::failed_precondition(message),
        }
    }
}

/// Signs a leaf for `proxy` of `node`, whose agent asks.
pub(crate) async fn sign(
    core: &Core,
    node: &str,
    proxy: &str,
    csr: &[u8],
) -> Result<IssuedLeaf, SignFailure> {
    let result = attempt(core, node, proxy, csr).await;
    let outcome = match &result {
        Ok(leaf) => {
            tracing::info!(node, proxy, serial = %leaf.serial, "a leaf was signed");
            "ok"
        }
        Err(SignFailure::Later(reason)) => {
            tracing::warn!(node, proxy, %reason, "a leaf was not signed");
            "failed"
        }
        Err(reason) => {
            tracing::warn!(node, proxy, %reason, "a leaf was refused");
            "refused"
        }
    };
    core.metrics.ca_signs.with_label_values(&[outcome]).inc();
    result
}

async fn attempt(
    core: &Core,
    node: &str,
    proxy: &str,
    csr: &[u8],
) -> Result<IssuedLeaf, SignFailure> {
    let later = |reason: &dyn std::fmt::Display| SignFailure::Later(reason.to_string());
    let mut state = core.store.state();
    let Named { service, id, names } = match identity(&state, node, proxy)? {
        Some(found) => found,
        None => {
            // This server may only not know it yet: its "no" is not final.
            let fresh = core.fresh(Freshness::Consistent).await;
            fresh.map_err(|error| later(&error))?;
            state = core.store.state();
            identity(&state, node, proxy)?.ok_or_else(|| SignFailure::NotRegistered {
                node: node.to_owned(),
                proxy: proxy.to_owned(),
            })?
        }
    };
    let opening = core.ca.of(&state);
    let (Some(authority), Some(ca)) = (&opening.authority, &opening.state) else {
        let problem = opening.problem.clone().unwrap_or_default();
        return Err(SignFailure::Later(problem));
    };
    let request = LeafRequest::from_csr(csr, id, ca.config.leaf_ttl())
        .map_err(|error| SignFailure::Request(error.to_string()))?
        .for_dns_names(names);
    if refusal(&state, &service, request.public_key()).is_some() {
        // It may be good again: this server's "no" is not final.
        let fresh = core.fresh(Freshness::Consistent).await;
        fresh.map_err(|error| later(&error))?;
        not_revoked(core, &service, &request)?;
    }
    match core.ca.rate.take(QUEUE) {
        None => return Err(later(&"too many leaves are asked for at once")),
        Some(Duration::ZERO) => {}
        Some(wait) => core.clock.sleep(wait).await,
    }
    let limited = async {
        let _permit = core.ca.room.acquire().await;
        authority.sign_leaf(&request).await
    };
    let begin = std::time::Instant::now();
    let signed = tokio::time::timeout(LIMIT, limited).await;
    core.metrics
        .ca_sign_seconds
        .observe(begin.elapsed().as_secs_f64());
    match signed {
        Ok(Ok(leaf)) => {
            let now = core.clock.unix_millis() / 1000;
            let key = request.public_key();
            let signed = recorded(&leaf, key, &service, (node, proxy), now);
            core.ca.unrecorded.push(signed);
            // It may have been revoked while it was signed, which takes its time.
            not_revoked(core, &service, &request)?;
            Ok(leaf)
        }
        Ok(Err(error)) if error.is_temporary() => Err(later(&error)),
        Ok(Err(error @ AuthorityError::Invalid { .. })) => {
            Err(SignFailure::Request(error.to_string()))
        }
        Ok(Err(error)) => Err(SignFailure::Refused(error.to_string())),
        Err(_) => Err(later(&format!("the CA did not answer within {LIMIT:?}"))),
    }
}

fn not_revoked(core: &Core, service: &Key, request: &LeafRequest) -> Result<(), SignFailure> {
    let refusal = refusal(&core.store.state(), service, request.public_key());
    refusal.map_or(Ok(()), |reason| Err(SignFailure::Refused(reason)))
}

/// What a leaf names.
struct Named {
    service: Key,
    id: SpiffeId,
    /// DNS names beside it.
    names: Vec<String>,
}

/// The identity of a proxy of a node, by its registration; and of an ingress gateway that speaks TLS to
/// the outside the names by which it is known there, by the gateway's row.
fn identity(state: &State, node: &str, proxy: &str) -> Result<Option<Named>, SignFailure> {
    let Some(cluster) = state.cluster() else {
        return Ok(None);
    };
    let rows = state.instances_on(node);
    let Some(instance) = rows.iter().find(|row| {
        let registered = row.value.proxy.as_ref();
        registered.is_some_and(|registered| registered.id == proxy)
    }) else {
        return Ok(None);
    };
    let service = instance.value.key();
    let id = spiffe_id(&cluster.value, &service).map_err(SignFailure::Refused)?;
    let mut names = Vec::new();
    if instance.value.gateway == Some(GatewayKind::Ingress)
        && let Some(gateway) = state.gateway(&service)
        && let Some(ingress) = gateway.value.ingress()
    {
        names = ingress.dns_names(&cluster.value.datacenter);
    }
    Ok(Some(Named { service, id, names }))
}

/// The identity of a service of this cluster.
pub(crate) fn spiffe_id(
    cluster: &mesh_state::Cluster,
    service: &mesh_model::Key,
) -> Result<SpiffeId, String> {
    let text = |error: mesh_tls::IdError| error.to_string();
    let domain = cluster.trust_domain.parse().map_err(text)?;
    SpiffeId::new(
        &domain,
        &service.namespace,
        &cluster.datacenter,
        &service.name,
    )
    .map_err(text)
}
