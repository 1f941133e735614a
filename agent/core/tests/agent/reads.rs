//! Consul's reads of the whole mesh, which the agent asks of a server.

use mesh_agent::Agent;
use serde_json::{Value, json};

use crate::support::{Fake, World, register, soon, web};

struct Read {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: String,
}

impl Read {
    fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(&self.body).unwrap()
    }

    /// One field of each row.
    fn each(&self, pointer: &str) -> Vec<String> {
        let rows = self.json();
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| row.pointer(pointer).unwrap().as_str().unwrap().to_owned())
            .collect()
    }
}

async fn send(agent: &Agent, method: &str, target: &str) -> Read {
    let url = format!("http://{}{target}", agent.addresses().http);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.request(method.parse().unwrap(), url);
    let answer = soon("an answer", request.send()).await.unwrap();
    Read {
        status: answer.status().as_u16(),
        headers: answer.headers().clone(),
        body: answer.text().await.unwrap(),
    }
}

async fn get(agent: &Agent, target: &str) -> Read {
    send(agent, "GET", target).await
}

fn instance(id: &str, node_state: &str, status: &str, tag: &str) -> Value {
    json!({
        "namespace": "default", "service": "web", "id": id, "node": "n2", "node_name": "host-2",
        "node_address": "10.0.0.6", "node_state": node_state, "address": "10.0.0.6", "port": 8080,
        "tags": [tag], "meta": {"version": id}, "weights": {"passing": 1, "warning": 1},
        "proxy": {"id": format!("{id}-sidecar-proxy"), "address": "10.0.0.6", "port": 21000},
        "checks": {"alive": {"name": "alive", "status": status}},
        "status": status, "create_index": 3, "modify_index": 7,
    })
}

