//! Nomad's door and the agent's own socket: who may do what.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use mesh_agent::Agent;
use mesh_proto::bootstrap::Bootstrap;
use serde_json::{Value, json};

use crate::support::{Answer, World, register, request, request_unix, soon, web};

/// A user that is neither root nor the agent's.
const NOBODY: u32 = 65534;

#[tokio::test]
async fn nomad_finds_what_it_sent() {
    let world = World::new();
    let agent = world.agent(&[]).await;
    let http = agent.addresses().http;
    let get = async |path: &str| request(http, "GET", path, &[], String::new()).await;
    let put = async |path: &str, body: Value| {
        let answer = request(http, "PUT", path, &[], body.to_string()).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    };
    let own = get("/v1/agent/self").await.json();
    assert!(own.as_object().unwrap().values().all(Value::is_object));
    assert_eq!(
        own["DebugConfig"]["GRPCPort"],
        agent.addresses().grpc.port()
    );
    assert_eq!(own["Config"]["NodeName"], "node-1");
    assert_eq!(get("/v1/agent/services").await.json(), json!({}));

    let mut body = web("web-1");
    body["Connect"]["SidecarService"]["Port"] = json!(22765);
    body["Meta"] = json!({"external-source": "nomad"});
    put(
        "/v1/agent/service/register?replace-existing-checks=true",
        body.clone(),
    )
    .await;
    let services = get("/v1/agent/services").await.json();
    assert_eq!(
        services["web-1"]["Weights"],
        json!({"Passing": 1, "Warning": 1})
    );
    let upstreams = &services["web-1-sidecar-proxy"]["Proxy"]["Upstreams"];
    assert_eq!(
        *upstreams,
        body["Connect"]["SidecarService"]["Proxy"]["Upstreams"]
    );
    let sidecar = get("/v1/agent/service/web-1-sidecar-proxy").await.json();
    assert_eq!(sidecar, services["web-1-sidecar-proxy"]);
    assert_eq!(get("/v1/agent/service/nobody").await.status, 404);

    put(
        "/v1/agent/check/register",
        json!({"ID": "_nomad-check-1", "Name": "script", "ServiceID": "web-1", "TTL": "41s"}),
    )
    .await;
    put(
        "/v1/agent/check/update/_nomad-check-1",
        json!({"Status": "warning", "Output": "so so"}),
    )
    .await;
    let checks = get("/v1/agent/checks").await.json();
    assert_eq!(checks["_nomad-check-1"]["Status"], "warning");
    assert_eq!(checks["_nomad-check-1"]["Output"], "so so");
    assert_eq!(
        checks["service:web-1-sidecar-proxy:1"]["ServiceID"],
        "web-1-sidecar-proxy"
    );
    put("/v1/agent/check/deregister/_nomad-check-1", json!(null)).await;
    assert!(
        get("/v1/agent/checks")
            .await
            .json()
            .get("_nomad-check-1")
            .is_none()
    );
    // As Nomad goes: the sidecar, then its parent, then what is not there.
    for id in ["web-1-sidecar-proxy", "web-1", "web-1"] {
        put(&format!("/v1/agent/service/deregister/{id}"), json!(null)).await;
    }
    assert_eq!(get("/v1/agent/services").await.json(), json!({}));
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let world = World::new();
    let agent = world.agent(&[]).await;
    let http = agent.addresses().http;
    register(
        &agent,
        &json!({"Name": "web", "Check": {"TCP": "127.0.0.1:1", "Interval": "1h"}}),
    )
    .await;
    for (method, path, body, status, message) in [
        (
            "PUT",
            "/v1/agent/service/register",
            "{",
            400,
            "the body is not JSON",
        ),
        (
            "PUT",
            "/v1/agent/service/register",
            "{}",
            400,
            "Name: missing",
        ),
        (
            "PUT",
            "/v1/agent/service/register",
            "{\"Name\":\"x\",\"Connect\":{\"SidecarService\":{\"Address\":\"no such host!\"}}}",
            400,
            "Connect.SidecarService.Address: `no such host!` is not an address",
        ),
        (
            "PUT",
            "/v1/agent/check/register",
            "{\"ServiceID\":\"x\",\"Name\":\"y\",\"TTL\":\"1s\"}",
            404,
            "instance x is not registered",
        ),
        (
            "PUT",
            "/v1/agent/check/update/x",
            "{\"Status\":\"passing\"}",
            404,
            "unknown check ID: x",
        ),
        (
            "PUT",
            "/v1/agent/check/pass/service:web",
            "",
            400,
            "check service:web is not a TTL check",
        ),
        (
            "GET",
            "/v1/agent/services?filter=x%20==",
            "",
            400,
            "filter: it ends too early",
        ),
        ("GET", "/v1/kv/x", "", 404, "/v1/kv/x is not known"),
        ("GET", "/v1/agent/service/register", "", 405, ""),
        ("POST", "/v1/proxy/bootstrap", "{}", 404, ""),
    ] {
        let answer = request(http, method, path, &[], body.into()).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.body.starts_with(message), "{path}: {}", answer.body);
    }
    let long = request(
        http,
        "PUT",
        "/v1/agent/service/register",
        &[],
        " ".repeat(600_000),
    )
    .await;
    assert_eq!(long.status, 413);
}

