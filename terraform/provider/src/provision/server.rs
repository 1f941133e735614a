//! `mesh_server`: the servers.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use mesh_provision::{
    Machine, MeshAccess, ProvisionError, Sealing, Secret, Servers, ServersInForce, Timeouts,
    apply_servers, destroy_servers, read_servers,
};
use mesh_tfprotocol::{
    Attribute, Context, Diagnostic, Diagnostics, Import, Operation, Path, Planned, Resource,
    Schema, Stored, Type, Value, Wanted, async_trait,
};

use super::place::Place;
use super::words::{self, text, texts};

/// How long a whole change may take.
const TOTAL: Duration = Duration::from_secs(30 * 60);
/// How long one server may take to come up.
const STEP: Duration = Duration::from_secs(5 * 60);
const LOST_AFTER: &str = "2m";
/// In what is remembered beside the state: the names of the tokens, of which the state has nothing.
const TOKENS: &str = "tokens";
const SEALED: &str = "sealing_key";

/// The servers.
pub(crate) struct ServerResource(Place);

impl ServerResource {
    pub(crate) fn new(place: Place) -> Self {
        Self(place)
    }

    /// How the servers know who asks: the provider's own certificate, or one made for this run.
    fn access(&self, wanted: &Servers) -> Result<Option<MeshAccess>, Diagnostics> {
        let own = self.0.mesh()?;
        let made = MeshAccess::issued(&wanted.tls);
        let made = made.map_err(|error| words::diagnostic(&error))?;
        Ok(made.or(own))
    }

    async fn apply(
        &self,
        cx: &Context,
        wanted: &Wanted,
        stored: &mut Stored,
    ) -> Result<(), Diagnostics> {
        let servers = describe(&wanted.planned, &wanted.config, None);
        let servers = servers.map_err(|error| words::diagnostic(&error))?;
        servers.check().map_err(|error| words::diagnostic(&error))?;
        let access = self.access(&servers)?.ok_or_else(|| {
            Diagnostic::error(
                "Nobody could ask the servers",
                "Whether they have a leader only they can say. Give the provider `ca_file`, `client_cert` and \
                 `client_key` (of role cli), or have the cluster CA make certificates (`tls.ca_pem`, `tls.ca_key`).",
            )
            .at(Path::of("tls"))
        })?;
        let nomad = self.0.nomad()?;
        let mut state = wanted.planned.clone();
        for name in ["servers", "addresses", "drift"] {
            state.set(name, Value::List(Vec::new()));
        }
        for name in ["cluster_id", "trust_domain"] {
            let before = stored
                .state
                .get(name)
                .as_str()
                .unwrap_or_default()
                .to_owned();
            state.set(name, before);
        }
        let is_new = wanted.prior.is_null();
        let import = format!("mesh_server.NAME {}", servers.name);
        if !is_new {
            stored.state = state.clone();
        }
        remember(&servers, stored);
        let timeouts = Timeouts {
            total: TOTAL,
            step: STEP,
            lost_after: lost_after(&wanted.planned),
        };
        let found = words::run(cx, STEP, move |control| {
            async move { apply_servers(&nomad, &access, &servers, timeouts, control).await }.boxed()
        });
        match found.await {
            Ok(found) => {
                show(&found, &mut state);
                stored.state = state;
                Ok(())
            }
            Err(said) => Err(words::unfinished(stored, is_new, &import, said)),
        }
    }
}

