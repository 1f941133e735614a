//! What is only read: one type for all data sources, by a table. Their attributes follow from the
//! API's description, as those of the resources do.

use mesh_model::check_name;
use mesh_tfprotocol::{
    Attribute, Context, DataSource, Diagnostics, Nesting, Schema, Type, Value, async_trait,
};
use serde_json::{Value as Json, json};

use crate::connection::Question;
use crate::provider::Mesh;
use crate::shape::{self, Shape};

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Services,
    Service,
    CaRoots,
    Status,
    IntentionCheck,
}

/// A data source.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    mesh: Mesh,
    what: What,
}

impl Data {
    pub(crate) fn new(mesh: &Mesh, what: What) -> Self {
        Self {
            mesh: mesh.clone(),
            what,
        }
    }

    /// What the API answers, in its JSON, as attributes.
    fn answered(&self, object: &str, json: &Json) -> Value {
        shape::to_value(
            json,
            &Shape::Object(shape::object(object)),
            &self.mesh.names,
        )
    }
}

fn given(object: &str) -> Vec<Attribute> {
    shape::given(&shape::object(object))
}

fn namespace() -> Attribute {
    Attribute::string("namespace").optional().computed()
}

#[async_trait]
impl DataSource for Data {
    fn schema(&self) -> Schema {
        match self.what {
            What::Services => Schema::new(
                "Every service that somebody wrote or registered.",
                vec![
                    namespace()
                        .describe("Only those of this namespace; of all when it is not written."),
                    Attribute::nested("services", Nesting::List, given("ServiceRow"))
                        .computed()
                        .describe("The services, by namespace and name."),
                ],
            ),
            What::Service => {
                let mut all = vec![
                    Attribute::string("name")
                        .required()
                        .describe("The service's name.")
                        .check(|value| match value.as_str().map(check_name) {
                            Some(Err(error)) => Err(format!("is wrong: {error}")),
                            _ => Ok(()),
                        }),
                    namespace()
                        .describe("Its namespace; that of the provider when it is not written."),
                    Attribute::nested("instances", Nesting::List, given("Instance"))
                        .computed()
                        .describe("What is registered of it, the best first, with its health."),
                    Attribute::single("counts", given("Counts"))
                        .computed()
                        .describe("How many instances there are, by their health."),
                ];
                let row = given("ServiceRow").into_iter();
                all.extend(row.filter(|one| {
                    !["name", "namespace", "instances"].contains(&one.name.as_str())
                }));
                Schema::new(
                    "One service, how it is called, and its instances with their health.",
                    all,
                )
            }
            What::CaRoots => Schema::new("The roots that the mesh trusts.", given("Roots")),
            What::Status => Schema::new(
                "A server and its cluster, as that server sees them.",
                given("Status"),
            ),
            What::IntentionCheck => {
                let mut all = vec![
                    Attribute::string("source")
                        .required()
                        .describe("Who calls."),
                    Attribute::string("destination")
                        .required()
                        .describe("Who is called."),
                    Attribute::string("path").optional().describe(
                        "The path of a request, perhaps with a query after a `?`; permissions are \
                         looked at only with it.",
                    ),
                    Attribute::string("method")
                        .optional()
                        .describe("Its method; `GET` when it is not written."),
                    Attribute::new("headers", Type::map(Type::String))
                        .optional()
                        .describe("Its headers."),
                ];
                all.extend(given("Checked"));
                Schema::new(
                    "Whether a call would be allowed, and which intention decides.",
                    all,
                )
            }
        }
    }

    async fn read(&self, cx: &Context, config: &Value) -> Result<Value, Diagnostics> {
        let client = self.mesh.client(cx).await?;
        let namespace = config.get("namespace").as_str();
        match self.what {
            What::Services => {
                let rows = client.ask(cx, &Question::get(&["v1", "services"])).await?;
                let rows = rows.as_array().into_iter().flatten();
                let of = |row: &&Json| namespace.is_none_or(|of| row["namespace"] == of);
                let rows = rows.filter(of).map(|row| self.answered("ServiceRow", row));
                let services = Value::List(rows.collect());
                Ok(Value::object([
                    ("namespace", config.get("namespace").clone()),
                    ("services", services),
                ]))
            }
            What::Service => {
                let of = namespace.map_or_else(|| self.mesh.names.namespace(), str::to_owned);
                let name = config.get("name").as_str().unwrap_or_default();
                let key = mesh_model::Key::new(of, name).to_string();
                let row = client
                    .ask(cx, &Question::get(&["v1", "services", &key]))
                    .await?;
                let path = ["v1", "catalog", "services", &key];
                let instances = client.ask(cx, &Question::get(&path)).await?;
                let instances = instances.as_array().into_iter().flatten();
                let instances = instances.map(|one| self.answered("Instance", one));
                let instances = Value::List(instances.collect());
                let mut all = self.answered("ServiceRow", &row);
                all.set("counts", all.get("instances").clone());
                all.set("instances", instances);
                Ok(all)
            }
            What::CaRoots => {
                let roots = client
                    .ask(cx, &Question::get(&["v1", "ca", "roots"]))
                    .await?;
                Ok(self.answered("Roots", &roots))
            }
            What::Status => {
                let status = client.ask(cx, &Question::get(&["v1", "status"])).await?;
                Ok(self.answered("Status", &status))
            }
            What::IntentionCheck => {
                let mut body = json!({});
                for side in ["source", "destination"] {
                    let text = config.get(side).as_str().unwrap_or_default();
                    let key = self.mesh.names.key(text);
                    let key = key.map_err(|error| {
                        mesh_tfprotocol::Diagnostic::error(
                            format!("`{side}` is wrong"),
                            format!("{error}."),
                        )
                        .at(mesh_tfprotocol::Path::of(side))
                    })?;
                    body[side] = json!(key.to_string());
                }
                for part in ["path", "method"] {
                    if let Some(text) = config.get(part).as_str() {
                        body[part] = json!(text);
                    }
                }
                if let Some(headers) = config.get("headers").entries() {
                    let headers = headers.iter();
                    let headers = headers.filter_map(|(name, value)| Some((name, value.as_str()?)));
                    body["headers"] = json!(headers.collect::<std::collections::BTreeMap<_, _>>());
                }
                let question = Question::post(&["v1", "intentions", "check"], body);
                let mut all = self.answered("Checked", &client.ask(cx, &question).await?);
                for part in ["source", "destination", "path", "method", "headers"] {
                    all.set(part, config.get(part).clone());
                }
                Ok(all)
            }
        }
    }
}