#[tokio::test]
async fn lists_are_filtered() {
    let world = World::new();
    let agent = world.agent(&[]).await;
    for id in ["web-1", "web-2"] {
        let mut body = web(id);
        body["Meta"] = json!({"id": id});
        register(&agent, &body).await;
    }
    let http = agent.addresses().http;
    let keys = async |list: &str, filter: &str| {
        let path = format!("/v1/agent/{list}?filter={filter}");
        let answer = request(http, "GET", &path, &[], String::new()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let keys = answer.json();
        keys.as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    let one = keys("services", "Meta.id%20==%20web-1").await;
    assert_eq!(one, ["web-1", "web-1-sidecar-proxy"]);
    let sidecars = keys("services", "Kind%20==%20%22connect-proxy%22").await;
    assert_eq!(sidecars, ["web-1-sidecar-proxy", "web-2-sidecar-proxy"]);
    let checks = "Status%20==%20passing%20and%20ServiceID%20==%20web-2";
    assert_eq!(keys("checks", checks).await, ["service:web-2"]);
}

#[tokio::test]
async fn the_own_socket_gives_bootstraps_and_waits_for_them() {
    let world = World::new();
    let agent = world.agent(&[]).await;
    let socket = agent.addresses().socket.clone().unwrap();
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
    let ask = async |query: &str, body: Value| {
        let uri = format!("/v1/proxy/bootstrap{query}");
        request_unix(&socket, "POST", &uri, body.to_string()).await
    };
    let none = ask("", json!({"sidecar_for": "web-1"})).await;
    assert_eq!(none.status, 404, "{}", none.body);
    let body = json!({"sidecar_for": "web-1", "admin": "127.0.0.2:19001",
                      "grpc_addr": "unix://alloc/tmp/consul_grpc.sock"});
    let waiting = ask("?wait=20s", body);
    let (given, ()) = tokio::join!(waiting, async {
        let view = web("web-1");
        register(&agent, &view).await;
    });
    assert_eq!(given.status, 200, "{}", given.body);
    let read = Bootstrap::parse(&given.body).unwrap();
    assert_eq!(read.proxy_id, "web-1-sidecar-proxy");
    assert_eq!(read.agent.to_string(), "unix://alloc/tmp/consul_grpc.sock");
    assert_eq!(read.admin.unwrap().to_string(), "127.0.0.2:19001");
    assert!(read.ticket.is_some());
    assert!(!given.body.to_lowercase().contains("token"));
    for (query, body) in [
        ("", json!({})),
        ("", json!({"proxy_id": "a", "sidecar_for": "b"})),
        (
            "",
            json!({"proxy_id": "web-1-sidecar-proxy", "admin": "nowhere"}),
        ),
        (
            "",
            json!({"proxy_id": "web-1-sidecar-proxy", "secret": "x"}),
        ),
        ("?wait=long", json!({"proxy_id": "web-1-sidecar-proxy"})),
    ] {
        assert_eq!(ask(query, body.clone()).await.status, 400, "{query} {body}");
    }
    let reloaded = request_unix(&socket, "PUT", "/v1/agent/reload", String::new()).await;
    assert_eq!(reloaded.json(), json!({"instances": 0}));
    agent.shutdown().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn another_user_may_read_and_not_write() {
    let world = World::new();
    let mut options = world.options(&[]);
    let token = world.data().join("token");
    std::fs::write(&token, "0123456789abcdef\n").unwrap();
    options.register_token_file = Some(token);
    let agent = Agent::start(options).await.unwrap();
    register(&agent, &web("web-1")).await;
    let Some(other) = Other::new(&world) else {
        return;
    };
    let http = agent.addresses().http.to_string();
    let socket = agent.addresses().socket.clone().unwrap();
    let socket = socket.to_str().unwrap();

    let read = other.ask(&http, "GET", "/v1/agent/services", "", "").await;
    assert_eq!(read.status, 200);
    let body = json!({"Name": "mine"}).to_string();
    let register_path = "/v1/agent/service/register";
    for at in [http.as_str(), socket] {
        for (path, body) in [
            (register_path, body.as_str()),
            ("/v1/agent/service/deregister/web-1", ""),
            ("/v1/agent/check/pass/service:web-1", ""),
        ] {
            let refused = other.ask(at, "PUT", path, "", body).await;
            assert_eq!(refused.status, 403, "{at} {path}: {}", refused.body);
            assert!(
                refused.body.starts_with("uid 65534 may not"),
                "{}",
                refused.body
            );
        }
    }
    let wrong = other
        .ask(&http, "PUT", register_path, "0123456789abcdeX", &body)
        .await;
    assert_eq!(wrong.status, 403);
    let right = other
        .ask(&http, "PUT", register_path, "0123456789abcdef", &body)
        .await;
    assert_eq!(right.status, 200, "{}", right.body);
    // What a user registered, the token allowing it, is that user's: it may start the sidecar.
    let mine =
        json!({"Name": "mine", "ID": "mine-1", "Port": 1, "Connect": {"SidecarService": {}}});
    let registered = other
        .ask(
            &http,
            "PUT",
            register_path,
            "0123456789abcdef",
            &mine.to_string(),
        )
        .await;
    assert_eq!(registered.status, 200, "{}", registered.body);
    let ask = json!({"sidecar_for": "mine-1"}).to_string();
    let given = other
        .ask(socket, "POST", "/v1/proxy/bootstrap", "", &ask)
        .await;
    assert_eq!(given.status, 200, "{}", given.body);
    // What root registered stays root's, also for the token.
    let other_owner = json!({"Name": "web", "ID": "web-1"}).to_string();
    let taken = other
        .ask(
            &http,
            "PUT",
            register_path,
            "0123456789abcdef",
            &other_owner,
        )
        .await;
    assert_eq!(taken.status, 403);
    assert!(
        taken.body.contains("was registered by uid 0"),
        "{}",
        taken.body
    );

    // Nor does the token speak for the checks of another's instance, but for its user's own.
    let fail = "/v1/agent/check/fail/service:web-1";
    let spoken = other.ask(&http, "PUT", fail, "0123456789abcdef", "").await;
    assert_eq!(spoken.status, 403, "{}", spoken.body);
    let own = json!({"Name": "ttl", "ID": "ttl-1", "Check": {"TTL": "1h"}}).to_string();
    let path = "/v1/agent/check/pass/service:ttl-1";
    for (path, body) in [(register_path, own.as_str()), (path, "")] {
        let done = other
            .ask(&http, "PUT", path, "0123456789abcdef", body)
            .await;
        assert_eq!(done.status, 200, "{path}: {}", done.body);
    }
    let checks = request(
        agent.addresses().http,
        "GET",
        "/v1/agent/checks",
        &[],
        String::new(),
    );
    let checks = checks.await.json();
    assert_eq!(checks["service:web-1"]["Status"], "passing");
    assert_eq!(checks["service:ttl-1"]["Status"], "passing");

    // The agent's socket: no bootstrap of another's proxy, and not a word whether it exists.
    for id in ["web-1-sidecar-proxy", "nobody"] {
        let ask = json!({"proxy_id": id}).to_string();
        let refused = other
            .ask(socket, "POST", "/v1/proxy/bootstrap", "", &ask)
            .await;
        assert_eq!(refused.status, 403, "{}", refused.body);
        let expected = format!("uid 65534: proxy {id} is not one that this user registered");
        assert!(refused.body.starts_with(&expected), "{}", refused.body);
        // Nor does the time that it takes say so.
        let begin = std::time::Instant::now();
        let waited = "/v1/proxy/bootstrap?wait=1s";
        let refused = other.ask(socket, "POST", waited, "", &ask).await;
        assert_eq!(refused.status, 403, "{}", refused.body);
        assert!(begin.elapsed() >= Duration::from_secs(1), "{id}");
    }
    assert_eq!(
        other
            .ask(socket, "PUT", "/v1/agent/reload", "", "")
            .await
            .status,
        403
    );
}

/// What a check does it does as the agent, who may change everything; who wrote it may not.
#[tokio::test]
async fn a_check_cannot_write_through_the_agent() {
    let world = World::new();
    let agent = world.agent(&[]).await;
    let http = agent.addresses().http;
    register(&agent, &json!({"Name": "victim"})).await;
    // An application that sends whoever asks it on to the agent, method and body kept.
    let to = format!("http://{http}/v1/agent/service/register");
    let redirect = axum::Router::new()
        .fallback(move || async move { axum::response::Redirect::temporary(&to) });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let application = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, redirect).await });

    let port = http.port();
    for (id, url) in [
        (
            "straight",
            format!("http://{http}/v1/agent/service/deregister/victim"),
        ),
        (
            "by-name",
            format!("http://localhost:{port}/v1/agent/service/deregister/victim"),
        ),
        ("redirected", format!("http://{application}/")),
    ] {
        let check = json!({"HTTP": url, "Method": "PUT", "Interval": "1h", "Timeout": "20s",
                           "Body": "{\"Name\": \"planted\"}"});
        register(&agent, &json!({"Name": id, "Check": check})).await;
        let of = format!("service:{id}");
        let ran = async {
            loop {
                let get = request(http, "GET", "/v1/agent/checks", &[], String::new());
                let output = get.await.json()[&of]["Output"].as_str().unwrap().to_owned();
                if !output.is_empty() {
                    return output;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let output = soon("the check's run", ran).await;
        let told = output.contains("the agent's own address") || output.contains("it redirects to");
        assert!(told, "{output}");
    }
    let services = request(http, "GET", "/v1/agent/services", &[], String::new()).await;
    let services = services.json();
    assert!(
        services.get("victim").is_some() && services.get("planted").is_none(),
        "{services}"
    );
}

/// Whatever else might make the agent's process call its own door.
#[tokio::test]
async fn the_agents_own_process_may_read_and_not_write() {
    let world = World::new();
    let mut options = world.options(&[]);
    options.takes_own_writes = false;
    let agent = Agent::start(options).await.unwrap();
    let http = agent.addresses().http;
    let socket = agent.addresses().socket.clone().unwrap();
    let body = json!({"Name": "planted"}).to_string();
    let path = "/v1/agent/service/register";
    for answer in [
        request(http, "PUT", path, &[], body.clone()).await,
        request_unix(&socket, "PUT", path, body).await,
    ] {
        assert_eq!(answer.status, 403, "{}", answer.body);
        assert!(
            answer.body.contains("no changes from itself"),
            "{}",
            answer.body
        );
    }
    let read = request(http, "GET", "/v1/agent/services", &[], String::new()).await;
    assert_eq!((read.status, read.json()), (200, json!({})));
}

#[tokio::test]
async fn a_short_token_is_refused() {
    let world = World::new();
    let mut options = world.options(&[]);
    let token = world.data().join("token");
    std::fs::write(&token, "short\n").unwrap();
    options.register_token_file = Some(token);
    assert!(Agent::start(options).await.is_err());
}

/// Runs this program again as another user.
pub struct Other {
    program: std::path::PathBuf,
}

impl Other {
    /// `None`, with the reason said, where that cannot be.
    pub fn new(world: &World) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: only root can become another user");
            return None;
        }
        // The folder lets nobody in but its owner: here others must reach the socket in it.
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(world.data(), mode).unwrap();
        let program = world.data().join("other");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        Some(Self { program })
    }

    pub async fn ask(&self, at: &str, method: &str, path: &str, token: &str, body: &str) -> Answer {
        let mut command = Command::new(&self.program);
        command
            .args([
                "--exact",
                "doors::as_another_user",
                "--ignored",
                "--nocapture",
            ])
            .env(
                "MESH_TEST_REQUEST",
                json!([at, method, path, token, body]).to_string(),
            )
            .current_dir("/")
            .uid(NOBODY)
            .gid(NOBODY);
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find_map(|line| line.strip_prefix("answer: "));
        let (status, body) = serde_json::from_str(
            line.unwrap_or_else(|| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr))),
        )
        .unwrap();
        Answer { status, body }
    }
}

/// Not a test: what [`Other`] runs.
#[tokio::test]
#[ignore = "run by other tests, as another user"]
async fn as_another_user() {
    let Ok(request_text) = std::env::var("MESH_TEST_REQUEST") else {
        return;
    };
    let [at, method, path, token, body]: [String; 5] = serde_json::from_str(&request_text).unwrap();
    let headers: &[(&str, &str)] = &[("x-consul-token", &token)];
    let headers = if token.is_empty() { &[] } else { headers };
    let asked = async {
        match at.parse() {
            Ok(at) => request(at, &method, &path, headers, body).await,
            Err(_) => request_unix(at.as_ref(), &method, &path, body).await,
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), asked)
        .await
        .unwrap();
    println!("\nanswer: {}", json!([answer.status, answer.body]));
}
