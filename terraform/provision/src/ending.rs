//! The end of servers: their jobs, their data on the machines, their variables.

use std::time::Instant;

use crate::converge::{ENDING, PAUSE};
use crate::describe::Servers;
use crate::error::ProvisionError;
use crate::job::{cleanup_id, cleanup_job};
use crate::nomad::Cluster;
use crate::plan::Index;
use crate::progress::Control;
use crate::secret::Redactor;
use crate::world::{Seen, look};

/// Ends the servers with all that they have: jobs, data on the machines, variables.
///
/// # Errors
/// [`ProvisionError::ForceDestroy`] where it is not forced; else [`ProvisionError`].
pub async fn destroy_servers(
    nomad: &Cluster,
    wanted: &Servers,
    force: bool,
    control: &Control<'_>,
) -> Result<(), ProvisionError> {
    if !force {
        return Err(ProvisionError::ForceDestroy(wanted.name.clone()));
    }
    // Nobody is asked to leave: there is no cluster to be kept.
    let world = look(nomad, None, wanted, |_| true).await?;
    let redactor = wanted.redactor();
    for (index, seen) in world.servers.iter().rev() {
        control.check()?;
        end(nomad, wanted, *index, seen, control, &redactor).await?;
    }
    Ok(())
}

/// Stops a server, takes its data from its machine, and forgets it. Its job goes last: while it is
/// there, what is left to do is known.
pub(crate) async fn end(
    nomad: &Cluster,
    wanted: &Servers,
    index: Index,
    seen: &Seen,
    control: &Control<'_>,
    redactor: &Redactor,
) -> Result<(), ProvisionError> {
    let id = wanted.job(index);
    let Some(place) = &seen.place else {
        return Ok(());
    };
    if seen.job.as_ref().is_some_and(|job| !job.stop) {
        control.say(format!("{id}: is stopped"));
        nomad.stop(&id, false).await?;
    }
    let is_away = !seen.node.as_ref().is_some_and(|node| node.is_ready());
    if is_away {
        control.say(format!(
            "{id}: its machine {} is away; what it has in {} stays there",
            place.node, wanted.machine.data_dir
        ));
    } else {
        gone(nomad, &id, control).await?;
        clean(nomad, wanted, index, &place.node, control, redactor).await?;
    }
    nomad.delete_variable(&format!("nomad/jobs/{id}")).await?;
    nomad.stop(&id, true).await
}

/// Waits until nothing of a job runs.
async fn gone(nomad: &Cluster, id: &str, control: &Control<'_>) -> Result<(), ProvisionError> {
    let begin = Instant::now();
    loop {
        let allocations = nomad.allocations(id).await?;
        let Some(one) = allocations.iter().find(|one| one.may_run()) else {
            return Ok(());
        };
        if begin.elapsed() > ENDING {
            return Err(ProvisionError::Stuck {
                seconds: begin.elapsed().as_secs(),
                what: format!("{id} to end"),
                detail: format!(
                    "Allocation {} on {} is {}",
                    one.id, one.node_name, one.client_status
                ),
            });
        }
        control.pause(PAUSE / 2).await?;
    }
}

async fn clean(
    nomad: &Cluster,
    wanted: &Servers,
    index: Index,
    node: &str,
    control: &Control<'_>,
    redactor: &Redactor,
) -> Result<(), ProvisionError> {
    let id = cleanup_id(&wanted.job(index));
    // One that an earlier run left has done its work, or not.
    nomad.stop(&id, true).await?;
    nomad
        .register(&id, &cleanup_job(wanted, index, node, nomad.namespace()), 0)
        .await?;
    let begin = Instant::now();
    loop {
        let allocations = nomad.allocations(&id).await?;
        let last = allocations.first();
        match last.map(|one| one.client_status.as_str()) {
            Some("complete") => break,
            Some("failed" | "lost") | None if begin.elapsed() > ENDING || last.is_some() => {
                let said = match last {
                    Some(one) => nomad.log(&one.id, "cleanup", "stderr").await,
                    None => nomad.blocked(&id).await.unwrap_or_default(),
                };
                return Err(ProvisionError::Stuck {
                    seconds: begin.elapsed().as_secs(),
                    what: format!(
                        "the data of {} to be removed from node {node}",
                        wanted.job(index)
                    ),
                    detail: redactor.clean(&said),
                });
            }
            _ => control.pause(PAUSE / 2).await?,
        }
    }
    nomad.stop(&id, true).await
}
