//! Nomad's API, as far as it is needed here.

use std::collections::BTreeMap;

use mesh_nomad::{Access, Answer, Method, Nomad};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::ProvisionError;
use crate::permission::{Need, Token, forbidden};

/// Nomad answers so where a job or a variable is not what the writer read.
const CONFLICT: &str = "conflicting job modify index";
/// How much of a task's log is shown, in bytes.
const TAIL: u32 = 1500;

/// Nomad, as an operator reaches it.
#[derive(Debug)]
pub struct Cluster {
    nomad: Nomad,
    namespace: String,
    region: Option<String>,
    has_token: bool,
}

/// A client of Nomad's.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Node {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) datacenter: String,
    pub(crate) node_pool: String,
    pub(crate) status: String,
    pub(crate) scheduling_eligibility: String,
    pub(crate) host_volumes: Option<BTreeMap<String, Value>>,
    pub(crate) drivers: Option<BTreeMap<String, Driver>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Driver {
    pub(crate) detected: bool,
    pub(crate) healthy: bool,
}

impl Node {
    pub(crate) fn is_ready(&self) -> bool {
        self.status == "ready"
    }

    pub(crate) fn takes_work(&self) -> bool {
        self.is_ready() && self.scheduling_eligibility == "eligible"
    }
}

/// A job, as Nomad has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Job {
    pub(crate) stop: bool,
    pub(crate) version: u64,
    pub(crate) job_modify_index: u64,
    pub(crate) meta: Option<BTreeMap<String, String>>,
}

impl Job {
    pub(crate) fn meta(&self, key: &str) -> Option<&str> {
        self.meta.as_ref()?.get(key).map(String::as_str)
    }
}