#[async_trait]
impl Resource for ServerResource {
    fn schema(&self) -> Schema {
        let mut attributes = vec![
            Attribute::string("name")
                .optional()
                .default("mesh-server")
                .replaces()
                .describe("The set's name: its jobs are `NAME-0`, `NAME-1` …, and agents find them by Nomad's service of this name."),
            Attribute::number("server_count")
                .optional()
                .default(3)
                .describe("1, 3 or 5."),
            Attribute::string("volume").optional().describe(
                "A host volume of Nomad's that a machine must have to get a server.",
            ),
            Attribute::string("data_dir")
                .optional()
                .default("/var/lib/meshctl")
                .replaces()
                .describe("The folder on the machines in which each server has a folder of its own."),
            Attribute::bool("distinct_hosts")
                .optional()
                .default(true)
                .describe("Never two on one machine."),
            Attribute::number("http_port").optional().default(8700).describe("The port of the HTTP API; 0: any that is free."),
            Attribute::number("grpc_port").optional().default(8701).describe("The port for agents and servers; 0: any that is free."),
            Attribute::string("sealing_key_file").optional().describe("The sealing key's file on the machines."),
            Attribute::string("sealing_key").optional().write_only().describe(
                "The sealing key itself (`meshctl operator sealing-key create`): a variable of Nomad's gives it to the servers.",
            ),
            Attribute::new("tokens", Type::map(Type::String)).optional().write_only().describe(
                "Tokens and other secrets, by name: files `{secrets}/token-NAME`, as `config` calls them.",
            ),
            Attribute::bool("force_destroy").optional().default(false).describe(
                "Whether it may be destroyed, with the mesh's state.",
            ),
            Attribute::string("lost_after").optional().default(LOST_AFTER).check(duration).describe(
                "After how long a machine that Nomad does not hear is lost, and its server is made on another one.",
            ),
            Attribute::new(
                "servers",
                Type::list(Type::object([
                    ("job", Type::String),
                    ("node", Type::String),
                    ("http_address", Type::String),
                    ("grpc_address", Type::String),
                    ("voter", Type::Bool),
                ])),
            )
            .computed()
            .describe("The servers as they are."),
            Attribute::new("addresses", Type::list(Type::String))
                .computed()
                .describe("Their HTTP APIs, as the provider's `address` takes them."),
            Attribute::string("cluster_id").computed().stable().describe("The cluster's id."),
            Attribute::string("trust_domain").computed().stable().describe("The mesh's trust domain."),
        ];
        attributes.extend(words::common("meshctl", 200, 512));
        Schema::new(
            "The servers of the mesh, as jobs of Nomad: one job for each. A change is done to one after \
             the other, never below a quorum.",
            attributes,
        )
        .timeout(Operation::Create, TOTAL)
        .timeout(Operation::Update, TOTAL)
        .timeout(Operation::Delete, TOTAL)
        .identified_by(&["name"])
    }

    async fn validate(&self, config: &Value, said: &mut Diagnostics) {
        words::check(config, said);
        let keys = [config.get("sealing_key"), config.get("sealing_key_file")];
        if keys.iter().all(|key| !key.is_null()) {
            let text = "`sealing_key` and `sealing_key_file` are two answers to one question: write one of them.";
            said.push(Diagnostic::error("That cannot be", text).at(Path::of("sealing_key")));
        }
    }

    async fn plan(
        &self,
        _: &Context,
        wanted: &Wanted,
        planned: &mut Planned,
    ) -> Result<(), Diagnostics> {
        let is_drifted = !wanted.prior.get("drift").elements().is_empty();
        if is_drifted {
            for name in ["drift", "servers", "addresses"] {
                planned.state.set(name, Value::Unknown);
            }
        }
        // A wrong description is better refused now than when half of it is done.
        if planned_is_known(&wanted.config) {
            let servers = describe(&planned.state, &wanted.config, None);
            let checked = servers.and_then(|servers| servers.check());
            checked.map_err(|error| words::diagnostic(&error))?;
        }
        Ok(())
    }

    async fn plan_delete(&self, _: &Context, prior: &Value) -> Result<(), Diagnostics> {
        match prior.get("force_destroy").as_bool() {
            Some(true) => Ok(()),
            _ => Err(words::diagnostic(&ProvisionError::ForceDestroy(text(prior, "name"))).into()),
        }
    }

    async fn read(&self, cx: &Context, stored: &mut Stored) -> Result<(), Diagnostics> {
        let servers = describe(&stored.state, &Value::Null, Some(stored));
        let servers = servers.map_err(|error| words::diagnostic(&error))?;
        let access = self.access(&servers)?;
        let nomad = self.0.nomad()?;
        let found = cx
            .until(read_servers(&nomad, access.as_ref(), &servers))
            .await?;
        let found = found.map_err(|error| words::diagnostic(&error))?;
        if found.servers.is_empty() {
            stored.gone();
            return Ok(());
        }
        if stored.state.get("servers").is_null() {
            // An import: so many there are.
            let count = i64::try_from(found.servers.len()).unwrap_or(i64::MAX);
            stored.state.set("server_count", count);
            // Where their data are is theirs to say: another folder would be other servers.
            if let Some(folder) = &found.data_dir {
                stored.state.set("data_dir", folder.clone());
            }
        }
        show(&found, &mut stored.state);
        Ok(())
    }

    async fn create(
        &self,
        cx: &Context,
        wanted: &Wanted,
        stored: &mut Stored,
    ) -> Result<(), Diagnostics> {
        self.apply(cx, wanted, stored).await
    }

    async fn update(
        &self,
        cx: &Context,
        wanted: &Wanted,
        stored: &mut Stored,
    ) -> Result<(), Diagnostics> {
        self.apply(cx, wanted, stored).await
    }