/// A server that has two good instances of web, one that warns, and one on a silent node.
async fn mesh(world: &World) -> (Fake, Agent) {
    let server = world.server().await;
    server.change(|state| {
        let rows = json!([
            instance("a", "alive", "passing", "blue"),
            instance("b", "alive", "passing", "green"),
            instance("c", "alive", "warning", "blue"),
            instance("d", "silent", "passing", "blue"),
        ]);
        let mut put = |path: &str, body: Value| state.api.insert(path.into(), body.to_string());
        let mut elsewhere = instance("z", "alive", "passing", "red");
        elsewhere["service"] = json!("db");
        put(
            "/v1/catalog/instances",
            json!([elsewhere, rows[0], rows[1]]),
        );
        put("/v1/catalog/services/default%2Fweb", rows);
        put("/v1/catalog/services/default%2Fnomad", json!([]));
        put(
            "/v1/catalog/services",
            json!([{"namespace": "default", "name": "web", "tags": ["blue", "green"]}]),
        );
        put(
            "/v1/catalog/nodes",
            json!([{"id": "n2", "name": "host-2", "address": "10.0.0.6", "meta": {"rack": "r1"},
                    "create_index": 2, "modify_index": 5}]),
        );
    });
    let agent = world.agent(&[&server]).await;
    let connected = async {
        while agent.status().server.is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    soon("the stream", connected).await;
    (server, agent)
}

#[tokio::test]
async fn templates_read_catalog_and_health() {
    let world = World::new();
    let (_server, agent) = mesh(&world).await;
    let health = async |query: &str| {
        let target = format!("/v1/health/service/web{query}");
        get(&agent, &target).await.each("/Service/ID")
    };
    assert_eq!(health("").await, ["a", "b", "c", "d"]);
    assert_eq!(health("?passing").await, ["a", "b"]);
    assert_eq!(health("?passing=1&near=_agent").await, ["a", "b"]);
    assert_eq!(health("?passing=false&tag=blue").await, ["a", "c", "d"]);
    assert_eq!(health("?tag=blue&tag=green").await, [""; 0]);
    let filter = "?filter=Service.Meta.version%20in%20%22bc%22%20or%20Checks.Status%20==%20warning";
    assert_eq!(
        get(&agent, &format!("/v1/health/service/web{filter}"))
            .await
            .status,
        400
    );
    let filter = "?filter=Checks.Status%20==%20warning%20or%20Service.Meta.version%20==%20a";
    assert_eq!(health(filter).await, ["a", "c"]);

    let sidecars = get(&agent, "/v1/catalog/service/web-sidecar-proxy").await;
    assert_eq!(sidecars.each("/ServiceID")[0], "a-sidecar-proxy");
    assert_eq!(sidecars.json()[0]["ServiceKind"], "connect-proxy");
    let same = get(&agent, "/v1/catalog/connect/web").await;
    assert_eq!(same.json(), sidecars.json());
    let filter = "?filter=green%20in%20ServiceTags";
    let some = get(&agent, &format!("/v1/catalog/service/web{filter}")).await;
    assert_eq!(some.each("/ServiceID"), ["b"]);
    let names = get(&agent, "/v1/catalog/services?stale=").await;
    assert_eq!(names.json(), json!({"web": ["blue", "green"]}));
    // Asked of the instances: what is left of them is told.
    let filter = "?filter=ServiceMeta.version%20!=%20b";
    let names = get(&agent, &format!("/v1/catalog/services{filter}")).await;
    assert_eq!(names.json(), json!({"web": ["blue"], "db": ["red"]}));
    let nodes = get(&agent, "/v1/catalog/nodes?filter=Meta.rack%20==%20r1").await;
    assert_eq!(nodes.each("/Node"), ["host-2"]);
    let nodes = get(&agent, "/v1/catalog/nodes?filter=Meta.rack%20==%20r2").await;
    assert_eq!(nodes.json(), json!([]));
    // As Nomad looks for its servers.
    let target = "/v1/catalog/service/nomad?tag=rpc&dc=dc1&stale=&near=_agent&wait=2000ms";
    assert_eq!(get(&agent, target).await.json(), json!([]));
}

#[tokio::test]
async fn what_is_waited_for_and_how_fresh_goes_to_the_server() {
    let world = World::new();
    let (server, agent) = mesh(&world).await;
    let first = get(&agent, "/v1/health/service/web?consistent").await;
    let header = |name: &str| first.headers[name].to_str().unwrap();
    assert!(header("x-consul-index").parse::<u64>().unwrap() >= 10);
    assert_eq!(header("x-consul-knownleader"), "true");
    assert_eq!(header("x-consul-lastcontact"), "3");
    assert_eq!(header("x-consul-effective-consistency"), "consistent");
    for target in [
        "/v1/catalog/nodes?index=7&wait=2s&stale",
        "/v1/catalog/nodes?index=7",
        "/v1/catalog/nodes?index=7&wait=9h",
        "/v1/catalog/nodes?index=0&wait=1m",
    ] {
        assert_eq!(get(&agent, target).await.status, 200, "{target}");
    }
    let asked = server.change(|state| state.reads.clone());
    assert_eq!(
        asked,
        [
            "/v1/catalog/services/default%2Fweb?consistent",
            "/v1/catalog/nodes?stale&index=7&wait=2000ms",
            "/v1/catalog/nodes?index=7&wait=300000ms",
            "/v1/catalog/nodes?index=7&wait=600000ms",
            "/v1/catalog/nodes",
        ]
    );
}

#[tokio::test]
async fn roots_are_a_servers_or_what_proxies_here_trust() {
    let world = World::new();
    let (server, agent) = mesh(&world).await;
    let path = "/v1/agent/connect/ca/roots";
    let body = json!({"trust_domain": "test.mesh", "active_root": "new", "roots": [
        {"id": "old", "pem": "OLD", "not_before": "a", "not_after": "b", "active": false},
        {"id": "new", "pem": "NEW", "not_before": "a", "not_after": "b", "active": true}]});
    server.change(|state| state.api.insert("/v1/ca/roots".into(), body.to_string()));
    let roots = get(&agent, path).await.json();
    assert_eq!(roots["ActiveRootID"], "new");
    assert_eq!(roots["Roots"][1]["RootCert"], "NEW");
    assert_eq!(get(&agent, "/v1/connect/ca/roots").await.json(), roots);

    register(&agent, &web("web-1")).await;
    server.change(|state| state.api.clear());
    let known = async {
        while get(&agent, path).await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    soon("the fact", known).await;
    let roots = get(&agent, path).await.json();
    assert_eq!(roots["TrustDomain"], "test.mesh");
    assert_eq!(roots["Roots"][0]["RootCert"], json!(world.mesh.pem));
    assert_eq!(roots["Roots"][0]["ID"], roots["ActiveRootID"]);
    let waiting = get(&agent, &format!("{path}?index=7")).await;
    assert_eq!(waiting.status, 404, "nobody would tell of a change");
}

#[tokio::test]
async fn what_cannot_be_answered_is_said() {
    let world = World::new();
    let (server, agent) = mesh(&world).await;
    for (target, status, reason) in [
        ("/v1/catalog/nodes?dc=dc2", 500, "No path to datacenter dc2"),
        (
            "/v1/catalog/nodes?stale&consistent",
            400,
            "stale and consistent",
        ),
        ("/v1/catalog/nodes?index=x", 400, "index: "),
        ("/v1/catalog/nodes?wait=x", 400, "wait: "),
        (
            "/v1/catalog/nodes?node-meta=a:b",
            400,
            "node-meta: not supported",
        ),
        ("/v1/catalog/nodes?partition=p", 400, "partition: "),
        (
            "/v1/catalog/nodes?filter=Port%20==%201",
            400,
            "filter: there is no selector `Port`",
        ),
        (
            "/v1/catalog/services?filter=a%20==",
            400,
            "filter: it ends too early",
        ),
        (
            "/v1/health/service/a%2Fb",
            400,
            "`a/b` can be no service's name",
        ),
    ] {
        let answer = get(&agent, target).await;
        assert_eq!(answer.status, status, "{target}: {}", answer.body);
        assert!(answer.body.starts_with(reason), "{target}: {}", answer.body);
    }
    drop(server);
    let gone = async {
        while agent.status().server.is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    soon("the stream's end", gone).await;
    let answer = get(&agent, "/v1/catalog/nodes").await;
    assert_eq!(answer.status, 500);
    assert!(
        answer.body.starts_with("no server is connected"),
        "{}",
        answer.body
    );
}

fn intention(source: &str, rule: Value) -> Value {
    let mut row = json!({
        "source": {"namespace": "default", "name": source},
        "destination": {"namespace": "default", "name": "web"},
        "precedence": 9, "owner": "cli", "create_index": 3, "modify_index": 7,
    });
    let rule = rule.as_object().unwrap().clone();
    row.as_object_mut().unwrap().extend(rule);
    row
}

#[tokio::test]
async fn policy_is_read_and_not_written() {
    let world = World::new();
    let (server, agent) = mesh(&world).await;
    let rows = json!([
        intention("shop", json!({"action": "allow"})),
        intention("bad", json!({"action": "deny"})),
        intention(
            "http",
            json!({"permissions": [{"action": "allow", "path_prefix": "/"}]})
        ),
    ]);
    let text = r#"{"Kind": "service-defaults", "Name": "web", "Protocol": "http"}"#;
    let entry = json!({"kind": "service-defaults", "namespace": "default", "name": "web",
                       "text": text, "create_index": 3, "modify_index": 7});
    server.change(|state| {
        let mut put = |path: &str, body: &Value| state.api.insert(path.into(), body.to_string());
        put("/v1/intentions", &rows);
        put("/v1/intentions/match", &rows);
        put(
            "/v1/mesh",
            &json!({"effective": {"default_intention": "deny"}}),
        );
        put("/v1/config/service-defaults", &json!([entry]));
        put("/v1/config/service-defaults/default%2Fweb", &entry);
    });
    let path = "/v1/connect/intentions";
    let all = get(&agent, path).await;
    assert_eq!(all.each("/SourceName"), ["shop", "bad", "http"]);
    let some = get(&agent, &format!("{path}?filter=Action%20==%20deny")).await;
    assert_eq!(some.each("/SourceName"), ["bad"]);
    let one = get(
        &agent,
        &format!("{path}/exact?source=bad&destination=default/web"),
    )
    .await;
    assert_eq!(one.json()["Action"], "deny");
    let none = get(
        &agent,
        &format!("{path}/exact?source=nobody&destination=web"),
    )
    .await;
    assert_eq!(
        (none.status, none.body.as_str()),
        (404, "Intention not found")
    );
    assert!(none.headers.contains_key("x-consul-index"));
    let matching = get(&agent, &format!("{path}/match?by=destination&name=web")).await;
    assert_eq!(matching.json()["web"].as_array().unwrap().len(), 3);
    for (source, allowed) in [
        ("shop", true),
        ("bad", false),
        ("http", false),
        ("x", false),
    ] {
        let target = format!("{path}/check?source={source}&destination=web");
        let answer = get(&agent, &target).await.json();
        assert_eq!(answer, json!({"Allowed": allowed}), "{source}");
    }
    for target in [
        "/match?by=x&name=web",
        "/match?by=source",
        "/exact?source=web",
        "/check",
    ] {
        let target = format!("{path}{target}");
        assert_eq!(get(&agent, &target).await.status, 400, "{target}");
    }

    let defaults = "/v1/config/service-defaults";
    let listed = get(&agent, defaults).await.json();
    assert_eq!(listed[0]["Protocol"], "http");
    let one = get(&agent, &format!("{defaults}/web")).await.json();
    assert_eq!((&one, &one["ModifyIndex"]), (&listed[0], &json!(7)));
    assert_eq!(get(&agent, &format!("{defaults}/other")).await.status, 404);
    assert_eq!(
        get(&agent, &format!("{defaults}/a%2F..%2Fb")).await.status,
        400
    );

    // Root itself writes nothing through an agent.
    let before = server.change(|state| state.reads.len());
    for (method, path) in [
        (
            "PUT",
            "/v1/connect/intentions/exact?source=a&destination=web",
        ),
        (
            "DELETE",
            "/v1/connect/intentions/exact?source=bad&destination=web",
        ),
        ("POST", "/v1/connect/intentions"),
        ("PUT", "/v1/connect/intentions/0f1e"),
        ("PUT", "/v1/config"),
        ("DELETE", "/v1/config/service-defaults/web"),
    ] {
        let refused = send(&agent, method, path).await;
        assert_eq!(refused.status, 403, "{method} {path}: {}", refused.body);
        assert!(refused.body.contains("meshctl"), "{}", refused.body);
    }
    assert_eq!(server.change(|state| state.reads.len()), before);
}

/// Nomad's servers write the entries of gateways where Nomad's clients register, when one Nomad agent
/// is both.
#[tokio::test]
async fn a_gateways_entry_is_passed_on() {
    let world = World::new();
    let (server, agent) = mesh(&world).await;
    let entry = r#"{"Kind":"ingress-gateway","Name":"edge","Listeners":[]}"#;
    let at = agent.addresses().http;
    let put = async |text: &str| {
        let write = crate::support::request(at, "PUT", "/v1/config", &[], text.to_owned());
        soon("an answer", write).await
    };
    let written = put(entry).await;
    assert_eq!((written.status, &*written.body), (200, "true"));
    server.change(|state| assert_eq!(state.written, [entry]));

    // What the servers refuse is refused, in their words.
    server.change(|state| state.refuse_writes = Some("agents do not write gateways here".into()));
    let refused = put(entry).await;
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("agents do not write gateways here"));

    // What is no gateway's goes nowhere.
    let before = server.change(|state| state.written.len());
    for (text, status) in [
        (
            r#"{"Kind":"service-defaults","Name":"web","Protocol":"http"}"#,
            403,
        ),
        (
            r#"{"Kind":"ingress-gateway","Name":"edge","Defaults":{"MaxConnections":1}}"#,
            400,
        ),
        ("{", 403),
    ] {
        assert_eq!(put(text).await.status, status, "{text}");
    }
    assert_eq!(server.change(|state| state.written.len()), before);
}
