//! What a provider is made of: the traits that it implements, and the table in
//! which they are registered.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value as Json};

use crate::{Context, Diagnostic, Diagnostics, Planned, Schema, Type, Value};

/// The provider itself: its own block.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// What its block may say.
    fn schema(&self) -> Schema;

    /// Says what is wrong with the block beyond the schema's checks.
    async fn validate(&self, _config: &Value, _said: &mut Diagnostics) {}

    /// Takes the configuration. In a plan it may have values that are not known
    /// yet; whatever needs them says so when it is asked.
    async fn configure(&self, cx: &Context, config: &Value) -> Result<(), Diagnostics>;
}

/// A kind of thing that Terraform manages. The crate's documentation tells how
/// to write one.
#[async_trait]
pub trait Resource: Send + Sync + 'static {
    /// What its block may say, and what it gives.
    fn schema(&self) -> Schema;

    /// Says what is wrong beyond the schema's checks.
    async fn validate(&self, _config: &Value, _said: &mut Diagnostics) {}

    /// Improves or refuses the plan that follows from the schema. Called for
    /// creations and updates; `wanted.planned` is as in `planned`.
    async fn plan(
        &self,
        _cx: &Context,
        _wanted: &Wanted,
        _planned: &mut Planned,
    ) -> Result<(), Diagnostics> {
        Ok(())
    }

    /// Refuses or warns of a deletion when it is planned.
    async fn plan_delete(&self, _cx: &Context, _prior: &Value) -> Result<(), Diagnostics> {
        Ok(())
    }

    /// Brings the state to what is there, or says that it is [gone](Stored::gone).
    async fn read(&self, cx: &Context, stored: &mut Stored) -> Result<(), Diagnostics>;

    /// Makes it. The state is null at first.
    async fn create(
        &self,
        cx: &Context,
        wanted: &Wanted,
        stored: &mut Stored,
    ) -> Result<(), Diagnostics>;

    /// Changes it. The state is the one before.
    async fn update(
        &self,
        cx: &Context,
        wanted: &Wanted,
        stored: &mut Stored,
    ) -> Result<(), Diagnostics>;

    /// Deletes it; what is not there is as good as deleted. When it succeeds,
    /// the state is forgotten.
    async fn delete(&self, cx: &Context, stored: &mut Stored) -> Result<(), Diagnostics>;

    /// Sets, in a state with nothing in it, the attributes that name the thing.
    async fn import(
        &self,
        _cx: &Context,
        _target: &Import,
        _stored: &mut Stored,
    ) -> Result<(), Diagnostics> {
        let detail = "There is no way to find one that was made elsewhere.";
        Err(Diagnostic::error("This resource cannot be imported", detail).into())
    }

    /// Turns a state of an older version of the schema into one of now.
    async fn upgrade(&self, _version: i64, state: Json) -> Result<Json, Diagnostics> {
        Ok(state)
    }
}

/// What only reads.
#[async_trait]
pub trait DataSource: Send + Sync + 'static {
    /// What its block may say, and what it gives.
    fn schema(&self) -> Schema;

    /// Says what is wrong beyond the schema's checks.
    async fn validate(&self, _config: &Value, _said: &mut Diagnostics) {}

    /// The whole of it, with what was written.
    async fn read(&self, cx: &Context, config: &Value) -> Result<Value, Diagnostics>;
}

/// A function. It depends on its arguments only, and on no configuration.
pub trait Function: Send + Sync + 'static {
    /// How it is called.
    fn signature(&self) -> Signature;

    /// Its result. Arguments are of their types, known, and not null.
    fn call(&self, arguments: &[Value]) -> Result<Value, FunctionError>;
}

/// How a function is called.
#[derive(Clone, Debug)]
pub struct Signature {
    /// What it does, in a line.
    pub summary: String,
    /// More of that, in Markdown.
    pub description: String,
    /// Its arguments.
    pub parameters: Vec<Parameter>,
    /// What it gives.
    pub returns: Type,
}

/// An argument of a function.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name, for messages and documentation.
    pub name: String,
    /// Its type.
    pub ty: Type,
    /// What it is.
    pub description: String,
}

/// Why a function has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct FunctionError {
    /// What is wrong.
    pub text: String,
    /// With which argument, from 0.
    pub argument: Option<usize>,
}

impl FunctionError {
    /// Something is wrong with that argument.
    pub fn argument(at: usize, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            argument: Some(at),
        }
    }
}

/// What is kept of a resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// Its attributes; null: there is none.
    pub state: Value,
    /// What the provider remembers of it. Terraform keeps it and does not show it.
    pub private: Map<String, Json>,
}

impl Stored {
    /// It is not there (any more).
    pub fn gone(&mut self) {
        self.state = Value::Null;
        self.private.clear();
    }
}

/// What a change is to bring about.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The state before; null: there is none.
    pub prior: Value,
    /// What was written, the secrets that are only written included.
    pub config: Value,
    /// The state as it was planned, with every default.
    pub planned: Value,
}

/// What is imported.
#[derive(Clone, Debug, PartialEq)]
pub enum Import {
    /// By what the user wrote.
    Id(String),
    /// By its identity, an object of the attributes in [`Schema::identity`].
    Identity(Value),
}

/// A provider and all that it has.
pub struct Plugin {
    pub(crate) name: &'static str,
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) resources: BTreeMap<&'static str, Arc<dyn Resource>>,
    pub(crate) data_sources: BTreeMap<&'static str, Arc<dyn DataSource>>,
    pub(crate) functions: BTreeMap<&'static str, Arc<dyn Function>>,
}

impl Plugin {
    /// A provider with nothing in it yet.
    pub fn new(name: &'static str, provider: impl Provider) -> Self {
        Self {
            name,
            provider: Arc::new(provider),
            resources: BTreeMap::new(),
            data_sources: BTreeMap::new(),
            functions: BTreeMap::new(),
        }
    }

    /// With that resource; its name begins with the provider's.
    pub fn resource(mut self, name: &'static str, resource: impl Resource) -> Self {
        self.resources.insert(name, Arc::new(resource));
        self
    }

    /// With that data source; its name begins with the provider's.
    pub fn data_source(mut self, name: &'static str, source: impl DataSource) -> Self {
        self.data_sources.insert(name, Arc::new(source));
        self
    }

    /// With that function.
    pub fn function(mut self, name: &'static str, function: impl Function) -> Self {
        self.functions.insert(name, Arc::new(function));
        self
    }

    /// The provider's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The provider's own schema.
    pub fn schema(&self) -> Schema {
        self.provider.schema()
    }

    /// Every resource's schema, by name.
    pub fn resource_schemas(&self) -> BTreeMap<&'static str, Schema> {
        let all = self.resources.iter();
        all.map(|(name, one)| (*name, one.schema())).collect()
    }

    /// Every data source's schema, by name.
    pub fn data_source_schemas(&self) -> BTreeMap<&'static str, Schema> {
        let all = self.data_sources.iter();
        all.map(|(name, one)| (*name, one.schema())).collect()
    }

    /// Every function's signature, by name.
    pub fn signatures(&self) -> BTreeMap<&'static str, Signature> {
        let all = self.functions.iter();
        all.map(|(name, one)| (*name, one.signature())).collect()
    }
}
