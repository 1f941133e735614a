//! From what is to what is wanted: looks, takes one step, and looks again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mesh_tls::Role;
use uuid::Uuid;

use crate::certs;
use crate::describe::{Sealing, Servers, ServersTls, Timeouts};
use crate::ending::end;
use crate::error::ProvisionError;
use crate::job::{Place, server_items, server_job};
use crate::machines;
use crate::mesh::{Mesh, MeshAccess};
use crate::nomad::{Cluster, words};
use crate::plan::{Decision, Index, Step, Wait, decide};
use crate::progress::Control;
use crate::secret::Redactor;
use crate::world::{Seen, ServersInForce, World, in_force, look, variable_fits};

/// Between two looks.
pub(crate) const PAUSE: Duration = Duration::from_millis(1000);
/// How long an allocation may take to end.
pub(crate) const ENDING: Duration = Duration::from_secs(90);
/// How often the same step may fail because somebody else wrote at the same time.
const MAX_CONFLICTS: u32 = 5;

/// Brings the servers to what is wanted, and returns how they are then: each has a vote, and there is
/// a leader. Whoever is killed meanwhile calls it again.
///
/// # Errors
/// [`ProvisionError`]; what is done by then stays.
pub async fn apply_servers(
    nomad: &Cluster,
    access: &MeshAccess,
    wanted: &Servers,
    timeouts: Timeouts,
    control: &Control<'_>,
) -> Result<ServersInForce, ProvisionError> {
    wanted.check()?;
    let mesh = access.client()?;
    let run = Run {
        nomad,
        mesh: &mesh,
        wanted,
        control,
        redactor: wanted.redactor(),
    };
    let mut lost = Lost::new(timeouts.lost_after);
    let mut waiting: Option<(Wait, Instant)> = None;
    let mut conflicts = 0;
    loop {
        control.check()?;
        let world = look(nomad, Some(&mesh), wanted, |node| lost.is_lost(node)).await?;
        match decide(wanted.count, &world.situation) {
            Decision::Done => {
                control.say(format!(
                    "{}: {} servers, each with a vote, and a leader",
                    wanted.name, wanted.count
                ));
                return Ok(in_force(&world, wanted, true));
            }
            // Steps that never come to an end are no progress: somebody may undo each of them.
            Decision::Do(step) if control.is_over() => {
                return Err(ProvisionError::Stuck {
                    seconds: timeouts.total.as_secs(),
                    what: format!("{} to be as it is wanted", wanted.name),
                    detail: format!(
                        "The next step would be {step:?}; what is done stays, and the next run goes on"
                    ),
                });
            }
            Decision::Do(step) => {
                waiting = None;
                match run.take(step, &world).await {
                    Ok(()) => conflicts = 0,
                    Err(ProvisionError::Conflict(_)) if conflicts < MAX_CONFLICTS => conflicts += 1,
                    Err(error) => return Err(error),
                }
            }
            Decision::Wait(wait) => {
                let since = match waiting {
                    Some((what, since)) if what == wait => since,
                    _ => {
                        control.say(format!("{}: waiting for {}", wanted.name, run.words(wait)));
                        let now = Instant::now();
                        waiting = Some((wait, now));
                        now
                    }
                };
                if since.elapsed() > control.step || control.is_over() {
                    return Err(run.stuck(wait, since.elapsed(), &world).await);
                }
                control.pause(PAUSE).await?;
            }
            Decision::Refuse(refusal) => return Err(run.refused(refusal, &world)),
        }
    }
}

/// Since when nodes are away, within one run.
struct Lost {
    since: BTreeMap<String, Instant>,
    after: Duration,
}

impl Lost {
    fn new(after: Duration) -> Self {
        Self {
            since: BTreeMap::new(),
            after,
        }
    }

    fn is_lost(&mut self, node: &str) -> bool {
        let since = self
            .since
            .entry(node.to_owned())
            .or_insert_with(Instant::now);
        since.elapsed() >= self.after
    }
}

/// One run, with what it works on.
pub(crate) struct Run<'a> {
    pub(crate) nomad: &'a Cluster,
    mesh: &'a Mesh,
    pub(crate) wanted: &'a Servers,
    control: &'a Control<'a>,
    pub(crate) redactor: Redactor,
}

