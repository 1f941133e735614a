//! What Terraform asks, answered from the table of resources: each call as a
//! function from request to response, with no connection in it.

mod apply;
mod describe;
mod functions;
mod import;
mod read;
mod validate;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use serde_json::{Map, Value as Json};

use crate::proto::tfplugin6 as wire;
use crate::schema::written;
use crate::{
    Context, DataSource, Diagnostic, Diagnostics, Operation, Path, Plugin, Resource, Schema, Stop,
    Type, Value, decode, encode, from_json,
};

/// A provider that can be asked.
pub struct Handler {
    plugin: Plugin,
    provider: Schema,
    resources: BTreeMap<&'static str, Schema>,
    data_sources: BTreeMap<&'static str, Schema>,
    stop: Stop,
}

impl Handler {
    /// A provider that was not configured yet.
    pub fn new(plugin: Plugin) -> Self {
        Self {
            provider: plugin.schema(),
            resources: plugin.resource_schemas(),
            data_sources: plugin.data_source_schemas(),
            plugin,
            stop: Stop::default(),
        }
    }

    /// Ends what runs, soon.
    pub fn stop(&self) {
        self.stop.stop();
    }

    fn resource(&self, name: &str) -> Result<(&Arc<dyn Resource>, &Schema), Diagnostic> {
        let found = self
            .plugin
            .resources
            .get(name)
            .zip(self.resources.get(name));
        found.ok_or_else(|| missing("resource", name))
    }

    fn data_source(&self, name: &str) -> Result<(&Arc<dyn DataSource>, &Schema), Diagnostic> {
        let found = self.plugin.data_sources.get(name);
        let found = found.zip(self.data_sources.get(name));
        found.ok_or_else(|| missing("data source", name))
    }
}

fn missing(kind: &str, name: &str) -> Diagnostic {
    Diagnostic::error(
        format!("There is no {kind} {name}"),
        "Another version of the provider may have it: see its documentation.",
    )
}

/// Reads what Terraform sent.
fn value(sent: Option<&wire::DynamicValue>, ty: &Type) -> Result<Value, Diagnostic> {
    let Some(sent) = sent else {
        return Ok(Value::Null);
    };
    let read = match (sent.msgpack.as_slice(), sent.json.as_slice()) {
        ([], []) => return Ok(Value::Null),
        ([], json) => serde_json::from_slice(json)
            .map_err(|error| error.to_string())
            .and_then(|json: Json| from_json(&json, ty).map_err(|error| error.to_string())),
        (msgpack, _) => decode(msgpack, ty).map_err(|error| error.to_string()),
    };
    read.map_err(|error| {
        Diagnostic::error(
            "Terraform's value cannot be read",
            format!("{error}. This is a mistake in the provider or in Terraform."),
        )
    })
}

/// Writes what the provider has.
fn sent(value: &Value, ty: &Type) -> Result<wire::DynamicValue, Diagnostic> {
    let msgpack = encode(value, ty).map_err(|error| {
        Diagnostic::error(
            "The provider made a value that is none",
            format!("{error}. This is a mistake in the provider."),
        )
    })?;
    Ok(wire::DynamicValue {
        msgpack,
        json: Vec::new(),
    })
}

/// What is remembered beside a state. What is no object was not written by this
/// provider, and is forgotten.
fn private(bytes: &[u8]) -> Map<String, Json> {
    serde_json::from_slice(bytes).unwrap_or_default()
}

fn private_bytes(private: &Map<String, Json>) -> Vec<u8> {
    match private.is_empty() {
        true => Vec::new(),
        false => Json::Object(private.clone()).to_string().into_bytes(),
    }
}

/// The identity of what a state is of, where the resource has one and the state
/// tells it.
fn identity(schema: &Schema, state: &Value) -> Option<wire::ResourceIdentityData> {
    if schema.identity.is_empty() || state.is_null() {
        return None;
    }
    let names = schema.identity.iter();
    let value = Value::object(names.map(|name| (name.as_str(), state.get(name).clone())));
    let known = value.is_known() && !value.entries()?.values().any(Value::is_null);
    let data = known.then(|| sent(&value, &schema.identity_type()).ok())?;
    Some(wire::ResourceIdentityData {
        identity_data: Some(data?),
    })
}

/// One operation: in its time, and with a panic turned into an error that says
/// whose mistake it is. What was said is with the result.
async fn guarded<T>(
    cx: Context,
    subject: &str,
    operation: Operation,
    work: impl AsyncFnOnce(&Context) -> Result<T, Diagnostics>,
) -> (Option<T>, Diagnostics) {
    let time = cx.remaining();
    let work = AssertUnwindSafe(work(&cx)).catch_unwind();
    let done = match time {
        None => Ok(work.await),
        Some(time) => tokio::time::timeout(time, work).await,
    };
    let done = match done {
        Ok(Ok(done)) => done,
        Ok(Err(_)) => Err(panicked(subject, operation).into()),
        Err(_) => Err(timed_out(subject, operation, time.unwrap_or_default()).into()),
    };
    let mut said = cx.into_said();
    match done {
        Ok(value) => (Some(value), said),
        Err(wrong) => {
            said.extend(wrong);
            (None, said)
        }
    }
}

fn panicked(subject: &str, operation: Operation) -> Diagnostic {
    Diagnostic::error(
        format!("The provider failed to {} {subject}", operation.as_str()),
        "This is a mistake in the provider; its own words are in Terraform's log (TF_LOG=error).",
    )
}

fn timed_out(subject: &str, operation: Operation, time: Duration) -> Diagnostic {
    let name = operation.as_str();
    Diagnostic::error(
        format!("The time to {name} {subject} is over"),
        format!(
            "It took longer than {}. What was done until then is in the state. `timeouts = {{ {name} \
             = \"…\" }}` gives it more time.",
            written(time)
        ),
    )
    .at(Path::of("timeouts").attribute(name))
}

#[cfg(test)]
mod recorded;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use recorded::record;
