//! The mesh's CA: `mesh_ca`.
//!
//! Every cluster has one, so creating it here is taking over its settings, and deleting it leaves
//! the CA as it is. Some changes begin a change of the root, which the plan says.

use mesh_tfprotocol::{
    Attribute, Context, Diagnostic, Diagnostics, Import, Path, Planned, Resource, Schema, Stored,
    Value, Wanted, async_trait,
};
use serde_json::{Value as Json, json};

use crate::connection::{Client, ClientError, Question};
use crate::provider::Mesh;
use crate::shape::{self, Shape};

const SETTINGS: [&str; 3] = ["v1", "ca", "config"];
/// Beside the state: the index at which the settings were last read or written.
const INDEX: &str = "index";
/// In the API it is `provider`, which in Terraform's blocks means something else.
const PROVIDER: &str = "ca_provider";

/// The CA of the mesh.
#[derive(Clone, Debug)]
pub(crate) struct Ca(Mesh);

impl Ca {
    pub(crate) fn new(mesh: &Mesh) -> Self {
        Self(mesh.clone())
    }

    fn shape() -> Shape {
        Shape::Object(shape::object("CaConfig"))
    }

    fn json(&self, value: &Value) -> Json {
        let mut value = value.clone();
        value.set("provider", value.get(PROVIDER).clone());
        shape::to_json(&value, &Self::shape(), &self.0.names)
    }

    fn keep(&self, settings: &Json, index: u64, stored: &mut Stored) {
        let chain = stored.state.get("import").clone();
        let mut state = shape::to_value(settings, &Self::shape(), &self.0.names);
        if let Value::Map(all) = &mut state {
            let provider = all.remove("provider").unwrap_or_default();
            all.insert(PROVIDER.to_owned(), provider);
        }
        state.set("import", chain);
        stored.state = state;
        stored.private.insert(INDEX.to_owned(), json!(index));
    }

    async fn look(
        &self,
        client: &Client,
        cx: &Context,
        stored: &mut Stored,
    ) -> Result<(), ClientError> {
        let (settings, index) = client.ask_at(cx, &Question::get(&SETTINGS)).await?;
        self.keep(&settings, index, stored);
        Ok(())
    }

    /// Takes over a chain that was made elsewhere, where one is written that is new.
    async fn take_chain(
        &self,
        client: &Client,
        cx: &Context,
        wanted: &Wanted,
    ) -> Result<(), Diagnostics> {
        let chain = wanted.config.get("import");
        let certificates = chain.get("certificates");
        if certificates.is_null() || certificates == wanted.prior.get("import").get("certificates")
        {
            return Ok(());
        }
        let at = Path::of("import");
        let Some(key) = chain.get("key").as_str() else {
            let detail =
                "The key of the chain's first certificate is needed when the chain is taken over.";
            let error = Diagnostic::error("`import.key` is missing", detail);
            return Err(error.at(at.attribute("key")).into());
        };
        let body = json!({
            "certificates": certificates.as_str(),
            "key": key,
            "root_key": chain.get("root_key").as_str(),
        });
        let asked = client
            .ask(cx, &Question::post(&["v1", "ca", "import"], body))
            .await;
        asked.map_err(|error| error.diagnostic().at(at.attribute("certificates")))?;
        Ok(())
    }

    async fn write(
        &self,
        cx: &Context,
        wanted: &Wanted,
        index: Option<u64>,
        stored: &mut Stored,
    ) -> Result<(), Diagnostics> {
        let client = self.0.client(cx).await?;
        let question = Question::put(&SETTINGS, self.json(&wanted.planned));
        let done = client.ask(cx, &question.maybe("cas", index)).await;
        done.map_err(|error| match error.code() {
            "conflict" => Diagnostic::error(
                "The CA was changed since it was planned",
                format!("{error}. Nothing was written. Plan again, to see what it is now."),
            ),
            _ => error.diagnostic(),
        })?;
        self.look(&client, cx, stored).await?;
        self.take_chain(&client, cx, wanted).await?;
        stored
            .state
            .set("import", wanted.planned.get("import").clone());
        self.look(&client, cx, stored).await?;
        Ok(())
    }
}

