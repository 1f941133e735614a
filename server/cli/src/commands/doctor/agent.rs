//! The agent, where Nomad looks for Consul.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::Finding;

/// Looks at it.
pub(crate) async fn look(client: &reqwest::Client, address: &str) -> Vec<Finding> {
    let url = format!("{}/v1/agent/self", with_scheme(address));
    let answer = match client.get(&url).send().await {
        Ok(response) => response.json::<Value>().await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(about) => judge(address, &about),
        Err(error) => vec![Finding::missing(
            "agent",
            format!("nothing answers at {address}: {}", root_cause(&error)),
            "Start `meshctl agent` before Nomad; its http_addr must be Nomad's consul.address.",
        )],
    }
}

/// The allocations that have something registered; `None` where nobody can say.
pub(crate) async fn allocations(
    client: &reqwest::Client,
    address: &str,
) -> Option<BTreeSet<String>> {
    let url = format!("{}/v1/agent/services", with_scheme(address));
    let answer = client.get(&url).send().await.ok()?;
    let services: Map<String, Value> = answer.json().await.ok()?;
    // An allocation's id is of one length.
    let of = |id: &String| Some(id.strip_prefix("_nomad-task-")?.get(..36)?.to_owned());
    Some(services.keys().filter_map(of).collect())
}

/// What `/v1/agent/self` means.
fn judge(address: &str, about: &Value) -> Vec<Finding> {
    let text = |pointer: &str| about.pointer(pointer).and_then(Value::as_str);
    let Some(mesh) = about.get("Mesh").and_then(Value::as_object) else {
        let version = text("/Config/Version").unwrap_or("of no known version");
        return vec![Finding::missing(
            "agent",
            format!("at {address} is Consul's own agent, {version}"),
            "Give our agent another http_addr and grpc_addr, and write them as consul.address \
             and consul.grpc_address in Nomad's configuration.",
        )];
    };
    let version = text("/Config/Revision").unwrap_or("?");
    let node = text("/Config/NodeName").unwrap_or("?");
    let mut findings = vec![match version == env!("CARGO_PKG_VERSION") {
        true => Finding::ok("agent", format!("{version} at {address}, node {node}")),
        false => Finding::warning(
            "agent",
            format!(
                "{version} at {address}, while this meshctl is {}",
                env!("CARGO_PKG_VERSION")
            ),
            "Restart the agent after an upgrade.",
        ),
    }];
    let server = mesh.get("server").and_then(Value::as_str);
    let error = mesh.get("server_error").and_then(Value::as_str);
    findings.push(match server {
        Some(server) => Finding::ok("servers", format!("the agent speaks with {server}")),
        None => Finding::warning(
            "servers",
            format!(
                "the agent speaks with none: {}",
                error.unwrap_or("no reason yet")
            ),
            "It goes on with what it knows; new sidecars get no certificate. Look at its \
             `servers` and at the servers.",
        ),
    });
    findings.push(match mesh.get("socket").and_then(Value::as_str) {
        Some(socket) => Finding::ok("agent's socket", socket),
        None => Finding::missing(
            "agent's socket",
            "the agent has none, and bootstraps come from there",
            "Leave `socket` out of its configuration, or give it a path.",
        ),
    });
    if let Some(error) = mesh.get("instance_files_error").and_then(Value::as_str) {
        findings.push(Finding::warning(
            "instance files",
            error,
            "Correct them, and have the agent reload.",
        ));
    }
    findings
}

/// `http://` before an address that has no scheme.
pub(crate) fn with_scheme(address: &str) -> String {
    match address.contains("://") {
        true => address.trim_end_matches('/').to_owned(),
        false => format!("http://{}", address.trim_end_matches('/')),
    }
}

/// The innermost of an error's causes: reqwest's own words name only the URL.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use serde_json::json;

    fn states(about: &Value) -> Vec<(&'static str, State)> {
        let found = judge("127.0.0.1:8500", about);
        found.iter().map(|one| (one.what, one.state)).collect()
    }

    #[test]
    fn says_what_answers() {
        let consul = json!({"Config": {"Version": "1.20.0"}});
        assert_eq!(states(&consul), [("agent", State::Missing)]);
        let version = env!("CARGO_PKG_VERSION");
        let mut ours = json!({
            "Config": {"Revision": version, "NodeName": "n1"},
            "Mesh": {"server": "10.0.0.1:8701", "socket": "/run/meshctl/agent.sock"},
        });
        assert_eq!(
            states(&ours),
            [
                ("agent", State::Ok),
                ("servers", State::Ok),
                ("agent's socket", State::Ok)
            ]
        );
        ours["Config"]["Revision"] = json!("0.0.1");
        ours["Mesh"] = json!({"server_error": "connection refused", "instance_files_error": "a"});
        assert_eq!(
            states(&ours),
            [
                ("agent", State::Warning),
                ("servers", State::Warning),
                ("agent's socket", State::Missing),
                ("instance files", State::Warning)
            ]
        );
    }
}
