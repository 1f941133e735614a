//! The agents: one job of type system, and a certificate for each node.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mesh_tls::Role;

use crate::certs;
use crate::describe::{Agents, AgentsTls};
use crate::error::ProvisionError;
use crate::job::{META_SECRETS, META_SET, agent_job, agent_variable};
use crate::machines;
use crate::nomad::{Allocation, Cluster, Job, Node, Variable};
use crate::progress::Control;

/// How much a variable of Nomad's holds, in bytes.
const MAX_VARIABLE: usize = 64 * 1024;
/// In the variable: how often what agents run with was replaced. Another number restarts them all; a
/// node that comes only gets its own.
const GENERATION: &str = "generation";
const PAUSE: Duration = Duration::from_secs(1);
/// How often Nomad is asked to look again where it runs no agent on a node that should have one.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// The agents as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentsInForce {
    /// Whether Nomad has the job.
    pub exists: bool,
    /// The names of the nodes on which one runs.
    pub nodes: Vec<String>,
    /// What is not as it is wanted, in words; empty: nothing.
    pub drift: Vec<String>,
}

struct Now {
    job: Option<Job>,
    nodes: Vec<Node>,
    allocations: Vec<Allocation>,
    variable: Option<Variable>,
}

impl Now {
    fn running(&self, node: &Node) -> Option<&Allocation> {
        let of_node = |one: &&Allocation| one.node == node.id && one.is_live();
        self.allocations.iter().find(of_node)
    }

