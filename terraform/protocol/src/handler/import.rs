//! Import of what was made elsewhere.

use super::{Handler, guarded, identity, private_bytes, sent, value};
use crate::plugin::Import;
use crate::proto::tfplugin6 as wire;
use crate::{Context, Diagnostic, Diagnostics, Operation, Stored};
use wire::import_resource_state::{ImportedResource, Request, Response};

impl Handler {
    /// Finds one by its name or identity.
    pub async fn import(&self, asked: Request) -> Response {
        let mut answer = Response::default();
        let done = self.import_into(&asked, &mut answer).await;
        answer.diagnostics = done.unwrap_or_else(Into::into).to_wire();
        answer
    }

    async fn import_into(
        &self,
        asked: &Request,
        answer: &mut Response,
    ) -> Result<Diagnostics, Diagnostic> {
        let (resource, schema) = self.resource(&asked.type_name)?;
        let by_identity = asked
            .identity
            .as_ref()
            .and_then(|one| one.identity_data.as_ref());
        let target = match by_identity {
            Some(data) => Import::Identity(value(Some(data), &schema.identity_type())?),
            None => Import::Id(asked.id.clone()),
        };
        let mut stored = Stored {
            state: schema.nothing(),
            ..Stored::default()
        };
        let cx = Context::new(&self.stop, &asked.type_name, None);
        let work = async |cx: &Context| resource.import(cx, &target, &mut stored).await;
        let (done, said) = guarded(cx, &asked.type_name, Operation::Read, work).await;
        if done.is_some() {
            let state = schema.without_secrets(&stored.state);
            answer.imported_resources.push(ImportedResource {
                type_name: asked.type_name.clone(),
                identity: identity(schema, &state),
                state: Some(sent(&state, &schema.ty())?),
                private: private_bytes(&stored.private),
            });
        }
        Ok(said)
    }
}
