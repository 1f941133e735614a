//! The resources that are rows of the servers: intentions, services, routes, and the defaults of
//! the mesh. They differ in their key and their fields; all else is one.
//!
//! Each write is a check-and-set on the index at which the row was last read, so that what
//! somebody else wrote meanwhile is never lost, and so that a write may be sent again when its
//! answer did not come. A row of another owner is not touched; one that was imported is taken
//! over by the next apply, as the plan shows.

mod check;
mod key;
mod said;
mod write;

use mesh_tfprotocol::{
    Attribute, Context, Diagnostics, Import, Planned, Resource, Schema, Stored, Value, Wanted,
    async_trait,
};
use serde_json::{Value as Json, json};

pub(crate) use key::Noun;

use crate::connection::{Client, ClientError, Question};
use crate::provider::Mesh;
use crate::shape::{self, Object, Shape};

/// Beside the state: the index at which the row was last read or written.
const INDEX: &str = "modify_index";

/// A row of the servers.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    mesh: Mesh,
    noun: Noun,
}

impl Entry {
    pub(crate) fn new(mesh: &Mesh, noun: Noun) -> Self {
        Self {
            mesh: mesh.clone(),
            noun,
        }
    }

    fn object(&self) -> Object {
        shape::object(self.noun.object())
    }

    /// The noun's JSON.
    fn json(&self, value: &Value) -> Json {
        shape::to_json(value, &Shape::Object(self.object()), &self.mesh.names)
    }

    /// The id by which it is imported, and the attributes of a row.
    pub(crate) fn attributes_of(&self, row: &Json) -> (String, Value) {
        let mut value = shape::to_value(row, &Shape::Object(self.object()), &self.mesh.names);
        value.set("owner", row["owner"].as_str().map(str::to_owned));
        (self.noun.id(&value, &self.mesh.names), value)
    }

    /// Takes over what the servers say.
    fn keep(&self, row: &Json, stored: &mut Stored) {
        stored.state = self.attributes_of(row).1;
        stored.private.insert(INDEX.to_owned(), row[INDEX].clone());
    }

    /// The row, if there is one that somebody wrote.
    async fn row(
        &self,
        client: &Client,
        cx: &Context,
        value: &Value,
    ) -> Result<Option<Json>, ClientError> {
        let path = self.noun.path(value, &self.mesh.names);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match client.ask(cx, &Question::get(&path)).await {
            // A service that is only registered has no row, and the mesh always an answer.
            Ok(row) if row["defined"] == json!(false) => Ok(None),
            Ok(row) => Ok(Some(row)),
            Err(error) if error.code() == "not_found" => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Resource for Entry {
    fn schema(&self) -> Schema {
        let mut attributes = self.noun.keys(&self.mesh.names);
        attributes.extend(shape::attributes(&self.object(), &self.mesh.names));
        attributes.push(Attribute::string("owner").computed().stable().describe(
            "In whose name the row is: the `owner` of the provider. One that is imported from \
             another owner is taken over when it is next applied.",
        ));
        Schema::new(self.noun.description(), attributes).identified_by(self.noun.identity())
    }

    async fn validate(&self, config: &Value, said: &mut Diagnostics) {
        // What cannot be known yet is looked at when it is planned.
        let (errors, warnings) = self.check(config);
        said.extend(errors);
        said.extend(warnings);
    }

    async fn plan(
        &self,
        cx: &Context,
        wanted: &Wanted,
        planned: &mut Planned,
    ) -> Result<(), Diagnostics> {
        let settings = self.mesh.settled();
        if self.noun.has_namespace() && wanted.config.get("namespace").is_null() {
            let namespace = match &settings {
                Some(_) => self.mesh.names.namespace().into(),
                None => Value::Unknown,
            };
            self.noun.move_to(namespace, &wanted.prior, planned);
        }
        planned
            .state
            .set("owner", settings.map_or(Value::Unknown, Into::into));
        let (errors, _) = self.check(&wanted.config);
        let foreign = wanted
            .prior
            .get("owner")
            .as_str()
            .zip(planned.state.get("owner").as_str());
        if let Some((before, after)) = foreign.filter(|(before, after)| before != after) {
            cx.warn(self.takes_over(before, after));
        }
        errors.into_result()
    }

    async fn read(&self, cx: &Context, stored: &mut Stored) -> Result<(), Diagnostics> {
        let client = self.mesh.client(cx).await?;
        match self.row(&client, cx, &stored.state).await? {
            Some(row) => self.keep(&row, stored),
            None => stored.gone(),
        }
        Ok(())
    }

    async fn create(
        &self,
        cx: &Context,
        wanted: &Wanted,
        stored: &mut Stored,
    ) -> Result<(), Diagnostics> {
        self.put(cx, wanted, 0, stored).await
    }

    async fn update(
        &self,
        cx: &Context,
        wanted: &Wanted,
        stored: &mut Stored,
    ) -> Result<(), Diagnostics> {
        let index = stored.private.get(INDEX).and_then(Json::as_u64);
        // What was read by nobody is compared with nothing that there is.
        self.put(cx, wanted, index.unwrap_or_default(), stored)
            .await
    }

    async fn delete(&self, cx: &Context, stored: &mut Stored) -> Result<(), Diagnostics> {
        self.remove(cx, stored).await
    }

    async fn import(
        &self,
        _: &Context,
        target: &Import,
        stored: &mut Stored,
    ) -> Result<(), Diagnostics> {
        match target {
            Import::Id(id) => self.noun.import(id, &self.mesh.names, &mut stored.state)?,
            Import::Identity(identity) => {
                for (name, value) in identity.entries().into_iter().flatten() {
                    stored.state.set(name, value.clone());
                }
                if self.noun.has_namespace() && stored.state.get("namespace").is_null() {
                    stored.state.set("namespace", self.mesh.names.namespace());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
