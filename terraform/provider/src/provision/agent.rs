//! `mesh_agent`: the agent on every client of Nomad's.

use std::time::Duration;

use futures::FutureExt;
use mesh_provision::{
    Agents, AgentsInForce, ProvisionError, apply_agents, destroy_agents, read_agents,
};
use mesh_tfprotocol::{
    Attribute, Context, Diagnostics, Import, Operation, Planned, Resource, Schema, Stored, Type,
    Value, Wanted, async_trait,
};

use super::place::Place;
use super::words::{self, text, texts};

const TOTAL: Duration = Duration::from_secs(30 * 60);
const STEP: Duration = Duration::from_secs(5 * 60);

/// The agents.
pub(crate) struct AgentResource(Place);

impl AgentResource {
    pub(crate) fn new(place: Place) -> Self {
        Self(place)
    }

    async fn apply(
        &self,
        cx: &Context,
        wanted: &Wanted,
        stored: &mut Stored,
    ) -> Result<(), Diagnostics> {
        let agents = describe(&wanted.planned, &wanted.config);
        let agents = agents.map_err(|error| words::diagnostic(&error))?;
        agents.check().map_err(|error| words::diagnostic(&error))?;
        let nomad = self.0.nomad()?;
        let is_new = wanted.prior.is_null();
        let import = format!("mesh_agent.NAME {}", agents.name);
        let mut state = wanted.planned.clone();
        show(&AgentsInForce::default(), &mut state);
        if !is_new {
            stored.state = state.clone();
        }
        let found = words::run(cx, STEP, move |control| {
            async move { apply_agents(&nomad, &agents, control).await }.boxed()
        })
        .await;
        match found {
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
impl Resource for AgentResource {
    fn schema(&self) -> Schema {
        let path = |name: &str, default: &str, text: &str| {
            Attribute::string(name)
                .optional()
                .default(default)
                .describe(text)
        };
        let mut attributes = vec![
            path("name", "mesh-agent", "The job's name.").replaces(),
            path(
                "servers",
                "mesh-server",
                "Nomad's service of the servers: the `name` of `mesh_server`.",
            ),
            path(
                "data_dir",
                "/var/lib/meshctl-agent",
                "Where an agent keeps what it knows.",
            ),
            path(
                "socket",
                "/run/meshctl/agent.sock",
                "An agent's own socket, in a folder of its own.",
            ),
            path(
                "shim_dir",
                "/usr/lib/meshctl/nomad",
                "The folder of the program `consul` that Nomad runs for a sidecar: Nomad's own PATH must begin with it.",
            ),
            path(
                "cni_dir",
                "/opt/cni/bin",
                "The folder of the plugin `consul-cni`, one of the client's `cni_path`.",
            ),
            Attribute::new("nodes", Type::list(Type::String))
                .computed()
                .describe("The names of the nodes on which an agent runs."),
        ];
        attributes.extend(words::common("meshctl-agent", 100, 128));
        Schema::new(
            "The agent of the mesh on every client of Nomad's, as a job of type system.",
            attributes,
        )
        .timeout(Operation::Create, TOTAL)
        .timeout(Operation::Update, TOTAL)
        .timeout(Operation::Delete, TOTAL)
        .identified_by(&["name"])
    }

    async fn validate(&self, config: &Value, said: &mut Diagnostics) {
        words::check(config, said);
    }

    async fn plan(
        &self,
        _: &Context,
        wanted: &Wanted,
        planned: &mut Planned,
    ) -> Result<(), Diagnostics> {
        if !wanted.prior.get("drift").elements().is_empty() {
            for name in ["drift", "nodes"] {
                planned.state.set(name, Value::Unknown);
            }
        }
        if wanted.config.is_known() {
            let agents = describe(&planned.state, &wanted.config);
            let checked = agents.and_then(|agents| agents.check());
            checked.map_err(|error| words::diagnostic(&error))?;
        }
        Ok(())
    }

    async fn read(&self, cx: &Context, stored: &mut Stored) -> Result<(), Diagnostics> {
        let agents = describe(&stored.state, &Value::Null);
        let agents = agents.map_err(|error| words::diagnostic(&error))?;
        let nomad = self.0.nomad()?;
        let found = cx.until(read_agents(&nomad, &agents)).await?;
        let found = found.map_err(|error| words::diagnostic(&error))?;
        match found.exists {
            true => show(&found, &mut stored.state),
            false => stored.gone(),
        }
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
        let agents = describe(&stored.state, &Value::Null);
        let agents = agents.map_err(|error| words::diagnostic(&error))?;
        let nomad = self.0.nomad()?;
        words::run(cx, STEP, move |control| {
            async move { destroy_agents(&nomad, &agents, control).await }.boxed()
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

fn describe(state: &Value, config: &Value) -> Result<Agents, ProvisionError> {
    Ok(Agents {
        name: text(state, "name"),
        servers: text(state, "servers"),
        datacenters: texts(state, "datacenters"),
        node_pool: text(state, "node_pool"),
        binary: words::binary(state),
        version: text(state, "version"),
        user: text(state, "user"),
        data_dir: text(state, "data_dir"),
        socket: text(state, "socket"),
        shim_dir: text(state, "shim_dir"),
        cni_dir: text(state, "cni_dir"),
        tls: words::read_tls(state, config),
        config: text(state, "config"),
        cpu: words::number(state, "cpu")?,
        memory: words::number(state, "memory")?,
    })
}

fn show(found: &AgentsInForce, state: &mut Value) {
    let list = |of: &[String]| Value::List(of.iter().map(|text| text.clone().into()).collect());
    state.set("nodes", list(&found.nodes));
    state.set("drift", list(&found.drift));
}