    async fn delete(&self, cx: &Context, stored: &mut Stored) -> Result<(), Diagnostics> {
        let servers = describe(&stored.state, &Value::Null, Some(stored));
        let servers = servers.map_err(|error| words::diagnostic(&error))?;
        let force = stored.state.get("force_destroy").as_bool().unwrap_or(false);
        let nomad = self.0.nomad()?;
        words::run(cx, STEP, move |control| {
            async move { destroy_servers(&nomad, &servers, force, control).await }.boxed()
        })
        .await
    }

    async fn import(
        &self,
        _: &Context,
        target: &Import,
        stored: &mut Stored,
    ) -> Result<(), Diagnostics> {
        words::import(self.schema(), target, &mut stored.state);
        Ok(())
    }
}

fn duration(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    match text.parse::<mesh_model::Duration>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("`{text}` is no duration such as `2m`")),
    }
}

fn lost_after(value: &Value) -> Duration {
    let text = value.get("lost_after").as_str().unwrap_or(LOST_AFTER);
    let read = text.parse::<mesh_model::Duration>();
    read.map_or(Timeouts::default().lost_after, |time| time.std())
}

/// Whether all that the description is made of is known.
fn planned_is_known(config: &Value) -> bool {
    let entries = config.entries().into_iter().flatten();
    entries
        .filter(|(name, _)| name.as_str() != "timeouts")
        .all(|(_, value)| value.is_known())
}

/// What the state says, with the secrets of the configuration, where there is one; of `stored` the
/// names of those that are not in the state.
fn describe(
    state: &Value,
    config: &Value,
    stored: Option<&Stored>,
) -> Result<Servers, ProvisionError> {
    let remembered = |name: &str| stored.and_then(|stored| stored.private.get(name));
    let mut tokens: BTreeMap<String, Option<Secret>> = BTreeMap::new();
    for (name, value) in config.get("tokens").entries().into_iter().flatten() {
        tokens.insert(name.clone(), value.as_str().map(Secret::new));
    }
    let names = remembered(TOKENS).and_then(|names| names.as_array());
    for name in names.into_iter().flatten().filter_map(|name| name.as_str()) {
        tokens.entry(name.to_owned()).or_insert(None);
    }
    let key = config.get("sealing_key").as_str().map(Secret::new);
    let is_sealed = remembered(SEALED)
        .and_then(|it| it.as_bool())
        .unwrap_or(false);
    let sealing = match (state.get("sealing_key_file").as_str(), key) {
        (Some(file), _) => Sealing::File(file.to_owned()),
        (None, Some(key)) => Sealing::Key(Some(key)),
        (None, None) if is_sealed => Sealing::Key(None),
        (None, None) => Sealing::Config,
    };
    Ok(Servers {
        name: text(state, "name"),
        count: words::number(state, "server_count")?,
        datacenters: texts(state, "datacenters"),
        node_pool: text(state, "node_pool"),
        binary: words::binary(state),
        version: text(state, "version"),
        user: text(state, "user"),
        machine: Machine {
            volume: state.get("volume").as_str().map(str::to_owned),
            data_dir: text(state, "data_dir"),
            distinct: state.get("distinct_hosts").as_bool().unwrap_or(true),
        },
        http_port: words::number(state, "http_port")?,
        grpc_port: words::number(state, "grpc_port")?,
        tls: words::read_tls(state, config),
        sealing,
        config: text(state, "config"),
        tokens,
        cpu: words::number(state, "cpu")?,
        memory: words::number(state, "memory")?,
    })
}

fn remember(servers: &Servers, stored: &mut Stored) {
    let names: Vec<&String> = servers.tokens.keys().collect();
    stored
        .private
        .insert(TOKENS.to_owned(), names.into_iter().cloned().collect());
    let is_sealed = matches!(servers.sealing, Sealing::Key(_));
    stored.private.insert(SEALED.to_owned(), is_sealed.into());
}

fn show(found: &ServersInForce, state: &mut Value) {
    let one = |server: &mesh_provision::ServerInForce| {
        Value::object([
            ("job", Value::from(server.job.clone())),
            ("node", server.node.clone().into()),
            ("http_address", server.http_address.clone().into()),
            ("grpc_address", server.grpc_address.clone().into()),
            ("voter", server.is_voter.into()),
        ])
    };
    let addresses = found
        .servers
        .iter()
        .filter(|server| !server.http_address.is_empty());
    let addresses = addresses.map(|server| Value::from(format!("https://{}", server.http_address)));
    state.set(
        "servers",
        Value::List(found.servers.iter().map(one).collect()),
    );
    state.set("addresses", Value::List(addresses.collect()));
    let drift = found.drift.iter().map(|text| Value::from(text.clone()));
    state.set("drift", Value::List(drift.collect()));
    if let Some((id, domain)) = &found.cluster {
        state.set("cluster_id", id.clone());
        state.set("trust_domain", domain.clone());
    }
}
