//! The calls, one by one.

use std::time::Duration;

use mesh_model::{EntryKey, Key};
use reqwest::Method;
use serde_json::{Value, json};

use super::types::{
    Applied, Checked, Instance, Intention, Node, Peer, Proxies, Roots, ServiceRow, Status, Waited,
};
use super::{Answer, Body, Client, Operation, Question, SNAPSHOT};
use crate::args::Owner;
use crate::error::CliError;

/// How long a new CA may take to be made, where Vault takes its time.
const MAKING: Duration = Duration::from_secs(60);

impl Client {
    /// All of it or nothing.
    pub(crate) async fn apply(
        &self,
        operations: &[Operation],
        owner: &Owner,
        dry_run: bool,
    ) -> Result<Answer<Applied>, CliError> {
        let mut question = Question::to(&["v1", "apply"])
            .owner(owner)
            .body(Body::Json(json!({ "ops": operations })));
        if dry_run {
            question = question.query("dry_run", true);
        }
        self.ask(Method::POST, question).await
    }

    /// Every row of a kind; of the mesh, the one if it is written.
    pub(crate) async fn rows(&self, kind: mesh_model::Kind) -> Result<Vec<Value>, CliError> {
        use mesh_model::Kind;
        let name = match kind {
            Kind::Mesh => {
                let mesh: Answer<Value> = self.read(Question::to(&["v1", "mesh"])).await?;
                let defined = mesh.json["defined"].as_bool().unwrap_or(false);
                return Ok(defined.then_some(mesh.json).into_iter().collect());
            }
            Kind::Service => "services",
            Kind::Route => "routes",
            Kind::Gateway => "gateways",
            Kind::Intention => "intentions",
        };
        let rows: Answer<Vec<Value>> = self.read(Question::to(&["v1", name])).await?;
        // A service that is only registered has no row.
        let defined = |row: &Value| row["defined"].as_bool().unwrap_or(true);
        Ok(rows.value.into_iter().filter(defined).collect())
    }

    /// One row.
    pub(crate) async fn row(&self, key: &EntryKey) -> Result<Value, CliError> {
        let parts = row_path(key);
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Ok(self.read::<Value>(Question::to(&parts)).await?.json)
    }

    /// Deletes one row.
    pub(crate) async fn delete(
        &self,
        key: &EntryKey,
        cas: Option<u64>,
        owner: &Owner,
    ) -> Result<Answer<Applied>, CliError> {
        let parts = row_path(key);
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let question = Question::to(&parts).maybe("cas", cas).owner(owner);
        self.ask(Method::DELETE, question).await
    }

    pub(crate) async fn intentions(&self) -> Result<Answer<Vec<Intention>>, CliError> {
        self.read(Question::to(&["v1", "intentions"])).await
    }

    pub(crate) async fn match_intentions(
        &self,
        by_source: bool,
        name: &Key,
    ) -> Result<Answer<Vec<Intention>>, CliError> {
        let by = if by_source { "source" } else { "destination" };
        let question = Question::to(&["v1", "intentions", "match"]);
        self.read(question.query("by", by).query("name", name))
            .await
    }

    pub(crate) async fn intention(
        &self,
        source: &Key,
        destination: &Key,
    ) -> Result<Answer<Intention>, CliError> {
        let (source, destination) = (source.to_string(), destination.to_string());
        self.read(Question::to(&["v1", "intentions", &source, &destination]))
            .await
    }

    pub(crate) async fn check(&self, question: Value) -> Result<Answer<Checked>, CliError> {
        let path = Question::to(&["v1", "intentions", "check"]);
        let path = path.body(Body::Json(question)).reads();
        self.ask(Method::POST, self.as_fresh(path)).await
    }

    pub(crate) async fn write_config(
        &self,
        text: String,
        cas: Option<u64>,
        owner: &Owner,
    ) -> Result<Answer<Applied>, CliError> {
        let question = Question::to(&["v1", "config"])
            .maybe("cas", cas)
            .owner(owner);
        self.ask(Method::PUT, question.body(Body::Text(text))).await
    }

