//! The provider's own block, and what its resources share.

use std::sync::{Arc, PoisonError, RwLock};

use mesh_model::{DEFAULT_NAMESPACE, check_name};
use mesh_tfprotocol::{Attribute, Context, Diagnostics, Provider, Schema, Value, async_trait};

use crate::connection::{Client, ClientError, NAMESPACE, Question, Settings, VARIABLES};
use crate::given::described;
use crate::names::Names;
use crate::provision::Place;

/// The least level of the cluster with which this provider works.
const LEVEL: u64 = 1;

/// Longest owner, in characters; as the server has it.
const LONGEST_OWNER: usize = 63;

/// What all resources share: the servers, as the provider's block names them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mesh {
    state: Arc<RwLock<State>>,
    pub(crate) names: Names,
    pub(crate) place: Place,
}

#[derive(Debug, Default)]
enum State {
    /// Nobody has configured it, or with values that are not known yet.
    #[default]
    Unknown,
    /// Not asked yet whether the server is one that we can work with.
    New(Arc<Client>),
    Known(Arc<Client>),
}

impl Mesh {
    /// The owner of what is written, once the provider's block is known.
    pub(crate) fn settled(&self) -> Option<String> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Unknown => None,
            State::New(client) | State::Known(client) => Some(client.owner().to_owned()),
        }
    }

    /// The servers. The first time, it is asked whether they are servers of ours, and new enough.
    pub(crate) async fn client(&self, cx: &Context) -> Result<Arc<Client>, ClientError> {
        let client = match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Unknown => return Err(ClientError::Unknown),
            State::Known(client) => return Ok(client.clone()),
            State::New(client) => client.clone(),
        };
        let status = client.ask(cx, &Question::get(&["v1", "status"])).await?;
        let level = status["cluster"]["level"].as_u64();
        let version = status["server"]["version"].as_str();
        match (level, version) {
            (Some(level), Some(_)) if level >= LEVEL => {}
            (level, version) => {
                return Err(ClientError::Odd {
                    address: "the server".to_owned(),
                    reason: format!(
                        "version {} with level {}, and this provider needs level {LEVEL}",
                        version.unwrap_or("unknown"),
                        level.map_or("unknown".to_owned(), |level| level.to_string())
                    ),
                });
            }
        }
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::Known(client.clone());
        Ok(client)
    }
}

#[async_trait]
impl Provider for Mesh {
    fn schema(&self) -> Schema {
        let [address, ca, cert, key] = VARIABLES;
        let text = described;
        let pem = "a file, or the PEM text itself.";
        Schema::new(
            "The mesh's servers, through their HTTP API. Each attribute that is not written is \
             taken from a variable: one of its own, or the one that `meshctl` reads.",
            vec![
                Attribute::string(address.0).optional().describe(text(
                    "The address of a server, such as `https://mesh.internal:8700`, or of several with commas between them, of which one that answers is asked; `http://127.0.0.1:8700` when it is not written.",
                    address.1,
                )),
                Attribute::string(ca.0)
                    .optional()
                    .describe(text(&format!("The cluster CA that is trusted: {pem}"), ca.1)),
                Attribute::string(cert.0)
                    .optional()
                    .describe(text(&format!("Your certificate, of role cli: {pem}"), cert.1)),
                Attribute::string(key.0)
                    .optional()
                    .sensitive()
                    .describe(text(&format!("The key of your certificate: {pem}"), key.1)),
                Place::attribute(),
                Attribute::string("namespace")
                    .optional()
                    .check(|value| match value.as_str().map(check_name) {
                        Some(Err(error)) => Err(format!("is wrong: {error}")),
                        _ => Ok(()),
                    })
                    .describe(text(
                        &format!("What names without a namespace are of; `{DEFAULT_NAMESPACE}` when it is not written."),
                        NAMESPACE,
                    )),
                Attribute::string("owner").optional().check(owner).describe(
                    "In whose name rows are written, `terraform` when it is not written. Nobody else \
                     changes or deletes them unless forced: give each configuration that works on the \
                     same mesh its own.",
                ),
            ],
        )
    }

    async fn configure(&self, _: &Context, config: &Value) -> Result<(), Diagnostics> {
        self.place.configure(config);
        let state = match config.is_known() {
            false => State::Unknown,
            true => {
                let settings = Settings::read(config, crate::given::environment)?;
                self.names.set(&settings.namespace);
                State::New(Arc::new(Client::new(&settings)?))
            }
        };
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(())
    }
}

fn owner(value: &Value) -> Result<(), String> {
    let known = |c: char| c.is_ascii_alphanumeric() || "_.:/-".contains(c);
    match value.as_str() {
        Some(text) if !(1..=LONGEST_OWNER).contains(&text.len()) || !text.chars().all(known) => {
            Err(format!(
                "must be 1 to {LONGEST_OWNER} of a-z, A-Z, 0-9 and _.:/-"
            ))
        }
        _ => Ok(()),
    }
}
