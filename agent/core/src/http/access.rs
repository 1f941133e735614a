//! Who may change anything through this door: root, the agent's own user, or whoever brings the
//! register token. Everyone on the machine may read.

use std::path::Path;

use axum::http::HeaderMap;

use super::answer::Failure;
use super::peer::{Caller, Peer};
use crate::AgentError;
use crate::catalog::Owner;
use crate::feed::same;

/// The shortest register token that is taken, in bytes.
const MIN_TOKEN: usize = 16;

/// Root, or the agent's own user.
pub(crate) fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

/// The token that came with a request, whosever it is.
pub(super) fn token(headers: &HeaderMap) -> Option<&[u8]> {
    let token = headers.get("x-consul-token").map(|it| it.as_bytes());
    token.filter(|token| !token.is_empty())
}

/// Whether the caller is a user of this machine, and not the agent itself. Blocks.
pub(super) fn local(peer: Peer, takes_own: bool) -> Result<(), Failure> {
    let caller = peer.caller().map_err(unknown)?;
    let Some(caller) = caller else {
        return Err(Failure::forbidden(
            "the caller is not on this machine, or closed its end; ask from the node itself",
        ));
    };
    match !takes_own && caller.is_this_process().map_err(unknown)? {
        true => Err(Failure::forbidden("the agent takes no login from itself")),
        false => Ok(()),
    }
}

fn unknown(error: std::io::Error) -> Failure {
    tracing::error!(%error, "a caller cannot be found out");
    Failure::internal("the caller's user could not be found out")
}

/// Who a change is made by, if it may be made. Unless `takes_own` the agent's own process may not:
/// a connection of it is a health check's or some other work that somebody gave it. Blocks.
pub(super) fn writer(
    peer: Peer,
    headers: &HeaderMap,
    token: Option<&[u8]>,
    takes_own: bool,
) -> Result<Owner, Failure> {
    let caller = peer.caller();
    let given = self::token(headers);
    if let (Some(given), Some(token)) = (given, token)
        && same(given, token)
    {
        // The token lets a user register; what it registers is then that user's, who so may
        // start its sidecar.
        return Ok(match caller {
            Ok(Some(caller)) => Owner::Uid(caller.uid),
            Ok(None) | Err(_) => Owner::Token,
        });
    }
    match caller.map_err(unknown)? {
        Some(caller) if is_trusted(caller.uid) => {
            if !takes_own && caller.is_this_process().map_err(unknown)? {
                tracing::warn!("a change that the agent's own process asked for was refused");
                return Err(Failure::forbidden(
                    "the agent takes no changes from itself: not by a health check, nor by a redirect",
                ));
            }
            Ok(Owner::Uid(caller.uid))
        }
        Some(Caller { uid, .. }) => Err(Failure::forbidden(format!(
            "uid {uid} may not change what is registered here; do it as root or as the agent's \
             user, or bring the register token in the header X-Consul-Token"
        ))),
        None => Err(Failure::forbidden(
            "the caller's user is not known: it is not on this machine, or closed its end; \
             bring the register token in the header X-Consul-Token",
        )),
    }
}

/// Reads the register token.
pub(crate) fn read_token(path: &Path) -> Result<Vec<u8>, AgentError> {
    let text = std::fs::read_to_string(path).map_err(AgentError::disk(path))?;
    let token = text.trim().as_bytes().to_vec();
    if token.len() < MIN_TOKEN {
        return Err(AgentError::Option(format!(
            "register_token_file {}: the token is shorter than {MIN_TOKEN} bytes; make one with `openssl rand -hex 32`",
            path.display()
        )));
    }
    Ok(token)
}