    pub(crate) async fn config(&self, kind: &str, name: &str) -> Result<Answer<Value>, CliError> {
        self.read(Question::to(&["v1", "config", kind, name])).await
    }

    /// Every config entry, of all kinds.
    pub(crate) async fn all_configs(&self) -> Result<Answer<Vec<Value>>, CliError> {
        self.read(Question::to(&["v1", "config"])).await
    }

    pub(crate) async fn configs(&self, kind: &str) -> Result<Answer<Vec<Value>>, CliError> {
        self.read(Question::to(&["v1", "config", kind])).await
    }

    pub(crate) async fn delete_config(
        &self,
        kind: &str,
        name: &str,
        cas: Option<u64>,
        owner: &Owner,
    ) -> Result<Answer<Applied>, CliError> {
        let question = Question::to(&["v1", "config", kind, name]);
        self.ask(Method::DELETE, question.maybe("cas", cas).owner(owner))
            .await
    }

    pub(crate) async fn nodes(&self) -> Result<Answer<Vec<Node>>, CliError> {
        self.read(Question::to(&["v1", "catalog", "nodes"])).await
    }

    pub(crate) async fn force_leave(&self, node: &str) -> Result<Answer<Value>, CliError> {
        self.ask(
            Method::DELETE,
            Question::to(&["v1", "catalog", "nodes", node]),
        )
        .await
    }

    pub(crate) async fn services(&self) -> Result<Answer<Vec<ServiceRow>>, CliError> {
        self.read(Question::to(&["v1", "catalog", "services"]))
            .await
    }

    pub(crate) async fn instances(&self, service: &Key) -> Result<Answer<Vec<Instance>>, CliError> {
        let name = service.to_string();
        self.read(Question::to(&["v1", "catalog", "services", &name]))
            .await
    }

    pub(crate) async fn proxies(
        &self,
        service: Option<&Key>,
        node: Option<&str>,
    ) -> Result<Answer<Proxies>, CliError> {
        let question = Question::to(&["v1", "proxies"]);
        let question = question.maybe("service", service).maybe("node", node);
        self.ask(Method::GET, question).await
    }

    pub(crate) async fn wait(
        &self,
        index: u64,
        destination: Option<&Key>,
        timeout: mesh_model::Duration,
    ) -> Result<Answer<Waited>, CliError> {
        let question = Question::to(&["v1", "proxies", "wait"])
            .query("index", index)
            .query("timeout", timeout)
            .maybe("destination", destination)
            .wait(timeout.std().min(Duration::from_secs(600)));
        self.ask(Method::GET, question).await
    }

    pub(crate) async fn roots(&self) -> Result<Answer<Roots>, CliError> {
        self.read(Question::to(&["v1", "ca", "roots"])).await
    }

    pub(crate) async fn roots_pem(&self) -> Result<String, CliError> {
        self.text(Question::to(&["v1", "ca", "roots"]).query("pem", true))
            .await
    }

    pub(crate) async fn ca_status(&self) -> Result<Answer<Value>, CliError> {
        self.read(Question::to(&["v1", "ca", "status"])).await
    }

    pub(crate) async fn ca_config(&self) -> Result<Answer<Value>, CliError> {
        self.read(Question::to(&["v1", "ca", "config"])).await
    }

    pub(crate) async fn write_ca_config(
        &self,
        body: Value,
        cas: Option<u64>,
        dry_run: bool,
    ) -> Result<Answer<Value>, CliError> {
        let question = Question::to(&["v1", "ca", "config"])
            .maybe("cas", cas)
            .maybe("dry_run", dry_run.then_some(true))
            .wait(MAKING)
            .body(Body::Json(body));
        self.ask(Method::PUT, question).await
    }

