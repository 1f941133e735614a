//! `/v1/acl/…`: workloads log in with what Nomad signed for them, and get a token of ours.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use mesh_consul::acl;

use super::answer::{Answer, blocking, done, json, read};
use super::{Caller, Door, Failure, access};
use crate::identity::{LoginError, Token, TokenError};

/// What Consul says of a token that it does not know; Nomad waits for another answer then.
const NOT_FOUND: &str = "ACL not found";

/// `POST /v1/acl/login`
pub(super) async fn login(
    State(door): State<Arc<Door>>,
    Extension(peer): Caller,
    body: Bytes,
) -> Answer {
    let takes_own = door.takes_own_writes;
    blocking(move || access::local(peer, takes_own)).await?;
    let login = acl::login(&read(&body)?)?;
    let catalog = door.catalog.clone();
    let is_here = move |allocation: &str| {
        let of = format!("_nomad-task-{allocation}-");
        let view = catalog.view();
        view.iter()
            .any(|entry| entry.registration.id.starts_with(&of))
    };
    let identity = door.identity.clone();
    let made = identity.login(&login.bearer, login.method, login.description, is_here);
    match made.await {
        Ok(token) => {
            tracing::info!(accessor = token.accessor, workload = ?token.workload, "a workload logged in");
            json(shown(&door, &token))
        }
        Err(error) => {
            tracing::warn!(%error, "a login was refused");
            let status = match &error {
                LoginError::Refused(_) => StatusCode::FORBIDDEN,
                LoginError::Keys(_) => StatusCode::INTERNAL_SERVER_ERROR,
                LoginError::Tokens(error) => status(error),
            };
            Err(Failure::new(status, error.to_string()))
        }
    }
}

/// `GET /v1/acl/token/self`
pub(super) async fn own(State(door): State<Arc<Door>>, headers: HeaderMap) -> Answer {
    let token = access::token(&headers);
    let token = token.and_then(|token| door.identity.token(token));
    match token {
        Some(token) => json(shown(&door, &token)),
        None => Err(Failure::forbidden(NOT_FOUND)),
    }
}

/// `POST /v1/acl/logout`
pub(super) async fn logout(State(door): State<Arc<Door>>, headers: HeaderMap) -> Answer {
    let token = access::token(&headers).unwrap_or_default().to_vec();
    let ended = blocking(move || {
        let ended = door.identity.logout(&token);
        ended.map_err(|error| Failure::new(status(&error), error.to_string()))
    });
    match ended.await? {
        true => done(),
        false => Err(Failure::forbidden(NOT_FOUND)),
    }
}

fn status(error: &TokenError) -> StatusCode {
    match error {
        TokenError::TooMany => StatusCode::INSUFFICIENT_STORAGE,
        TokenError::Randomness | TokenError::Disk { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn shown(door: &Door, token: &Token) -> serde_json::Value {
    acl::token(&acl::Token {
        accessor: &token.accessor,
        secret: &token.secret,
        method: &token.method,
        description: &token.description,
        created: &token.created,
        service: token.workload.service.as_deref(),
        datacenter: &door.datacenter(),
    })
}
