//! What is: read from Nomad and from the servers, each time anew.

use std::collections::BTreeMap;

use futures::future::join_all;

use crate::certs;
use crate::describe::{Sealing, Servers, ServersTls};
use crate::error::ProvisionError;
use crate::job::{
    META_BEGINS, META_DATA_DIR, META_INCARNATION, META_NODE, META_SECRETS, META_SET, Place,
    server_items, server_job,
};
use crate::mesh::{Mesh, MeshAccess, Peer, Status};
use crate::nomad::{Allocation, Cluster, Job, Node, Variable, words};
use crate::plan::{self, Index, Process, Situation};

/// How far a server may be behind the leader and still count as one that has caught up, in writes.
const MAX_LAG: u64 = 64;

/// All of it.
pub(crate) struct World {
    pub(crate) situation: Situation,
    pub(crate) servers: BTreeMap<Index, Seen>,
    pub(crate) nodes: Vec<Node>,
    /// Old selves of our servers, which are members still.
    pub(crate) dead: Vec<Peer>,
    pub(crate) members: Vec<Peer>,
    /// Where a server answers that knows the leader.
    pub(crate) address: Option<String>,
}

/// One server, with what is needed to change it.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) job: Option<Job>,
    pub(crate) place: Option<Place>,
    pub(crate) changes: Vec<String>,
    pub(crate) allocation: Option<Allocation>,
    pub(crate) node: Option<Node>,
    pub(crate) status: Option<Status>,
    /// Why it does not answer.
    pub(crate) silence: String,
    pub(crate) member: Option<Peer>,
    pub(crate) variable: Option<Variable>,
}

impl Seen {
    /// Its id as a member, as far as it is known.
    pub(crate) fn http(&self) -> Option<String> {
        self.allocation.as_ref()?.address("http")
    }
}

/// Reads it. `lost` says of a node that is not ready whether it counts as lost.
pub(crate) async fn look(
    nomad: &Cluster,
    mesh: Option<&Mesh>,
    wanted: &Servers,
    mut lost: impl FnMut(&str) -> bool,
) -> Result<World, ProvisionError> {
    let nodes = nomad.nodes().await?;
    let mut servers = BTreeMap::new();
    for index in present(nomad, wanted).await? {
        servers.insert(index, read(nomad, wanted, index, &nodes).await?);
    }
    // The servers first and the members last: who is asked knows no more than what is read then.
    if let Some(mesh) = mesh {
        ask(mesh, &mut servers).await;
    }
    let answers = || {
        servers
            .values()
            .filter_map(|one| one.status.as_ref().map(|it| (one, it)))
    };
    let leader = answers().find(|(_, it)| it.state == "leader" && it.is_ready);
    let leader_index = leader.map_or(0, |(_, status)| status.index);
    let asked = leader.or_else(|| answers().find(|(_, it)| it.cluster.is_some()));
    let mut address = asked.and_then(|(one, _)| one.http());
    let members = match (mesh, &address) {
        (Some(mesh), Some(to)) => mesh.peers(to).await.ok(),
        _ => None,
    };
    // A leader that did not say who the members are is as none: nothing may be taken away by it.
    let has_leader = leader.is_some() && members.as_ref().is_some_and(|all| !all.is_empty());
    if members.is_none() {
        address = None;
    }
    let members = members.unwrap_or_default();
    let (dead, strangers) = belong(wanted, &mut servers, &members);
    let mut situation = Situation {
        dead_voters: count(dead.iter().filter(|peer| peer.voter)),
        strangers,
        has_leader,
        servers: BTreeMap::new(),
    };
    for (index, seen) in &mut servers {
        let is_lost = machine_lost(seen, &nodes, &mut lost);
        let server = summarise(nomad, wanted, *index, seen, has_leader, leader_index).await?;
        situation.servers.insert(
            *index,
            plan::Server {
                machine_lost: is_lost,
                ..server
            },
        );
    }
    // A member whose job is gone counts nevertheless.
    for peer in &members {
        if let Some(index) = number(wanted, &peer.name) {
            let server = situation
                .servers
                .entry(index)
                .or_insert(plan::Server::ABSENT);
            if !servers.contains_key(&index) && !dead.contains(peer) {
                server.is_voter |= peer.voter;
                server.is_learner |= !peer.voter;
            }
        }
    }
    Ok(World {
        situation,
        servers,
        nodes,
        dead,
        members,
        address,
    })
}

