//! `-wait`: until every proxy runs what was written.

use mesh_model::{Duration, Key};

use crate::args::Wait;
use crate::client::{Client, Waited};
use crate::console::Console;
use crate::error::{CliError, FAILED, count};

/// Waits if that is asked for; 0, or the exit code when some lag behind. Only
/// the proxies of `destination` where there is one.
pub(crate) async fn wait(
    client: &Client,
    wait: Wait,
    index: u64,
    destination: Option<&Key>,
    console: &mut Console<'_>,
) -> Result<u8, CliError> {
    let Some(timeout) = wait.wait else {
        return Ok(0);
    };
    let destination = destination.filter(|key| key.is_exact());
    let waited = client.wait(index, destination, timeout).await?.value;
    Ok(report(&waited, timeout, console))
}

fn report(waited: &Waited, timeout: Duration, console: &mut Console<'_>) -> u8 {
    for node in &waited.not_connected {
        console.note(format!(
            "Warning: no server hears the agent of node {node}; its proxies keep what they have"
        ));
    }
    if !waited.unreachable_servers.is_empty() {
        let servers = count(waited.unreachable_servers.len(), "server", "servers");
        console.note(format!(
            "Warning: {servers} did not answer; the proxies of their agents are not counted"
        ));
    }
    let proxies = count(waited.proxies as usize, "proxy", "proxies");
    if waited.live {
        let agents = count(waited.agents as usize, "agent", "agents");
        let index = waited.index;
        console.note(format!("Live at index {index}: {proxies} of {agents}."));
        return 0;
    }
    console.note(format!(
        "Error: it is written, but not live everywhere after {timeout}:"
    ));
    for lagging in &waited.lagging {
        let who = match &lagging.proxy {
            Some(proxy) => format!("proxy {proxy} on node {}", lagging.node),
            None => format!("the agent of node {}", lagging.node),
        };
        console.note(format!("  {who}: {}", lagging.reason));
    }
    console.note("  `meshctl proxy status` shows how it goes on.");
    FAILED
}
