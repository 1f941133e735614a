//! `/v1/snapshot`: the whole state, out and in.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::{Method, StatusCode};
use mesh_state::{Command, Restore, State};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::error::ApiError;
use super::route::{Body, Call, Content, Reply, Route, Shape};
use super::run::consistency;
use crate::core::Core;

/// The longest snapshot that is taken.
const BODY: usize = 256 << 20;
/// A restore goes through the log in pieces.
const TIME: Duration = Duration::from_secs(300);

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::act(
            Method::GET,
            "/v1/snapshot",
            "saveSnapshot",
            "The whole state; keys in it are sealed",
            Shape::Raw("application/octet-stream"),
            |call| save(call).boxed(),
        )
        .query("consistent", "As of now, proved by a majority")
        .query("stale", "As this server has it, with or without a leader")
        .time_limit(TIME),
        Route::act(
            Method::PUT,
            "/v1/snapshot",
            "restoreSnapshot",
            "Replaces the whole state, and begins an epoch",
            Shape::One("Restored"),
            |call| restore(call).boxed(),
        )
        .body(Body::Raw)
        .body_limit(BODY)
        .time_limit(TIME),
    ]
}

async fn save(call: Call) -> Result<Reply, ApiError> {
    call.core.fresh(consistency(&call.args)?).await?;
    let state = call.core.store.state();
    let index = state.version().index;
    let written = tokio::task::spawn_blocking(move || state.to_snapshot());
    let written = written.await.map_err(ApiError::internal)?;
    Ok(Reply {
        status: StatusCode::OK,
        content: Content::Text {
            media: "application/octet-stream",
            bytes: written.map_err(ApiError::internal)?.into(),
        },
        index: Some(index),
    })
}

async fn restore(call: Call) -> Result<Reply, ApiError> {
    let (body, level) = (call.body.clone(), call.core.options.level);
    let read = tokio::task::spawn_blocking(move || check(&body, level));
    let text = read.await.map_err(ApiError::internal)??;
    replace(&call.core, text).await
}

/// Puts a snapshot that was checked in the place of the state. Whoever asked may be gone before
/// it is done: then it is given up, between two pieces, and not left in the state.
pub(crate) async fn replace(core: &Arc<Core>, text: String) -> Result<Reply, ApiError> {
    let id = uuid::Uuid::new_v4().simple().to_string();
    let epoch = uuid::Uuid::new_v4().simple().to_string();
    let steps = Command::restore(&text, &id, &epoch)
        .map_err(|error| ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", error))?;
    drop(text);
    let gone = CancellationToken::new();
    let _guard = gone.clone().drop_guard();
    let written = tokio::spawn(write(core.clone(), id, steps, gone));
    let index = written.await.map_err(ApiError::internal)??;
    tracing::warn!(%epoch, index, "the state was restored from a snapshot");
    Ok(Reply::json(json!({"index": index, "epoch": epoch})).at(index))
}

/// All steps; or none, and what was begun is given up. The index of the last.
async fn write(
    core: Arc<Core>,
    id: String,
    steps: Vec<Command>,
    gone: CancellationToken,
) -> Result<u64, ApiError> {
    let mut index = 0;
    for step in steps {
        let failure = match gone.is_cancelled() {
            true => ApiError::unavailable("given_up", "nobody waits for the restore any more"),
            false => match core.write(step).await {
                Ok(applied) => {
                    index = applied.version.index;
                    continue;
                }
                Err(failure) => failure.into(),
            },
        };
        tracing::warn!(reason = failure.message, "a restore was given up");
        let abort = Command::Restore(Restore::Abort { id });
        if let Err(error) = core.write(abort).await {
            tracing::warn!(%error, "a restore was not given up cleanly; the leader does it later");
        }
        return Err(failure);
    }
    Ok(index)
}

/// The text of a snapshot that will load, on one that speaks up to `level`.
fn check(body: &Bytes, level: u32) -> Result<String, ApiError> {
    State::read_snapshot_up_to(&body[..], level).map_err(ApiError::invalid)?;
    let text = std::str::from_utf8(body);
    let text = text.map_err(|_| ApiError::invalid("the snapshot is not text"))?;
    Ok(text.to_owned())
}
