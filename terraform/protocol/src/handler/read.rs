//! What is there: states read again, states of older schemas, data sources.

use serde_json::Value as Json;

use super::{Handler, guarded, identity, private, private_bytes, sent, value};
use crate::proto::tfplugin6 as wire;
use crate::{Context, Diagnostic, Diagnostics, Operation, Schema, Stored, from_json};
use wire::{read_data_source, read_resource, upgrade_resource_identity, upgrade_resource_state};

impl Handler {
    /// Reads a resource again.
    pub async fn read(&self, asked: read_resource::Request) -> read_resource::Response {
        let mut answer = read_resource::Response {
            // Whatever is wrong, the state as it was is not lost.
            new_state: asked.current_state.clone(),
            private: asked.private.clone(),
            ..Default::default()
        };
        let done = self.read_into(&asked, &mut answer).await;
        answer.diagnostics = done.unwrap_or_else(Into::into).to_wire();
        answer
    }

    async fn read_into(
        &self,
        asked: &read_resource::Request,
        answer: &mut read_resource::Response,
    ) -> Result<Diagnostics, Diagnostic> {
        let (resource, schema) = self.resource(&asked.type_name)?;
        let prior = value(asked.current_state.as_ref(), &schema.ty())?;
        let mut stored = Stored {
            state: prior.clone(),
            private: private(&asked.private),
        };
        let time = schema.time_for(Operation::Read, &prior);
        let cx = Context::new(&self.stop, &asked.type_name, time);
        let work = async |cx: &Context| resource.read(cx, &mut stored).await;
        let (done, mut said) = guarded(cx, &asked.type_name, Operation::Read, work).await;
        if done.is_some() {
            let state = schema.with_defaults(&stored.state);
            let state = schema.without_secrets(&schema.in_words_of(&prior, &state));
            match sent(&state, &schema.ty()) {
                Ok(state) => answer.new_state = Some(state),
                Err(error) => said.push(error),
            }
            answer.private = private_bytes(&stored.private);
            answer.new_identity = identity(schema, &state);
        }
        Ok(said)
    }

    /// Makes a state of an older schema one of now.
    pub async fn upgrade(
        &self,
        asked: upgrade_resource_state::Request,
    ) -> upgrade_resource_state::Response {
        let done = self.upgraded(&asked).await;
        let (state, said) = match done {
            Ok(state) => (Some(state), Diagnostics::new()),
            Err(said) => (None, said),
        };
        upgrade_resource_state::Response {
            upgraded_state: state,
            diagnostics: said.to_wire(),
        }
    }

    async fn upgraded(
        &self,
        asked: &upgrade_resource_state::Request,
    ) -> Result<wire::DynamicValue, Diagnostics> {
        let (resource, schema) = self.resource(&asked.type_name)?;
        let raw = asked.raw_state.as_ref().map(|raw| raw.json.as_slice());
        let json = kept(raw)?;
        if asked.version > schema.version {
            let detail = format!(
                "It has version {} of the schema of {}, and this provider knows {}. Use a provider \
                 that is at least as new as the one that made it.",
                asked.version, asked.type_name, schema.version
            );
            let error = Diagnostic::error("The state was made by a newer provider", detail);
            return Err(error.into());
        }
        let json = match asked.version == schema.version {
            true => json,
            false => resource.upgrade(asked.version, json).await?,
        };
        let state =
            from_json(&json, &schema.ty()).map_err(|error| unreadable(&error.to_string()))?;
        Ok(sent(&state, &schema.ty())?)
    }

    /// The same for an identity; there is only one version yet.
    pub fn upgrade_identity(
        &self,
        asked: &upgrade_resource_identity::Request,
    ) -> upgrade_resource_identity::Response {
        let read = || {
            let (_, schema) = self.resource(&asked.type_name)?;
            let raw = asked.raw_identity.as_ref().map(|raw| raw.json.as_slice());
            let ty = Schema::identity_type(schema);
            let read = from_json(&kept(raw)?, &ty);
            sent(&read.map_err(|error| unreadable(&error.to_string()))?, &ty)
        };
        let (data, said) = match read() {
            Ok(data) => (Some(data), Diagnostics::new()),
            Err(error) => (None, error.into()),
        };
        upgrade_resource_identity::Response {
            upgraded_identity: data.map(|data| wire::ResourceIdentityData {
                identity_data: Some(data),
            }),
            diagnostics: said.to_wire(),
        }
    }

    /// Reads a data source.
    pub async fn read_data(&self, asked: read_data_source::Request) -> read_data_source::Response {
        let mut answer = read_data_source::Response::default();
        let read = async {
            let (source, schema) = self.data_source(&asked.type_name)?;
            let config = value(asked.config.as_ref(), &schema.ty())?;
            let config = schema.with_defaults(&config);
            let time = schema.time_for(Operation::Read, &config);
            let cx = Context::new(&self.stop, &asked.type_name, time);
            let work = async |cx: &Context| source.read(cx, &config).await;
            let (read, said) = guarded(cx, &asked.type_name, Operation::Read, work).await;
            let state = read.map(|read| sent(&read, &schema.ty())).transpose()?;
            Ok::<_, Diagnostic>((state, said))
        };
        let (state, said) = read.await.unwrap_or_else(|error| (None, error.into()));
        answer.state = state;
        answer.diagnostics = said.to_wire();
        answer
    }
}

fn kept(raw: Option<&[u8]>) -> Result<Json, Diagnostic> {
    let json = raw.filter(|json| !json.is_empty());
    let json = json.ok_or_else(|| unreadable("it is not JSON"))?;
    serde_json::from_slice(json).map_err(|_| unreadable("it is not JSON"))
}

fn unreadable(why: &str) -> Diagnostic {
    Diagnostic::error(
        "What Terraform has kept cannot be read",
        format!("{why}. A backup of the state, or `terraform import`, brings it back."),
    )
}