    fn generation(&self) -> u64 {
        let text = self
            .variable
            .as_ref()
            .and_then(|it| it.items.get(GENERATION));
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

async fn look(nomad: &Cluster, wanted: &Agents) -> Result<Now, ProvisionError> {
    let job = nomad.job(&wanted.name).await?;
    if let Some(job) = &job
        && job.meta(META_SET) != Some(wanted.name.as_str())
    {
        return Err(ProvisionError::Foreign(format!("job {}", wanted.name)));
    }
    let allocations = match &job {
        Some(_) => nomad.allocations(&wanted.name).await?,
        None => Vec::new(),
    };
    let fits = |node: &Node| {
        machines::is_in(&node.datacenter, &wanted.datacenters)
            && (wanted.node_pool == "all" || node.node_pool == wanted.node_pool)
            && node.takes_work()
    };
    let mut nodes = nomad.nodes().await?;
    nodes.retain(fits);
    nodes.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    let variable = match &wanted.tls {
        AgentsTls::Issued { .. } => nomad.variable(&agent_variable(wanted)).await?,
        AgentsTls::Files { .. } => None,
    };
    Ok(Now {
        job,
        nodes,
        allocations,
        variable,
    })
}

/// Reads what is, against what is wanted; nothing is changed.
///
/// # Errors
/// When Nomad does not answer, or refuses.
pub async fn read_agents(
    nomad: &Cluster,
    wanted: &Agents,
) -> Result<AgentsInForce, ProvisionError> {
    let now = look(nomad, wanted).await?;
    let mut found = AgentsInForce::default();
    let Some(job) = now.job.as_ref().filter(|job| !job.stop) else {
        found.exists = now.job.is_some();
        found.drift.push("the job is stopped".to_owned());
        return Ok(found);
    };
    found.exists = true;
    let secrets = job
        .meta(META_SECRETS)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let planned = nomad
        .plan(&wanted.name, &agent_job(wanted, secrets, nomad.namespace()))
        .await?;
    if !planned.is_current {
        found.drift.push(format!(
            "the job is not what is wanted ({})",
            planned.words()
        ));
    }
    for node in &now.nodes {
        match now.running(node) {
            Some(one) if one.client_status == "running" => found.nodes.push(node.name.clone()),
            _ => found.drift.push(format!("{}: no agent runs", node.name)),
        }
        if let (AgentsTls::Issued { .. }, Some(variable)) = (&wanted.tls, &now.variable)
            && !variable.items.contains_key(&item("cert", node))
        {
            found
                .drift
                .push(format!("{}: has no certificate", node.name));
        }
    }
    if secrets != now.generation() {
        found
            .drift
            .push("the certificates are others than those that the agents began with".to_owned());
    }
    Ok(found)
}

/// Brings the agents to what is wanted, and waits until one runs on every client.
///
/// # Errors
/// [`ProvisionError`]; what is done by then stays.
pub async fn apply_agents(
    nomad: &Cluster,
    wanted: &Agents,
    control: &Control<'_>,
) -> Result<AgentsInForce, ProvisionError> {
    wanted.check()?;
    let now = look(nomad, wanted).await?;
    let (secrets, fresh) = certificates(nomad, wanted, &now, control).await?;
    let job = agent_job(wanted, secrets, nomad.namespace());
    let planned = nomad.plan(&wanted.name, &job).await?;
    if !planned.is_current {
        if let Some(reason) = planned.unplaced.as_ref().filter(|_| now.job.is_none()) {
            control.say(format!("{}: not on every node: {reason}", wanted.name));
        }
        control.say(match now.job {
            Some(_) => format!("{}: is changed ({})", wanted.name, planned.words()),
            None => format!("{}: is made", wanted.name),
        });
        let replaces = now.job.as_ref().map_or(0, |job| job.job_modify_index);
        nomad.register(&wanted.name, &job, replaces).await?;
    }
    // An agent that began before its node had a certificate would wait for ever.
    for node in now.nodes.iter().filter(|node| fresh.contains(&node.id)) {
        if let (Some(allocation), true) = (now.running(node), planned.is_current) {
            control.say(format!("{}: begins anew on {}", wanted.name, node.name));
            nomad.stop_allocation(&allocation.id).await?;
        }
    }
    wait(nomad, wanted, secrets, control).await
}

async fn wait(
    nomad: &Cluster,
    wanted: &Agents,
    secrets: u64,
    control: &Control<'_>,
) -> Result<AgentsInForce, ProvisionError> {
    let redactor = wanted.redactor();
    let mut begin = Instant::now();
    let mut asked = Instant::now();
    let mut said = String::new();
    loop {
        control.check()?;
        let now = look(nomad, wanted).await?;
        let version = now.job.as_ref().map_or(0, |job| job.version);
        let is_there = |node: &&Node| {
            let one = now.running(node);
            one.is_some_and(|one| {
                let runs = |state: &crate::nomad::TaskState| state.state == "running";
                let task = one.task_states.as_ref().and_then(|all| all.get("agent"));
                one.client_status == "running"
                    && one.job_version == version
                    && task.is_some_and(runs)
            })
        };
        let missing: Vec<&Node> = now.nodes.iter().filter(|node| !is_there(node)).collect();
        let planned = nomad
            .plan(&wanted.name, &agent_job(wanted, secrets, nomad.namespace()))
            .await?;
        if missing.is_empty() && planned.is_current {
            let nodes = now.nodes.iter().map(|node| node.name.clone()).collect();
            control.say(format!(
                "{}: runs on {} nodes",
                wanted.name,
                now.nodes.len()
            ));
            return Ok(AgentsInForce {
                exists: true,
                nodes,
                drift: Vec::new(),
            });
        }
        // What was stopped of a system job is not replaced before something has Nomad look at it.
        let is_empty = missing.iter().any(|node| now.running(node).is_none());
        if is_empty && asked.elapsed() > LOOK_AGAIN {
            nomad.evaluate(&wanted.name).await?;
            asked = Instant::now();
        }
        let names: Vec<&str> = missing
            .iter()
            .map(|node| node.name.as_str())
            .take(10)
            .collect();
        let text = format!("an agent on {}", names.join(", "));
        if text != said {
            control.say(format!("{}: waiting for {text}", wanted.name));
            begin = Instant::now();
            said = text;
        }
        if begin.elapsed() > control.step || control.is_over() {
            let detail = match missing.first().and_then(|node| now.running(node)) {
                Some(one) => tell(nomad, one).await,
                None => nomad
                    .blocked(&wanted.name)
                    .await
                    .unwrap_or_else(|| "Nomad has made no allocation there".to_owned()),
            };
            return Err(ProvisionError::Stuck {
                seconds: begin.elapsed().as_secs(),
                what: said,
                detail: redactor.clean(&detail),
            });
        }
        control.pause(PAUSE).await?;
    }
}

async fn tell(nomad: &Cluster, allocation: &Allocation) -> String {
    let mut text = format!(
        "Allocation {} is {}",
        allocation.id, allocation.client_status
    );
    for task in ["links", "agent"] {
        let log = nomad.log(&allocation.id, task, "stderr").await;
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        for line in lines.iter().rev() {
            text += &format!("\n  {task}: {line}");
        }
    }
    text
}

/// Ends the agents; the variable with their certificates goes too.
///
/// # Errors
/// When Nomad does not answer, or refuses.
pub async fn destroy_agents(
    nomad: &Cluster,
    wanted: &Agents,
    control: &Control<'_>,
) -> Result<(), ProvisionError> {
    let now = look(nomad, wanted).await?;
    if now.job.is_some() {
        control.say(format!("{}: is stopped", wanted.name));
        nomad.stop(&wanted.name, false).await?;
        let begin = Instant::now();
        while nomad
            .allocations(&wanted.name)
            .await?
            .iter()
            .any(Allocation::may_run)
        {
            // A client that is away cannot say that it ended.
            if begin.elapsed() > control.step || control.is_over() {
                break;
            }
            control.pause(PAUSE).await?;
        }
    }
    nomad.delete_variable(&agent_variable(wanted)).await?;
    nomad.stop(&wanted.name, true).await
}

fn item(kind: &str, node: &Node) -> String {
    format!("{kind}_{}", node.id)
}

/// Writes certificates that are missing, or near their end. The generation, and the nodes whose
/// agents must begin anew for it.
async fn certificates(
    nomad: &Cluster,
    wanted: &Agents,
    now: &Now,
    control: &Control<'_>,
) -> Result<(u64, Vec<String>), ProvisionError> {
    let AgentsTls::Issued { ca, key } = &wanted.tls else {
        return Ok((0, Vec::new()));
    };
    let key = key.as_ref().ok_or_else(|| {
        ProvisionError::invalid(
            "tls.ca_key",
            "its value is needed to make certificates, and is not given",
        )
    })?;
    let stands = now.variable.as_ref();
    let has = |item: &str| stands.and_then(|it| it.items.get(item));
    let mut generation = now.generation();
    let mut is_rotation = has("ca") != Some(ca);
    let mut items: BTreeMap<String, String> = [("ca".to_owned(), ca.clone())].into();
    let mut fresh = Vec::new();
    for node in &now.nodes {
        let (certificate, own) = (item("cert", node), item("key", node));
        if let (Some(stands), Some(key)) = (has(&certificate), has(&own)) {
            if certs::is_good(ca, stands, key, Role::Agent, &node.name) {
                items.insert(certificate, stands.clone());
                items.insert(own, key.clone());
                continue;
            }
            is_rotation = true;
        }
        let made = certs::issue(ca, key, Role::Agent, &node.name)?;
        items.insert(certificate, made.certificate);
        items.insert(own, made.key.expose().to_owned());
        fresh.push(node.id.clone());
    }
    // A node that is away for a while keeps its own.
    for (item, value) in stands.into_iter().flat_map(|it| &it.items) {
        items.entry(item.clone()).or_insert_with(|| value.clone());
    }
    if fresh.is_empty() && !is_rotation {
        return Ok((generation, fresh));
    }
    generation += u64::from(is_rotation || generation == 0);
    items.insert(GENERATION.to_owned(), generation.to_string());
    let size: usize = items
        .iter()
        .map(|(item, value)| item.len() + value.len())
        .sum();
    if size > MAX_VARIABLE {
        return Err(ProvisionError::invalid(
            "tls",
            format!(
                "the certificates of {} nodes are more than a variable of Nomad's holds (64 KiB). Put them on \
                 the machines instead, and give ca_file, cert_file and key_file",
                now.nodes.len()
            ),
        ));
    }
    control.say(format!(
        "{}: certificates for {} nodes",
        wanted.name,
        fresh.len()
    ));
    let replaces = stands.map_or(0, |stands| stands.modify_index);
    nomad
        .write_variable(&agent_variable(wanted), &items, replaces)
        .await?;
    Ok((generation, fresh))
}
