//! The Nomad client: what it found of all this, as its scheduler sees it.

use serde_json::Value;

use super::Finding;
use super::agent::{root_cause, with_scheme};

/// Looks at it.
pub(crate) async fn look(
    client: &reqwest::Client,
    address: &str,
    token: Option<&str>,
) -> Vec<Finding> {
    let base = with_scheme(address);
    let about = match get(client, token, &format!("{base}/v1/agent/self")).await {
        Ok(about) => about,
        Err(reason) => {
            return vec![Finding::warning(
                "Nomad",
                format!("nothing answers at {address}: {reason}"),
                "Start it, or give -nomad-addr.",
            )];
        }
    };
    let Some(node) = about
        .pointer("/stats/client/node_id")
        .and_then(Value::as_str)
    else {
        return vec![Finding::warning(
            "Nomad",
            format!("the agent at {address} is not a client"),
            "Run this on a client; servers need none of it.",
        )];
    };
    match get(client, token, &format!("{base}/v1/node/{node}")).await {
        Ok(node) => judge(&node),
        Err(reason) => vec![Finding::warning(
            "Nomad",
            format!("the node {node} cannot be read: {reason}"),
            "Set NOMAD_TOKEN to a token that may read nodes.",
        )],
    }
}

async fn get(client: &reqwest::Client, token: Option<&str>, url: &str) -> Result<Value, String> {
    let mut request = client.get(url);
    if let Some(token) = token {
        request = request.header("x-nomad-token", token);
    }
    let response = request.send().await.map_err(|error| root_cause(&error))?;
    match response.status().is_success() {
        true => response.json().await.map_err(|error| root_cause(&error)),
        false => Err(format!("it answers {}", response.status())),
    }
}

/// What a node of Nomad's means.
fn judge(node: &Value) -> Vec<Finding> {
    let attribute = |name: &str| node.get("Attributes")?.get(name)?.as_str();
    let mut findings = Vec::new();
    let seen = |text: &str| text.parse::<i64>().is_ok_and(|port| port > 0);
    let again = "Nomad looks every 15 s until it has once found the agent; after that, send it \
                 SIGHUP or restart it.";
    findings.push(
        match (attribute("consul.version"), attribute("consul.grpc")) {
            (Some(version), Some(port)) if seen(port) => Finding::ok(
                "Nomad's view",
                format!("consul.version {version}, consul.grpc {port}"),
            ),
            (None, _) => Finding::missing(
                "Nomad's view",
                "the attribute consul.version is not there, so that no connect block is placed",
                again,
            ),
            (Some(version), port) => Finding::missing(
                "Nomad's view",
                format!(
                    "consul.version {version}, but consul.grpc is {}",
                    port.unwrap_or("not there")
                ),
                again,
            ),
        },
    );
    let plugin = |name: &str| attribute(&format!("plugins.cni.version.{name}")).is_some();
    if !plugin("bridge") {
        findings.push(Finding::missing(
            "Nomad's view",
            "it found no CNI plugin bridge",
            "Set client.cni_path to the plugins' folders, and restart Nomad.",
        ));
    }
    let driver = |name: &str| {
        let healthy = node.pointer(&format!("/Drivers/{name}/Healthy"));
        healthy.and_then(Value::as_bool).unwrap_or(false)
    };
    let image = node
        .pointer("/Meta/connect.sidecar_image")
        .and_then(Value::as_str)
        .unwrap_or_default();
    findings.push(match (driver("docker") || driver("podman"), driver("raw_exec")) {
        (true, _) if image.contains("envoy") => Finding::warning(
            "sidecar",
            format!("meta connect.sidecar_image is {image}: Nomad would start Envoy"),
            "Set client { meta { \"connect.sidecar_image\" = \"mesh-proxy:1\" } } to our image.",
        ),
        (true, _) => Finding::ok("sidecar", format!("the image {image}")),
        (false, true) => Finding::ok(
            "sidecar",
            "no container driver; jobs name mesh-proxy in sidecar_task, with raw_exec",
        ),
        (false, false) => Finding::missing(
            "sidecar",
            "no driver that could start one: docker, podman and raw_exec are not healthy",
            "Install Docker or Podman, or write plugin \"raw_exec\" { config { enabled = true } }.",
        ),
    });
    findings
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::State;
    use super::*;
    use serde_json::json;

    fn node() -> Value {
        json!({
            "Attributes": {"consul.version": "1.20.0", "consul.grpc": "8502",
                "plugins.cni.version.bridge": "1.0.0"},
            "Drivers": {"raw_exec": {"Healthy": true}, "docker": {"Healthy": false}},
            "Meta": {"connect.sidecar_image": "docker.io/envoyproxy/envoy:v1"},
        })
    }

    fn missing(node: &Value) -> Vec<String> {
        let found = judge(node);
        let found = found.into_iter().filter(|one| one.state == State::Missing);
        found.map(|one| one.found).collect()
    }

    #[test]
    fn says_what_the_scheduler_lacks() {
        assert_eq!(missing(&node()), Vec::<String>::new());
        let mut without = node();
        without["Attributes"] = json!({});
        without["Drivers"] = json!({});
        let found = missing(&without);
        assert_eq!(found.len(), 3, "{found:?}");
        let mut closed = node();
        closed["Attributes"]["consul.grpc"] = json!("-1");
        assert!(missing(&closed)[0].contains("consul.grpc is -1"));
    }

    #[test]
    fn an_envoy_image_is_named() {
        let mut docker = node();
        docker["Drivers"]["docker"]["Healthy"] = json!(true);
        let found = judge(&docker);
        let sidecar = found.iter().find(|one| one.what == "sidecar").unwrap();
        assert_eq!(sidecar.state, State::Warning);
        docker["Meta"]["connect.sidecar_image"] = json!("mesh-proxy:1");
        let found = judge(&docker);
        assert!(found.iter().all(|one| one.state == State::Ok));
    }
}