fn count<T>(of: impl Iterator<Item = T>) -> u32 {
    u32::try_from(of.count()).unwrap_or(u32::MAX)
}

/// The number in a job's or a member's name.
fn number(wanted: &Servers, name: &str) -> Option<Index> {
    let rest = name.strip_prefix(&wanted.name)?.strip_prefix('-')?;
    let number: Index = rest.parse().ok()?;
    (number.to_string() == rest).then_some(number)
}

/// The servers that Nomad has a job of, running or stopped.
async fn present(nomad: &Cluster, wanted: &Servers) -> Result<Vec<Index>, ProvisionError> {
    let found = nomad.jobs(&format!("{}-", wanted.name)).await?;
    let mut found: Vec<Index> = found.iter().filter_map(|id| number(wanted, id)).collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

async fn read(
    nomad: &Cluster,
    wanted: &Servers,
    index: Index,
    nodes: &[Node],
) -> Result<Seen, ProvisionError> {
    let id = wanted.job(index);
    let Some(job) = nomad.job(&id).await? else {
        return Ok(Seen::default());
    };
    if job.meta(META_SET) != Some(wanted.name.as_str()) {
        return Err(ProvisionError::Foreign(format!("job {id}")));
    }
    let allocations = nomad.allocations(&id).await?;
    let live = allocations.iter().find(|one| one.is_live());
    let found = live.or(allocations.first());
    let allocation = match found {
        Some(one) => nomad.allocation(&one.id).await?.map(|whole| Allocation {
            job_version: one.job_version,
            ..whole
        }),
        None => None,
    };
    let meta = |key| job.meta(key).unwrap_or_default().to_owned();
    let place = Place {
        node: meta(META_NODE),
        incarnation: meta(META_INCARNATION),
        begins: meta(META_BEGINS) == "true",
        secrets: meta(META_SECRETS).parse().unwrap_or(0),
    };
    let node = nodes.iter().find(|node| node.id == place.node).cloned();
    let variable = match server_items(wanted).is_empty() {
        true => None,
        false => nomad.variable(&format!("nomad/jobs/{id}")).await?,
    };
    Ok(Seen {
        job: Some(job),
        place: Some(place),
        allocation,
        node,
        variable,
        ..Seen::default()
    })
}

async fn ask(mesh: &Mesh, servers: &mut BTreeMap<Index, Seen>) {
    let questions = servers.values().map(|seen| async {
        let job = seen.job.as_ref()?;
        // Until Nomad has put the job as it is now in its place, what answers is what ran before, and
        // is about to end: who took it for what is wanted would go on to the next server too soon.
        let is_it = |one: &&Allocation| one.is_live() && one.job_version == job.version;
        let runs = seen.allocation.as_ref().filter(is_it)?;
        Some(mesh.status(&runs.address("http")?).await)
    });
    let answers = join_all(questions).await;
    for (seen, answer) in servers.values_mut().zip(answers) {
        match answer {
            Some(Ok(status)) => seen.status = Some(status),
            Some(Err(error)) => seen.silence = error.to_string(),
            None => {}
        }
    }
}

/// Whose member each is: those of our servers, their old selves, and how many voters of others.
fn belong(
    wanted: &Servers,
    servers: &mut BTreeMap<Index, Seen>,
    members: &[Peer],
) -> (Vec<Peer>, u32) {
    let mut dead = Vec::new();
    let mut strangers = 0;
    for peer in members {
        let seen = number(wanted, &peer.name).map(|index| servers.get_mut(&index));
        match seen {
            None => strangers += u32::from(peer.voter),
            // Its job is gone.
            Some(None) => {}
            Some(Some(seen)) => {
                let own = seen.status.as_ref().map(|status| status.server.id.clone());
                match own {
                    Some(own) if own == peer.id => seen.member = Some(peer.clone()),
                    Some(_) => dead.push(peer.clone()),
                    // It does not say which it is: the first one, and of another nothing is known.
                    None if seen.member.is_none() => seen.member = Some(peer.clone()),
                    None => strangers += u32::from(peer.voter),
                }
            }
        }
    }
    (dead, strangers)
}

fn machine_lost(seen: &Seen, nodes: &[Node], lost: &mut impl FnMut(&str) -> bool) -> bool {
    let (Some(place), None) = (&seen.place, &seen.status) else {
        return false;
    };
    match nodes.iter().find(|node| node.id == place.node) {
        Some(node) if node.is_ready() || node.status == "initializing" => false,
        _ => lost(&place.node),
    }
}

async fn summarise(
    nomad: &Cluster,
    wanted: &Servers,
    index: Index,
    seen: &mut Seen,
    has_leader: bool,
    leader_index: u64,
) -> Result<plan::Server, ProvisionError> {
    let job = match (&seen.job, &seen.place) {
        (Some(job), _) if job.stop => plan::Job::Stopped,
        (Some(_), Some(place)) => {
            // Who has a cluster must not begin another one, whatever becomes of its data.
            let begins = place.begins && !has_leader;
            let right = Place {
                begins,
                secrets: seen.variable.as_ref().map_or(0, |it| it.modify_index),
                ..place.clone()
            };
            seen.changes = match index < wanted.count {
                true => {
                    let job = server_job(wanted, index, &right, nomad.namespace());
                    let planned = nomad.plan(&wanted.job(index), &job).await?;
                    match planned.is_current {
                        true => Vec::new(),
                        false => planned.changes,
                    }
                }
                false => Vec::new(),
            };
            let fits = variable_fits(wanted, index, seen.variable.as_ref());
            if index < wanted.count && !fits {
                seen.changes.push("secrets".to_owned());
            }
            plan::Job::Present {
                is_current: seen.changes.is_empty(),
                begins: place.begins,
            }
        }
        _ => plan::Job::Absent,
    };
    let process = match &seen.status {
        Some(status) => Process::Answers {
            is_well: status.is_ready && status.index + MAX_LAG >= leader_index,
            knows_cluster: status.cluster.is_some(),
        },
        None => Process::Silent,
    };
    let leads = seen.status.as_ref().is_some_and(|it| it.state == "leader");
    Ok(plan::Server {
        job,
        process,
        is_voter: seen.member.as_ref().is_some_and(|it| it.voter),
        is_learner: seen.member.as_ref().is_some_and(|it| !it.voter),
        leads,
        machine_lost: false,
    })
}

/// Whether a server's variable has what it should, as far as that is known.
pub(crate) fn variable_fits(wanted: &Servers, index: Index, variable: Option<&Variable>) -> bool {
    let items = server_items(wanted);
    let Some(variable) = variable else {
        return items.is_empty();
    };
    let has = |item: &str| variable.items.get(item);
    if !items.iter().all(|item| has(item).is_some()) || variable.items.len() != items.len() {
        return false;
    }
    if let ServersTls::Issued { ca, key } = &wanted.tls {
        let (Some(stands), Some(certificate), Some(own)) = (has("ca"), has("cert"), has("key"))
        else {
            return false;
        };
        // Without the CA's key nothing could be made, so nothing is missed.
        let id = wanted.job(index);
        let role = mesh_tls::Role::Server;
        if stands != ca || (key.is_some() && !certs::is_good(ca, certificate, own, role, &id)) {
            return false;
        }
    }
    if let Sealing::Key(Some(key)) = &wanted.sealing
        && has("sealing").map(String::as_str) != Some(key.expose())
    {
        return false;
    }
    wanted.tokens.iter().all(|(name, value)| {
        let stands = has(&format!("token_{name}")).map(String::as_str);
        value
            .as_ref()
            .is_none_or(|value| stands == Some(value.expose()))
    })
}

/// The servers as they are, for who keeps what is known of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServersInForce {
    /// Those that Nomad has a job of.
    pub servers: Vec<ServerInForce>,
    /// What is not as it is wanted, in words; empty: nothing.
    pub drift: Vec<String>,
    /// The cluster's id and trust domain, where a server says them.
    pub cluster: Option<(String, String)>,
    /// The folder of the data on the machines, as their jobs have it.
    pub data_dir: Option<String>,
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerInForce {
    /// Its job's id, which is its name as a member.
    pub job: String,
    /// The name of its machine.
    pub node: String,
    /// `host:port` of its HTTP API; empty where it does not run.
    pub http_address: String,
    /// `host:port` where agents and servers reach it.
    pub grpc_address: String,
    /// It has a vote.
    pub is_voter: bool,
    /// It leads.
    pub leads: bool,
}

/// Reads what is, against what is wanted; nothing is changed. Secrets that are not known are taken
/// as they stand. Without `access` the servers themselves are not asked.
///
/// # Errors
/// When Nomad does not answer, or refuses.
pub async fn read_servers(
    nomad: &Cluster,
    access: Option<&MeshAccess>,
    wanted: &Servers,
) -> Result<ServersInForce, ProvisionError> {
    let mesh = access.map(MeshAccess::client).transpose()?;
    let world = look(nomad, mesh.as_ref(), wanted, |_| true).await?;
    Ok(in_force(&world, wanted, mesh.is_some()))
}

pub(crate) fn in_force(world: &World, wanted: &Servers, asked: bool) -> ServersInForce {
    let mut all = ServersInForce::default();
    let known = world.situation.servers.keys().copied();
    let mut indexes: Vec<Index> = known.chain(0..wanted.count).collect();
    indexes.sort_unstable();
    indexes.dedup();
    for index in indexes {
        let name = wanted.job(index);
        let server = world.situation.servers.get(&index).copied();
        let server = server.unwrap_or(plan::Server::ABSENT);
        if let Some(reason) = drift(
            index < wanted.count,
            &server,
            world.servers.get(&index),
            asked,
        ) {
            all.drift.push(format!("{name}: {reason}"));
        }
        let Some(seen) = world.servers.get(&index) else {
            continue;
        };
        let data_dir = seen.job.as_ref().and_then(|job| job.meta(META_DATA_DIR));
        all.data_dir = all.data_dir.or_else(|| data_dir.map(str::to_owned));
        let runs = seen.allocation.as_ref().filter(|one| one.is_live());
        let address = |label| runs.and_then(|one| one.address(label)).unwrap_or_default();
        let cluster = seen.status.as_ref().and_then(|it| it.cluster.as_ref());
        if let (None, Some(cluster)) = (&all.cluster, cluster) {
            all.cluster = Some((cluster.id.clone(), cluster.trust_domain.clone()));
        }
        all.servers.push(ServerInForce {
            job: name,
            node: seen
                .node
                .as_ref()
                .map(|node| node.name.clone())
                .unwrap_or_default(),
            http_address: address("http"),
            grpc_address: address("grpc"),
            is_voter: server.is_voter,
            leads: server.leads,
        });
    }
    for peer in &world.dead {
        all.drift.push(format!(
            "{}: an old self of it is a member still",
            peer.name
        ));
    }
    all
}

fn drift(
    is_wanted: bool,
    server: &plan::Server,
    seen: Option<&Seen>,
    asked: bool,
) -> Option<String> {
    if !is_wanted {
        let is_there = server.job != plan::Job::Absent || server.is_voter || server.is_learner;
        return is_there.then(|| "is there, and is one too many".to_owned());
    }
    match server.job {
        plan::Job::Absent => return Some("has no job".to_owned()),
        plan::Job::Stopped => return Some("its job is stopped".to_owned()),
        plan::Job::Present {
            is_current: false, ..
        } => {
            let changes = seen.map(|seen| words(&seen.changes)).unwrap_or_default();
            return Some(format!("its job is not what is wanted ({changes})"));
        }
        plan::Job::Present { .. } => {}
    }
    if server.machine_lost {
        return Some("its machine is gone or down".to_owned());
    }
    let runs = seen
        .and_then(|seen| seen.allocation.as_ref())
        .is_some_and(Allocation::is_live);
    match server.process {
        _ if !runs => Some("does not run".to_owned()),
        _ if !asked => None,
        Process::Silent => Some("does not answer".to_owned()),
        Process::Answers { .. } if !server.is_voter => Some("has no vote".to_owned()),
        Process::Answers { .. } => None,
    }
}
