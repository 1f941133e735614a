//! Plans, and what they bring about.

use super::{Handler, guarded, identity, private, private_bytes, sent, value};
use crate::plan::{Planned, plan};
use crate::proto::tfplugin6 as wire;
use crate::{Context, Diagnostic, Diagnostics, Operation, Path, Schema, Stored, Value, Wanted};
use wire::{apply_resource_change, plan_resource_change};

impl Handler {
    /// What a change will bring about.
    pub async fn plan(
        &self,
        asked: plan_resource_change::Request,
    ) -> plan_resource_change::Response {
        let mut answer = plan_resource_change::Response {
            planned_private: asked.prior_private.clone(),
            ..Default::default()
        };
        let done = self.plan_into(&asked, &mut answer).await;
        answer.diagnostics = done.unwrap_or_else(Into::into).to_wire();
        answer
    }

    async fn plan_into(
        &self,
        asked: &plan_resource_change::Request,
        answer: &mut plan_resource_change::Response,
    ) -> Result<Diagnostics, Diagnostic> {
        let (resource, schema) = self.resource(&asked.type_name)?;
        let ty = schema.ty();
        let prior = value(asked.prior_state.as_ref(), &ty)?;
        let proposed = value(asked.proposed_new_state.as_ref(), &ty)?;
        let cx = Context::new(&self.stop, &asked.type_name, None);
        if proposed.is_null() {
            let work = async |cx: &Context| resource.plan_delete(cx, &prior).await;
            let (_, said) = guarded(cx, &asked.type_name, Operation::Delete, work).await;
            answer.planned_state = Some(sent(&Value::Null, &ty)?);
            return Ok(said);
        }
        let config = value(asked.config.as_ref(), &ty)?;
        let mut planned = plan(schema, &prior, &config);
        let wanted = Wanted {
            planned: planned.state.clone(),
            prior,
            config,
        };
        let work = async |cx: &Context| {
            let mut mine: Planned = planned.clone();
            resource.plan(cx, &wanted, &mut mine).await?;
            planned = mine;
            Ok(())
        };
        let operation = match wanted.prior.is_null() {
            true => Operation::Create,
            false => Operation::Update,
        };
        let (_, said) = guarded(cx, &asked.type_name, operation, work).await;
        let state = schema.without_secrets(&planned.state);
        answer.planned_state = Some(sent(&state, &ty)?);
        answer.requires_replace = planned.replaces.iter().map(Path::to_wire).collect();
        answer.planned_identity = identity(schema, &state);
        Ok(said)
    }

    /// Brings it about.
    pub async fn apply(
        &self,
        asked: apply_resource_change::Request,
    ) -> apply_resource_change::Response {
        let mut answer = apply_resource_change::Response {
            new_state: asked.prior_state.clone(),
            private: asked.planned_private.clone(),
            ..Default::default()
        };
        let done = self.apply_into(&asked, &mut answer).await;
        answer.diagnostics = done.unwrap_or_else(Into::into).to_wire();
        answer
    }

    async fn apply_into(
        &self,
        asked: &apply_resource_change::Request,
        answer: &mut apply_resource_change::Response,
    ) -> Result<Diagnostics, Diagnostic> {
        let (resource, schema) = self.resource(&asked.type_name)?;
        let ty = schema.ty();
        let wanted = Wanted {
            prior: value(asked.prior_state.as_ref(), &ty)?,
            planned: value(asked.planned_state.as_ref(), &ty)?,
            config: value(asked.config.as_ref(), &ty)?,
        };
        let mut stored = Stored {
            state: wanted.prior.clone(),
            private: private(&asked.planned_private),
        };
        let operation = match (wanted.prior.is_null(), wanted.planned.is_null()) {
            (_, true) => Operation::Delete,
            (true, _) => Operation::Create,
            (false, false) => Operation::Update,
        };
        let timed = match operation {
            Operation::Delete => &wanted.prior,
            _ => &wanted.planned,
        };
        let cx = Context::new(
            &self.stop,
            &asked.type_name,
            schema.time_for(operation, timed),
        );
        let work = async |cx: &Context| match operation {
            Operation::Delete => resource.delete(cx, &mut stored).await,
            Operation::Create => resource.create(cx, &wanted, &mut stored).await,
            _ => resource.update(cx, &wanted, &mut stored).await,
        };
        let (done, mut said) = guarded(cx, &asked.type_name, operation, work).await;
        match (operation, done) {
            (Operation::Delete, Some(())) => stored.gone(),
            (Operation::Delete, None) => {}
            (_, done) => {
                let state = schema.with_defaults(&stored.state);
                let state = schema.in_words_of(&wanted.planned, &state);
                stored.state = schema.without_secrets(&state);
                settle(schema, done.is_some(), &mut stored.state, &mut said);
            }
        }
        answer.new_state = Some(sent(&stored.state, &ty)?);
        answer.private = private_bytes(&stored.private);
        answer.new_identity = identity(schema, &stored.state);
        Ok(said)
    }
}

/// A state has nothing unknown in it. Where the operation failed, what it did
/// not come to is null; where it says that it succeeded, that is a mistake.
fn settle(schema: &Schema, is_done: bool, state: &mut Value, said: &mut Diagnostics) {
    if is_done && state.is_null() {
        let detail =
            "It says that it made it, and gives no state. This is a mistake in the provider.";
        said.push(Diagnostic::error("The provider lost what it made", detail));
    }
    if state.is_known() {
        return;
    }
    if is_done {
        for attribute in &schema.attributes {
            if !state.get(&attribute.name).is_known() {
                let detail = format!(
                    "`{}` is not known after the apply. This is a mistake in the provider.",
                    attribute.name
                );
                let one = Diagnostic::error("The provider left something out", detail);
                said.push(one.at(Path::of(&attribute.name)));
            }
        }
    }
    forget_unknown(state);
}

fn forget_unknown(value: &mut Value) {
    match value {
        Value::Unknown => *value = Value::Null,
        Value::List(all) => all.iter_mut().for_each(forget_unknown),
        Value::Map(all) => all.values_mut().for_each(forget_unknown),
        Value::Typed(_, inner) => forget_unknown(inner),
        _ => {}
    }
}
