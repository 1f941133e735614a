//! What is said of a run that waits, is stuck, or is refused.

use std::time::Duration;

use crate::converge::Run;
use crate::error::ProvisionError;
use crate::nomad::Cluster;
use crate::plan::{self, Index, Refusal, Wait};
use crate::world::{Seen, World};

impl Run<'_> {
    pub(crate) fn words(&self, wait: Wait) -> String {
        match wait {
            Wait::Leader => "a leader".to_owned(),
            Wait::Answer(index) => format!("{} to answer", self.wanted.job(index)),
            Wait::Vote(index) => format!("{} to have a vote", self.wanted.job(index)),
            Wait::CatchUp(index) => {
                format!("{} to have what the leader has", self.wanted.job(index))
            }
        }
    }

    pub(crate) async fn stuck(
        &self,
        wait: Wait,
        waited: Duration,
        world: &World,
    ) -> ProvisionError {
        let detail = match wait {
            Wait::Leader => self.no_leader(world),
            Wait::Answer(index) | Wait::Vote(index) | Wait::CatchUp(index) => {
                match world.servers.get(&index) {
                    Some(seen) => describe(self.nomad, &self.wanted.job(index), seen).await,
                    None => String::new(),
                }
            }
        };
        ProvisionError::Stuck {
            seconds: waited.as_secs(),
            what: self.words(wait),
            detail: self.redactor.clean(&detail),
        }
    }

    fn no_leader(&self, world: &World) -> String {
        let voters = world.situation.voters();
        let answering: Vec<String> = world
            .servers
            .iter()
            .filter(|(_, seen)| seen.status.is_some())
            .map(|(index, _)| self.wanted.job(*index))
            .collect();
        format!(
            "The cluster has {voters} members with a vote and needs {} of them; these answer: {}. Bring \
             back the others with their data (their jobs, their machines). If the data are gone for good: \
             `meshctl snapshot save -stale`, destroy, apply, `meshctl snapshot restore`",
            plan::quorum(voters),
            match answering.is_empty() {
                true => "none".to_owned(),
                false => answering.join(", "),
            }
        )
    }

    pub(crate) fn refused(&self, refusal: Refusal, world: &World) -> ProvisionError {
        let job = |index: Index| self.wanted.job(index);
        let node = |index: Index| {
            let seen = world.servers.get(&index);
            let place = seen.and_then(|seen| seen.place.as_ref());
            place.map(|place| place.node.clone()).unwrap_or_default()
        };
        ProvisionError::Refused(match refusal {
            Refusal::Quorum {
                server,
                voters,
                well,
            } => {
                let unwell: Vec<String> = world
                    .situation
                    .servers
                    .iter()
                    .filter(|(_, one)| {
                        one.is_voter
                            && !matches!(one.process, plan::Process::Answers { is_well: true, .. })
                    })
                    .map(|(index, _)| job(*index))
                    .collect();
                let others = match world.situation.strangers {
                    0 => String::new(),
                    count => {
                        format!("; {count} more are not of this set, and nothing is known of them")
                    }
                };
                format!(
                    "{} is not touched: the cluster has {voters} members with a vote and needs {}, and \
                     only {well} are well (not: {}{others}). Mend those first, or take those that do not come \
                     back out with `meshctl operator raft remove-peer`",
                    job(server),
                    plan::quorum(voters),
                    match unwell.is_empty() {
                        true => "none of this set".to_owned(),
                        false => unwell.join(", "),
                    }
                )
            }
            Refusal::OnlyMember(server) => format!(
                "{} is the only server that has the data, and its machine {} is gone or down: bring it back. \
                 If it is gone for good, destroy, apply, and restore a snapshot",
                job(server),
                node(server)
            ),
            Refusal::DataGone => format!(
                "the servers of {} run, and none of them knows a cluster: their data are gone. Nothing is \
                 begun by itself, since somewhere the data may be. Destroy, apply, and restore a snapshot \
                 (`meshctl snapshot restore`)",
                self.wanted.name
            ),
        })
    }
}

/// How a server's task is, for who looks for the fault.
async fn describe(nomad: &Cluster, job: &str, seen: &Seen) -> String {
    let mut text = String::new();
    if !seen.silence.is_empty() {
        text += &format!("{}. ", seen.silence);
    }
    if let Some(status) = &seen.status
        && !status.reason.is_empty()
    {
        text += &format!("It says: {}. ", status.reason);
    }
    let Some(allocation) = &seen.allocation else {
        let reason = nomad.blocked(job).await;
        return text + &reason.unwrap_or_else(|| "Nomad has made no allocation".to_owned());
    };
    text += &format!(
        "Allocation {} on {} is {}",
        allocation.id, allocation.node_name, allocation.client_status
    );
    for (task, state) in allocation.task_states.iter().flatten() {
        if state.state == "dead" && !state.failed {
            continue;
        }
        let last = state
            .events
            .iter()
            .flatten()
            .rev()
            .find(|event| !event.display_message.is_empty());
        let event = last
            .map(|event| format!(": {}", event.display_message))
            .unwrap_or_default();
        text += &format!(
            "; task {task} is {}, {} restarts{event}",
            state.state, state.restarts
        );
        let log = nomad.log(&allocation.id, task, "stderr").await;
        let lines: Vec<&str> = log.lines().rev().take(6).collect();
        for line in lines.iter().rev() {
            text += &format!("\n  {line}");
        }
    }
    text + &format!("\nMore: nomad alloc logs -stderr {} server", allocation.id)
}