#[async_trait]
impl Resource for Ca {
    fn schema(&self) -> Schema {
        let mut attributes = shape::attributes(&shape::object("CaConfig"), &self.0.names);
        for attribute in &mut attributes {
            if attribute.name == "provider" {
                attribute.name = PROVIDER.to_owned();
            }
        }
        attributes.push(
            Attribute::single(
                "import",
                vec![
                    Attribute::string("certificates").required().describe(
                        "The chain in PEM, lowest first and the root last. Another one is taken over \
                         with the next apply.",
                    ),
                    Attribute::string("key").optional().sensitive().write_only().describe(
                        "The key of its first certificate, in PEM. It is never kept.",
                    ),
                    Attribute::string("root_key").optional().sensitive().write_only().describe(
                        "The root's key, in PEM, where the cluster is to have it. It is never kept.",
                    ),
                ],
            )
            .optional()
            .describe(
                "A CA that was made elsewhere and is to be the mesh's; it begins a change to its root. \
                 Where it was taken from is not read back.",
            ),
        );
        Schema::new(
            "The settings of the mesh's CA. Every cluster has one: creating this takes over its \
             settings, and destroying it leaves the CA as it is.",
            attributes,
        )
    }

    async fn plan(
        &self,
        cx: &Context,
        wanted: &Wanted,
        planned: &mut Planned,
    ) -> Result<(), Diagnostics> {
        if self.0.settled().is_none() || !wanted.config.is_known() || planned.state == wanted.prior
        {
            return Ok(());
        }
        let question = Question::put(&SETTINGS, self.json(&planned.state)).query("dry_run", true);
        let client = self.0.client(cx).await?;
        match client.ask(cx, &question).await {
            Ok(answer) if answer["rotates"] == json!(true) => {
                let changes = answer["changes"].as_array().into_iter().flatten();
                let changes: Vec<&str> = changes.filter_map(Json::as_str).collect();
                cx.warn(Diagnostic::warning(
                    "This begins a change of the mesh's root",
                    format!(
                        "{}. `meshctl ca status` shows how far it is.",
                        changes.join("; ")
                    ),
                ));
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn plan_delete(&self, cx: &Context, _: &Value) -> Result<(), Diagnostics> {
        cx.warn(Diagnostic::warning(
            "The CA stays as it is",
            "Terraform forgets its settings, and nothing is changed in the mesh.",
        ));
        Ok(())
    }

    async fn read(&self, cx: &Context, stored: &mut Stored) -> Result<(), Diagnostics> {
        let client = self.0.client(cx).await?;
        Ok(self.look(&client, cx, stored).await?)
    }

    async fn create(
        &self,
        cx: &Context,
        wanted: &Wanted,
        stored: &mut Stored,
    ) -> Result<(), Diagnostics> {
        self.write(cx, wanted, None, stored).await
    }

    async fn update(
        &self,
        cx: &Context,
        wanted: &Wanted,
        stored: &mut Stored,
    ) -> Result<(), Diagnostics> {
        let index = stored.private.get(INDEX).and_then(Json::as_u64);
        self.write(cx, wanted, index, stored).await
    }

    async fn delete(&self, _: &Context, _: &mut Stored) -> Result<(), Diagnostics> {
        Ok(())
    }

    async fn import(
        &self,
        _: &Context,
        target: &Import,
        _: &mut Stored,
    ) -> Result<(), Diagnostics> {
        match target {
            Import::Id(id) if id == "ca" => Ok(()),
            _ => {
                Err(Diagnostic::error("That id names nothing", "Write `ca`: there is one.").into())
            }
        }
    }
}
