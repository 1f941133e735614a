//! Writes: check-and-set, in the owner's name.

use std::time::Duration;

use mesh_tfprotocol::{Context, Diagnostic, Diagnostics, Stored, Value, Wanted};
use serde_json::Value as Json;
use tokio::time::Instant;

use super::{Entry, INDEX, said};
use crate::connection::{ApiError, Client, ClientError, Question};

/// How long a row that needs another one, or is needed, may wait for what the same apply writes
/// or deletes beside it.
const OTHERS: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(250);

impl Entry {
    /// Writes the row if it is still as at `index`; 0: if there is none.
    pub(super) async fn put(
        &self,
        cx: &Context,
        wanted: &Wanted,
        index: u64,
        stored: &mut Stored,
    ) -> Result<(), Diagnostics> {
        let client = self.mesh.client(cx).await?;
        let body = self.json(&wanted.planned);
        let path = self.noun.path(&wanted.planned, &self.mesh.names);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let mut question = Question::put(&path, body.clone()).query("cas", index);
        // The plan has shown that it is taken over.
        let before = wanted.prior.get("owner").as_str();
        if before.is_some_and(|owner| owner != client.owner()) {
            question = question.query("force", true);
        }
        let error = match patiently(cx, &client, &question).await {
            Ok(answer) => {
                self.warn(cx, &answer, &wanted.planned);
                let row = match answer.get("row") {
                    Some(row) => Some(row.clone()),
                    None => self.row(&client, cx, &wanted.planned).await?,
                };
                // It may be gone again by now: then it was there, and the next plan tells.
                match row {
                    Some(row) => self.keep(&row, stored),
                    None => stored.state = wanted.planned.clone(),
                }
                return Ok(());
            }
            Err(error) => error,
        };
        if !matches!(error.code(), "conflict" | "owned_by_another") {
            return Err(self.refused(&error, &wanted.planned));
        }
        // What was sent before its answer was lost stands there, in our name.
        match self.row(&client, cx, &wanted.planned).await? {
            Some(row) if self.is_ours(&row, &body, client.owner()) => {
                self.keep(&row, stored);
                Ok(())
            }
            row => Err(self
                .taken(row.as_ref(), index, &wanted.planned, client.owner())
                .into()),
        }
    }

    /// Deletes the row if it is still as it was last read.
    pub(super) async fn remove(
        &self,
        cx: &Context,
        stored: &mut Stored,
    ) -> Result<(), Diagnostics> {
        let client = self.mesh.client(cx).await?;
        let path = self.noun.path(&stored.state, &self.mesh.names);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let index = stored.private.get(INDEX).and_then(Json::as_u64);
        let question = Question::delete(&path).maybe("cas", index);
        let error = match patiently(cx, &client, &question).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        match error.code() {
            "not_found" => Ok(()),
            "conflict" | "owned_by_another" => match self.row(&client, cx, &stored.state).await? {
                None => Ok(()),
                Some(row) => {
                    let index = index.unwrap_or_default().max(1);
                    let owner = client.owner();
                    Err(self.taken(Some(&row), index, &stored.state, owner).into())
                }
            },
            _ => Err(self.refused(&error, &stored.state)),
        }
    }

    /// Whether a row says what was to be written, in that name.
    fn is_ours(&self, row: &Json, body: &Json, owner: &str) -> bool {
        let schema = mesh_tfprotocol::Resource::schema(self);
        let mut here = Stored::default();
        self.keep(row, &mut here);
        here.state.set("owner", Value::Null);
        let object = super::Shape::Object(self.object());
        let mut there = super::shape::to_value(body, &object, &self.mesh.names);
        there.set("owner", Value::Null);
        let [here, there] = [&here.state, &there].map(|value| schema.with_defaults(value));
        row["owner"] == owner && schema.in_words_of(&there, &here) == there
    }

    /// The row is not as it was when it was planned.
    fn taken(&self, row: Option<&Json>, index: u64, value: &Value, owner: &str) -> Diagnostic {
        let title = self.noun.title(value, &self.mesh.names);
        let Some(row) = row else {
            let detail = "It was deleted since it was last read. Plan again.";
            return Diagnostic::error(format!("{title} is not there any more"), detail);
        };
        let other = row["owner"].as_str().unwrap_or("nobody");
        let id = self.noun.id(value, &self.mesh.names);
        let import = format!(
            "import {{\n  to = {}.NAME\n  id = \"{id}\"\n}}",
            self.noun.resource()
        );
        match (index, other == owner) {
            (0, true) => Diagnostic::error(
                format!("{title} is there already"),
                format!(
                    "It is of owner {other}, as this configuration is, and says something else. To \
                     manage it here, import it:\n\n{import}"
                ),
            ),
            (0, false) => Diagnostic::error(
                format!("{title} belongs to {other}"),
                format!(
                    "Nothing was written. To take it over, import it first; the next apply then \
                     makes {owner} its owner:\n\n{import}"
                ),
            ),
            (_, true) => Diagnostic::error(
                format!("{title} was changed since it was planned"),
                "Nothing was written. Plan again, to see what it is now.",
            ),
            (_, false) => Diagnostic::error(
                format!("{title} belongs to {other}"),
                "Nothing was changed or deleted. Plan again: an apply that shows the change of its \
                 owner takes it over.",
            ),
        }
    }

    /// What the servers say against it, at its attributes.
    fn refused(&self, error: &ClientError, value: &Value) -> Diagnostics {
        let ClientError::Api(ApiError { details, .. }) = error else {
            return error.diagnostic().into();
        };
        let title = self.noun.title(value, &self.mesh.names);
        let findings = details.get("findings").and_then(Json::as_array);
        let messages = findings.into_iter().flatten();
        let messages = messages.filter_map(|finding| finding["message"].as_str());
        let said: Diagnostics = messages
            .map(|message| {
                let (path, text) = said::place(&title, message, value);
                let summary = format!("The server refuses {title}");
                Diagnostic::error(summary, format!("{text}.")).at(path)
            })
            .collect();
        match said.is_empty() {
            true => error.diagnostic().into(),
            false => said,
        }
    }

    /// What the servers find odd, of this row.
    fn warn(&self, cx: &Context, answer: &Json, value: &Value) {
        let title = self.noun.title(value, &self.mesh.names);
        let all = answer["warnings"].as_array().into_iter().flatten();
        for message in all.filter_map(|warning| warning["message"].as_str()) {
            let (path, text) = said::place(&title, message, value);
            let summary = format!("Probably not meant: {title}");
            cx.warn(Diagnostic::warning(summary, format!("{text}.")).at(path));
        }
    }

    /// The plan changes the owner.
    pub(super) fn takes_over(&self, before: &str, after: &str) -> Diagnostic {
        Diagnostic::warning(
            format!("A {} of another owner is taken over", self.noun.kind()),
            format!(
                "It belongs to {before}, and the apply makes {after} its owner. Whatever wrote it is \
                 then refused to change it."
            ),
        )
    }
}

/// Asks, and again for a moment when the row lacks another or another lacks it: what the same
/// apply does beside it may be about to change that.
async fn patiently(
    cx: &Context,
    client: &Client,
    question: &Question,
) -> Result<Json, ClientError> {
    let began = Instant::now();
    loop {
        let error = match client.ask(cx, question).await {
            Err(error) => error,
            done => return done,
        };
        let waits = matches!(error.code(), "invalid" | "dangling_reference");
        if !waits || began.elapsed() > OTHERS || cx.sleep(PAUSE).await.is_err() {
            return Err(error);
        }
    }
}