/// An allocation in a list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Allocation {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(rename = "NodeID")]
    pub(crate) node: String,
    pub(crate) node_name: String,
    pub(crate) desired_status: String,
    pub(crate) client_status: String,
    pub(crate) create_index: u64,
    /// Only in a list.
    pub(crate) job_version: u64,
    pub(crate) task_states: Option<BTreeMap<String, TaskState>>,
    /// Only of one that was asked for by its id.
    pub(crate) allocated_resources: Option<Resources>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct TaskState {
    pub(crate) state: String,
    pub(crate) failed: bool,
    pub(crate) restarts: u64,
    pub(crate) events: Option<Vec<TaskEvent>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct TaskEvent {
    pub(crate) display_message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Resources {
    pub(crate) shared: Shared,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Shared {
    pub(crate) ports: Option<Vec<Port>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Port {
    pub(crate) label: String,
    pub(crate) value: u16,
    #[serde(rename = "HostIP")]
    pub(crate) host_ip: String,
}

impl Allocation {
    /// Whether it runs, or is to.
    pub(crate) fn is_live(&self) -> bool {
        self.desired_status == "run"
            && ["pending", "running", "unknown"].contains(&self.client_status.as_str())
    }

    /// Whether a process of it may still be there.
    pub(crate) fn may_run(&self) -> bool {
        ["pending", "running", "unknown"].contains(&self.client_status.as_str())
    }

    /// `host:port` of a port of the group.
    pub(crate) fn address(&self, label: &str) -> Option<String> {
        let ports = self.allocated_resources.as_ref()?.shared.ports.as_ref()?;
        let port = ports.iter().find(|port| port.label == label)?;
        let host = match port.host_ip.contains(':') {
            true => format!("[{}]", port.host_ip),
            false => port.host_ip.clone(),
        };
        Some(format!("{host}:{}", port.value))
    }
}

/// A variable of Nomad's.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Variable {
    pub(crate) modify_index: u64,
    #[serde(default)]
    pub(crate) items: BTreeMap<String, String>,
}

/// How many places of a change are named.
const MAX_CHANGES: usize = 6;

/// What would come of a job if it were run.
pub(crate) struct Planned {
    /// Nothing would change.
    pub(crate) is_current: bool,
    /// What would change, in words.
    pub(crate) changes: Vec<String>,
    /// Why it could not be placed, in words.
    pub(crate) unplaced: Option<String>,
}

impl Planned {
    /// What would change, in a line.
    pub(crate) fn words(&self) -> String {
        words(&self.changes)
    }
}

/// Changes in a line; of many only the first.
pub(crate) fn words(changes: &[String]) -> String {
    let first: Vec<&str> = changes
        .iter()
        .map(String::as_str)
        .take(MAX_CHANGES)
        .collect();
    match changes.len().saturating_sub(MAX_CHANGES) {
        0 => first.join("; "),
        more => format!("{}; and {more} more", first.join("; ")),
    }
}

impl Cluster {
    /// At this address, in this namespace (`default` where it is empty).
    ///
    /// # Errors
    /// When a certificate or the token cannot be read.
    pub fn new(
        access: &Access,
        namespace: &str,
        region: Option<String>,
    ) -> Result<Self, ProvisionError> {
        Ok(Self {
            nomad: Nomad::operator(access)?,
            namespace: match namespace {
                "" => "default".to_owned(),
                name => name.to_owned(),
            },
            region,
            has_token: access.token.is_some(),
        })
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    fn path(&self, path: &str, query: &[(&str, &str)]) -> String {
        let mut all = vec![("namespace", self.namespace.as_str())];
        all.extend(self.region.as_deref().map(|region| ("region", region)));
        all.extend_from_slice(query);
        let encoded: Vec<String> = all
            .iter()
            .map(|(key, value)| format!("{key}={}", encode(value)))
            .collect();
        format!("{path}?{}", encoded.join("&"))
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Value>,
    ) -> Result<Answer, ProvisionError> {
        let body = body.map(|body| body.to_string().into_bytes());
        Ok(self
            .nomad
            .call(method, &self.path(path, query), body)
            .await?)
    }

    /// What an answer says; none where there is no such thing.
    async fn read<T: DeserializeOwned>(
        &self,
        what: &str,
        need: &Need<'_>,
        answer: &Answer,
    ) -> Result<Option<T>, ProvisionError> {
        match answer.status {
            404 => Ok(None),
            200 => {
                let read = serde_json::from_slice(&answer.body);
                read.map(Some).map_err(|error| ProvisionError::Nomad {
                    what: what.to_owned(),
                    reason: format!("what it answers cannot be read: {error}"),
                })
            }
            _ => Err(self.refused(what, need, answer).await),
        }
    }

    async fn get<T: DeserializeOwned>(
        &self,
        what: &str,
        need: &Need<'_>,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Option<T>, ProvisionError> {
        let answer = self.call(Method::GET, path, query, None).await?;
        self.read(what, need, &answer).await
    }

    async fn refused(&self, what: &str, need: &Need<'_>, answer: &Answer) -> ProvisionError {
        ProvisionError::Nomad {
            what: what.to_owned(),
            reason: match answer.status {
                403 => self.forbidden(need).await,
                status => {
                    let said = String::from_utf8_lossy(&answer.body);
                    let said: String = said.trim().chars().take(600).collect();
                    format!("{said} (status {status})")
                }
            },
        }
    }

    /// Nomad denies a token that it does not know in the words for one that lacks something, so it is
    /// asked once more.
    async fn forbidden(&self, need: &Need<'_>) -> String {
        let token = match self.has_token {
            false => Token::None,
            true => match self
                .call(Method::GET, "/v1/acl/token/self", &[], None)
                .await
            {
                Ok(answer) if answer.status != 200 => Token::Unknown,
                _ => Token::Known,
            },
        };
        forbidden(need, &self.namespace, token)
    }

    pub(crate) async fn nodes(&self) -> Result<Vec<Node>, ProvisionError> {
        let found: Option<Vec<Node>> = self
            .get("asked for its nodes", &Need::Nodes, "/v1/nodes", &[])
            .await?;
        Ok(found.unwrap_or_default())
    }

    /// The ids of jobs that begin so.
    pub(crate) async fn jobs(&self, prefix: &str) -> Result<Vec<String>, ProvisionError> {
        #[derive(Deserialize)]
        struct Row {
            #[serde(rename = "ID")]
            id: String,
        }
        let query = [("prefix", prefix)];
        let found: Option<Vec<Row>> = self
            .get("asked for its jobs", &Need::LIST_JOBS, "/v1/jobs", &query)
            .await?;
        Ok(found.into_iter().flatten().map(|row| row.id).collect())
    }

    pub(crate) async fn job(&self, id: &str) -> Result<Option<Job>, ProvisionError> {
        self.get(
            &format!("asked for job {id}"),
            &Need::READ_JOB,
            &format!("/v1/job/{id}"),
            &[],
        )
        .await
    }

    pub(crate) async fn allocations(&self, job: &str) -> Result<Vec<Allocation>, ProvisionError> {
        let what = format!("asked for the allocations of job {job}");
        let path = format!("/v1/job/{job}/allocations");
        let found: Option<Vec<Allocation>> = self
            .get(&what, &Need::READ_JOB, &path, &[("all", "true")])
            .await?;
        let mut found = found.unwrap_or_default();
        found.sort_by_key(|one| std::cmp::Reverse(one.create_index));
        Ok(found)
    }

    pub(crate) async fn allocation(&self, id: &str) -> Result<Option<Allocation>, ProvisionError> {
        let what = format!("asked for allocation {id}");
        self.get(&what, &Need::READ_JOB, &format!("/v1/allocation/{id}"), &[])
            .await
    }

    /// What would come of this job.
    pub(crate) async fn plan(&self, id: &str, job: &Value) -> Result<Planned, ProvisionError> {
        let what = format!("asked what a change of job {id} would do");
        let body = json!({"Job": job, "Diff": true});
        let path = format!("/v1/job/{id}/plan");
        let answer = self.call(Method::POST, &path, &[], Some(body)).await?;
        let need = Need::SUBMIT_JOB;
        let read: Option<Value> = self.read(&what, &need, &answer).await?;
        let Some(read) = read else {
            return Err(self.refused(&what, &need, &answer).await);
        };
        let mut changes = Vec::new();
        changed("", &read["Diff"], &mut changes);
        Ok(Planned {
            is_current: read["Diff"]["Type"] == "None",
            changes,
            unplaced: unplaced(&read["FailedTGAllocs"]),
        })
    }

    /// Runs a job in place of that of this index; 0: of none.
    pub(crate) async fn register(
        &self,
        id: &str,
        job: &Value,
        replaces: u64,
    ) -> Result<(), ProvisionError> {
        let body = json!({"Job": job, "EnforceIndex": true, "JobModifyIndex": replaces});
        let answer = self.call(Method::PUT, "/v1/jobs", &[], Some(body)).await?;
        let what = format!("asked to run job {id}");
        match answer.status {
            200 => Ok(()),
            _ if String::from_utf8_lossy(&answer.body).contains(CONFLICT) => {
                Err(ProvisionError::Conflict(format!("job {id}")))
            }
            _ => Err(self.refused(&what, &Need::to_run(job), &answer).await),
        }
    }

    /// Stops a job, or forgets it; fine if there is none.
    pub(crate) async fn stop(&self, id: &str, purge: bool) -> Result<(), ProvisionError> {
        let purge = if purge { "true" } else { "false" };
        let path = format!("/v1/job/{id}");
        let answer = self
            .call(Method::DELETE, &path, &[("purge", purge)], None)
            .await?;
        match answer.status {
            200 | 404 => Ok(()),
            _ => Err(self
                .refused(
                    &format!("asked to stop job {id}"),
                    &Need::SUBMIT_JOB,
                    &answer,
                )
                .await),
        }
    }

    /// Ends an allocation; another one is made when Nomad looks at the job again.
    pub(crate) async fn stop_allocation(&self, id: &str) -> Result<(), ProvisionError> {
        let path = format!("/v1/allocation/{id}/stop");
        let answer = self.call(Method::PUT, &path, &[], None).await?;
        match answer.status {
            200 | 404 => Ok(()),
            _ => Err(self
                .refused(
                    &format!("asked to stop allocation {id}"),
                    &Need::ALLOC_LIFECYCLE,
                    &answer,
                )
                .await),
        }
    }

    /// Has Nomad look at a job again, and place what is missing.
    pub(crate) async fn evaluate(&self, id: &str) -> Result<(), ProvisionError> {
        let path = format!("/v1/job/{id}/evaluate");
        let answer = self.call(Method::PUT, &path, &[], None).await?;
        match answer.status {
            200 => Ok(()),
            _ => {
                let what = format!("asked to look at job {id} again");
                Err(self.refused(&what, &Need::SUBMIT_JOB, &answer).await)
            }
        }
    }

    pub(crate) async fn variable(&self, path: &str) -> Result<Option<Variable>, ProvisionError> {
        let what = format!("asked for variable {path}");
        self.get(
            &what,
            &Need::Variable("read", path),
            &format!("/v1/var/{path}"),
            &[],
        )
        .await
    }

    /// Writes a variable in place of that of this index; 0: of none. Its new index.
    pub(crate) async fn write_variable(
        &self,
        path: &str,
        items: &BTreeMap<String, String>,
        replaces: u64,
    ) -> Result<u64, ProvisionError> {
        let what = format!("asked to write variable {path}");
        let body = json!({"Path": path, "Namespace": self.namespace, "Items": items});
        let cas = replaces.to_string();
        let to = format!("/v1/var/{path}");
        let answer = self
            .call(Method::PUT, &to, &[("cas", &cas)], Some(body))
            .await?;
        if answer.status == 409 {
            return Err(ProvisionError::Conflict(format!("variable {path}")));
        }
        let need = Need::Variable("write", path);
        if ![200, 403].contains(&answer.status) {
            // What Nomad says of a variable may repeat it.
            return Err(ProvisionError::Nomad {
                what,
                reason: format!("it answers with status {}", answer.status),
            });
        }
        let written: Option<Variable> = self.read(&what, &need, &answer).await?;
        Ok(written.map_or(0, |written| written.modify_index))
    }

    pub(crate) async fn delete_variable(&self, path: &str) -> Result<(), ProvisionError> {
        let what = format!("asked to delete variable {path}");
        let to = format!("/v1/var/{path}");
        let answer = self.call(Method::DELETE, &to, &[], None).await?;
        match answer.status {
            200 | 204 | 404 => Ok(()),
            _ => Err(self
                .refused(&what, &Need::Variable("destroy", path), &answer)
                .await),
        }
    }

    /// The end of what a task said; empty where it is not to be had.
    pub(crate) async fn log(&self, allocation: &str, task: &str, kind: &str) -> String {
        let offset = TAIL.to_string();
        let query = [
            ("task", task),
            ("type", kind),
            ("plain", "true"),
            ("origin", "end"),
            ("offset", offset.as_str()),
        ];
        let path = format!("/v1/client/fs/logs/{allocation}");
        match self.call(Method::GET, &path, &query, None).await {
            Ok(answer) if answer.status == 200 => {
                String::from_utf8_lossy(&answer.body).into_owned()
            }
            Ok(answer) if answer.status == 403 => {
                let reason = self.forbidden(&Need::READ_LOGS).await;
                format!("(its log is not shown: {reason})")
            }
            _ => String::new(),
        }
    }

    /// Why a job has no allocation, in words.
    pub(crate) async fn blocked(&self, job: &str) -> Option<String> {
        let path = format!("/v1/job/{job}/evaluations");
        let found: Option<Vec<Value>> = self.get("", &Need::READ_JOB, &path, &[]).await.ok()?;
        let mut found = found?;
        found.sort_by_key(|one| one["CreateIndex"].as_u64());
        found
            .iter()
            .rev()
            .find_map(|one| unplaced(&one["FailedTGAllocs"]))
    }
}

/// What differs, as `Group server, Task server, Config: args[2]`, a line for each place.
fn changed(place: &str, diff: &Value, found: &mut Vec<String>) {
    let list = |key: &str| diff[key].as_array().into_iter().flatten();
    let is_changed = |one: &&Value| one["Type"].as_str().is_some_and(|it| it != "None");
    let name = |one: &Value| one["Name"].as_str().unwrap_or_default().to_owned();
    let fields: Vec<String> = list("Fields").filter(is_changed).map(name).collect();
    if !fields.is_empty() {
        found.push(format!("{place}{}", fields.join(", ")));
    }
    for key in ["TaskGroups", "Tasks", "Objects"] {
        for one in list(key).filter(is_changed) {
            changed(&format!("{place}{}: ", name(one)), one, found);
        }
    }
}

fn unplaced(failed: &Value) -> Option<String> {
    let metric = failed.as_object()?.values().next()?;
    let mut reasons: Vec<String> = Vec::new();
    for (key, text) in [
        ("ConstraintFiltered", "not where"),
        ("DimensionExhausted", "too little"),
        ("ClassFiltered", "of class"),
    ] {
        for (name, count) in metric[key].as_object().into_iter().flatten() {
            reasons.push(format!("{text} {name} ({count} nodes)"));
        }
    }
    let evaluated = metric["NodesEvaluated"].as_u64().unwrap_or(0);
    Some(match reasons.is_empty() {
        true => format!("none of {evaluated} nodes that were looked at fits"),
        false => format!(
            "of {evaluated} nodes that were looked at: {}",
            reasons.join("; ")
        ),
    })
}

/// For a query: whatever is no letter, digit or harmless sign.
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
