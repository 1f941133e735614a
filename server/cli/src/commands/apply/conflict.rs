//! A plan that came too late: what changed meanwhile.

use mesh_model::EntryKey;

use super::diff;
use super::plan::{Plan, Seen};
use crate::client::Client;
use crate::error::{ApiError, CliError};

/// The refusal of a plan, with what is different now.
pub(super) async fn explain(error: ApiError, plan: &Plan, client: &Client) -> CliError {
    let key = error.details.get("key").cloned().unwrap_or_default();
    let Ok(key) = serde_json::from_value::<EntryKey>(key) else {
        return error.into();
    };
    let number = |name: &str| error.details.get(name).and_then(serde_json::Value::as_u64);
    let (expected, actual) = (
        number("expected").unwrap_or(0),
        number("actual").unwrap_or(0),
    );
    let mut lines = vec![format!(
        "{key} has changed since the plan was made: nothing was written"
    )];
    match (expected, actual) {
        (0, _) => lines.push("it was not there, and now is".to_owned()),
        (_, 0) => lines.push("it was there, and now is not".to_owned()),
        _ => lines.extend(changes(&key, plan, client).await),
    }
    CliError::refused(
        lines.join("\n    "),
        "Run it again: the new plan starts from what stands now.",
    )
}

/// From what the plan saw to what stands now.
async fn changes(key: &EntryKey, plan: &Plan, client: &Client) -> Vec<String> {
    let seen = plan.steps.iter().find(|step| step.key == *key);
    let Some(before) = seen.and_then(|step| step.before.as_ref()) else {
        return Vec::new();
    };
    let Ok(row) = client.row(key).await else {
        return Vec::new();
    };
    let Some((_, now)) = Seen::of(key.kind(), &row) else {
        return Vec::new();
    };
    let mut lines = vec![format!("owner {} wrote it:", now.owner)];
    lines.extend(diff::lines(&before.noun, &now.noun));
    lines
}