    /// Has a CA taken over, or its keys sealed with another key.
    pub(crate) async fn change_ca(
        &self,
        name: &'static str,
        body: Value,
        cas: Option<u64>,
        dry_run: bool,
    ) -> Result<Answer<Value>, CliError> {
        let question = Question::to(&["v1", "ca", name])
            .maybe("cas", cas)
            .maybe("dry_run", dry_run.then_some(true))
            .wait(MAKING)
            .body(Body::Json(body));
        self.ask(Method::POST, question).await
    }

    pub(crate) async fn leaves(&self, service: Option<&Key>) -> Result<Answer<Value>, CliError> {
        let question = Question::to(&["v1", "ca", "leaves"]);
        self.read(question.maybe("service", service)).await
    }

    pub(crate) async fn revocations(&self) -> Result<Answer<Value>, CliError> {
        self.read(Question::to(&["v1", "ca", "revocations"])).await
    }

    pub(crate) async fn revoke(&self, body: Value) -> Result<Answer<Value>, CliError> {
        let question = Question::to(&["v1", "ca", "revoke"]).body(Body::Json(body));
        self.ask(Method::POST, question).await
    }

    pub(crate) async fn unrevoke(&self, body: Value) -> Result<Answer<Value>, CliError> {
        let question = Question::to(&["v1", "ca", "unrevoke"]).body(Body::Json(body));
        self.ask(Method::POST, question).await
    }

    /// Begins a change of the root, or undoes one.
    pub(crate) async fn rotate_ca(
        &self,
        abort: bool,
        dry_run: bool,
    ) -> Result<Answer<Value>, CliError> {
        let (method, name) = match abort {
            true => (Method::DELETE, "rotation"),
            false => (Method::POST, "rotate"),
        };
        let question = Question::to(&["v1", "ca", name]).wait(MAKING);
        self.ask(method, question.maybe("dry_run", dry_run.then_some(true)))
            .await
    }

    pub(crate) async fn status(&self) -> Result<Answer<Status>, CliError> {
        self.ask(Method::GET, Question::to(&["v1", "status"])).await
    }

    pub(crate) async fn peers(&self) -> Result<Answer<Vec<Peer>>, CliError> {
        self.read(Question::to(&["v1", "operator", "raft", "peers"]))
            .await
    }

    pub(crate) async fn remove_peer(&self, id: &str) -> Result<Answer<Value>, CliError> {
        let question = Question::to(&["v1", "operator", "raft", "peers", id]);
        self.ask(Method::DELETE, question).await
    }

    /// The whole state, piece by piece.
    pub(crate) async fn save_snapshot(
        &self,
        mut take: impl FnMut(&[u8]) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let mut question = Question::to(&["v1", "snapshot"]);
        if self.freshness.stale {
            question = question.query("stale", true);
        }
        let mut response = self.send(Method::GET, question, SNAPSHOT).await?;
        while let Some(chunk) = response.chunk().await.map_err(|error| self.lost(&error))? {
            take(&chunk)?;
        }
        Ok(())
    }

    pub(crate) async fn restore_snapshot(
        &self,
        bytes: Vec<u8>,
    ) -> Result<Answer<Applied>, CliError> {
        let question = Question::to(&["v1", "snapshot"]).body(Body::Bytes(bytes));
        self.ask(Method::PUT, question.wait(SNAPSHOT)).await
    }
}

fn row_path(key: &EntryKey) -> Vec<String> {
    let mut parts = vec!["v1".to_owned()];
    match key {
        EntryKey::Mesh => parts.push("mesh".to_owned()),
        EntryKey::Service(key) => parts.extend(["services".to_owned(), key.to_string()]),
        EntryKey::Route(key) => parts.extend(["routes".to_owned(), key.to_string()]),
        EntryKey::Gateway(key) => parts.extend(["gateways".to_owned(), key.to_string()]),
        EntryKey::Intention {
            source,
            destination,
        } => parts.extend([
            "intentions".to_owned(),
            source.to_string(),
            destination.to_string(),
        ]),
    }
    parts
}