impl Run<'_> {
    async fn take(&self, step: Step, world: &World) -> Result<(), ProvisionError> {
        let name = |index: Index| self.wanted.job(index);
        match step {
            Step::Begin => {
                self.control.say(format!("{}: begins a cluster", name(0)));
                self.create(0, true, world).await
            }
            Step::Create(index) => {
                self.control.say(format!("{}: is made", name(index)));
                self.create(index, false, world).await
            }
            Step::Move(index) => {
                self.control
                    .say(format!("{}: is made anew, as another member", name(index)));
                self.create(index, false, world).await
            }
            Step::Start(index) => {
                self.control
                    .say(format!("{}: was stopped, and is started", name(index)));
                self.change(index, world).await
            }
            Step::Update(index) => {
                let changes = world.servers.get(&index).map(|seen| words(&seen.changes));
                let changes = changes.unwrap_or_default();
                self.control.say(format!(
                    "{}: is changed, and restarts ({changes})",
                    name(index)
                ));
                if world.situation.voters() == 1 && world.situation.has_leader {
                    self.control.say(format!(
                        "{}: is the only server: until it is back nothing can be changed in the mesh; traffic goes on",
                        name(index)
                    ));
                }
                self.change(index, world).await
            }
            Step::Forget => {
                for peer in &world.dead {
                    self.control.say(format!(
                        "{}: its old self {} is taken out",
                        peer.name, peer.id
                    ));
                    self.remove(&peer.id, world).await?;
                }
                Ok(())
            }
            Step::Remove(index) => {
                let members = world.members.iter().filter(|peer| peer.name == name(index));
                for peer in members.filter(|peer| !world.dead.contains(peer)) {
                    self.control
                        .say(format!("{}: is taken out of the cluster", peer.name));
                    self.remove(&peer.id, world).await?;
                }
                Ok(())
            }
            Step::End(index) => {
                self.control.say(format!("{}: is ended", name(index)));
                match world.servers.get(&index) {
                    Some(seen) => {
                        end(
                            self.nomad,
                            self.wanted,
                            index,
                            seen,
                            self.control,
                            &self.redactor,
                        )
                        .await
                    }
                    None => Ok(()),
                }
            }
        }
    }

    async fn remove(&self, id: &str, world: &World) -> Result<(), ProvisionError> {
        let Some(address) = &world.address else {
            return Ok(()); // looked at again
        };
        if !self.mesh.remove(address, id).await? {
            let name = world.members.iter().find(|peer| peer.id == id);
            let name = name.map_or(id, |peer| &peer.name);
            self.control
                .say(format!("{name}: whether it is out is not known yet"));
            self.control.pause(PAUSE).await?;
        }
        Ok(())
    }

    /// A new server, on a machine that it gets now, with a folder that nobody had.
    async fn create(
        &self,
        index: Index,
        begins: bool,
        world: &World,
    ) -> Result<(), ProvisionError> {
        let mut used: BTreeMap<String, u32> = BTreeMap::new();
        for (other, seen) in &world.servers {
            if let (true, Some(place)) = (*other != index, &seen.place) {
                *used.entry(place.node.clone()).or_default() += 1;
            }
        }
        let wanted = self.wanted;
        let node = machines::choose(
            &world.nodes,
            &used,
            &wanted.datacenters,
            &wanted.node_pool,
            &wanted.machine,
            &wanted.job(index),
        )?;
        let incarnation: String = Uuid::new_v4()
            .simple()
            .to_string()
            .chars()
            .take(8)
            .collect();
        let place = Place {
            node: node.id.clone(),
            incarnation,
            begins,
            secrets: 0,
        };
        self.control
            .say(format!("{}: on {}", wanted.job(index), node.name));
        self.run(index, place, world.servers.get(&index)).await
    }

    /// The same server with its new description.
    async fn change(&self, index: Index, world: &World) -> Result<(), ProvisionError> {
        let Some(seen) = world.servers.get(&index) else {
            return Ok(());
        };
        let Some(place) = seen.place.clone() else {
            return Ok(());
        };
        let begins = place.begins && !world.situation.has_leader;
        self.run(index, Place { begins, ..place }, Some(seen)).await
    }

    async fn run(
        &self,
        index: Index,
        place: Place,
        seen: Option<&Seen>,
    ) -> Result<(), ProvisionError> {
        let id = self.wanted.job(index);
        let secrets = self.secrets(index).await?;
        let place = Place { secrets, ..place };
        let job = server_job(self.wanted, index, &place, self.nomad.namespace());
        let planned = self.nomad.plan(&id, &job).await?;
        // Better no change than one that stops a server and cannot start it again.
        if let Some(reason) = planned.unplaced {
            return Err(ProvisionError::NoMachine(format!(
                "{id} would find no place with this description, so nothing was changed: {reason}. \
                 Are the ports free, and is there memory?"
            )));
        }
        let replaces = seen
            .and_then(|seen| seen.job.as_ref())
            .map_or(0, |job| job.job_modify_index);
        self.nomad.register(&id, &job, replaces).await?;
        self.settled(index, &place).await
    }

    /// Waits until Nomad has ended what ran before, so that it is not taken for what runs now.
    async fn settled(&self, index: Index, place: &Place) -> Result<(), ProvisionError> {
        let id = self.wanted.job(index);
        let begin = Instant::now();
        loop {
            let allocations = self.nomad.allocations(&id).await?;
            let ending = |one: &&crate::nomad::Allocation| {
                one.desired_status != "run" && one.may_run() && one.node == place.node
            };
            let live = allocations.iter().any(|one| one.is_live());
            if live && !allocations.iter().any(|one| ending(&one)) {
                return Ok(());
            }
            if begin.elapsed() > ENDING || self.control.is_over() {
                let reason = self.nomad.blocked(&id).await;
                let reason = reason.map_or_else(String::new, |reason| format!("Nomad: {reason}"));
                return Err(ProvisionError::Stuck {
                    seconds: begin.elapsed().as_secs(),
                    what: format!("{id} to be placed"),
                    detail: self.redactor.clean(&reason),
                });
            }
            self.control.pause(PAUSE / 2).await?;
        }
    }

    /// Writes the server's variable if it is not as it should be; its index, 0 where it needs none.
    async fn secrets(&self, index: Index) -> Result<u64, ProvisionError> {
        let wanted = self.wanted;
        if server_items(wanted).is_empty() {
            return Ok(0);
        }
        let id = wanted.job(index);
        let path = format!("nomad/jobs/{id}");
        let stands = self.nomad.variable(&path).await?;
        if let Some(stands) = &stands
            && variable_fits(wanted, index, Some(stands))
        {
            return Ok(stands.modify_index);
        }
        let mut items = BTreeMap::new();
        let mut keep = |item: &str, value: &str| items.insert(item.to_owned(), value.to_owned());
        let missing = |what: &str| {
            ProvisionError::invalid(what, "its value is needed to write it, and is not given")
        };
        if let ServersTls::Issued { ca, key } = &wanted.tls {
            let key = key.as_ref().ok_or_else(|| missing("tls.ca_key"))?;
            let has = |item: &str| stands.as_ref().and_then(|it| it.items.get(item));
            keep("ca", ca);
            match (has("cert"), has("key")) {
                (Some(certificate), Some(own))
                    if certs::is_good(ca, certificate, own, Role::Server, &id) =>
                {
                    keep("cert", certificate);
                    keep("key", own);
                }
                _ => {
                    let made = certs::issue(ca, key, Role::Server, &id)?;
                    keep("cert", &made.certificate);
                    keep("key", made.key.expose());
                }
            }
        }
        if let Sealing::Key(key) = &wanted.sealing {
            let key = key.as_ref().ok_or_else(|| missing("sealing_key"))?;
            keep("sealing", key.expose());
        }
        for (name, value) in &wanted.tokens {
            let place = format!("tokens[\"{name}\"]");
            let value = value.as_ref().ok_or_else(|| missing(&place))?;
            keep(&format!("token_{name}"), value.expose());
        }
        let replaces = stands.map_or(0, |stands| stands.modify_index);
        self.nomad.write_variable(&path, &items, replaces).await
    }
}
