//! An agent to test, and what stands around it.

mod ca;
mod http;
mod nomad;
mod proxy;
mod server;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use mesh_agent::{Agent, AgentOptions, BootstrapRequest, Clock};
use mesh_model::config::AgentConfig;
use mesh_proto::bootstrap::Bootstrap;
use serde_json::{Value, json};

pub use ca::{Ca, spiffe};
pub use http::{Answer, request, request_unix};
pub use nomad::Nomad;
pub use proxy::Proxy;
pub use server::{Fake, State};

/// The longest that anything awaited here takes on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A clock that a test sets.
#[derive(Debug)]
pub struct TestClock(Mutex<SystemTime>);

impl TestClock {
    pub fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

/// The cluster's CA and the mesh's, a folder, a clock: what several agents and servers share.
pub struct World {
    pub cluster: Arc<Ca>,
    pub mesh: Arc<Ca>,
    pub clock: Arc<TestClock>,
    pub folder: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        Self {
            cluster: Arc::new(Ca::new("cluster")),
            mesh: Arc::new(Ca::new("mesh")),
            clock: Arc::new(TestClock(Mutex::new(SystemTime::now()))),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A server that knows the mesh, and what the services web and api need.
    pub async fn server(&self) -> Fake {
        Fake::start(&self.cluster, self.mesh.clone(), "cluster-1").await
    }

    /// Options of the agent of node `n1`, with this world's folder and clock.
    pub fn options(&self, servers: &[&Fake]) -> AgentOptions {
        let config = AgentConfig {
            servers: match servers {
                [] => vec!["127.0.0.1:1".to_owned()],
                _ => servers.iter().map(|it| it.address.to_string()).collect(),
            },
            node_name: Some("node-1".into()),
            data_dir: self.folder.path().join("data"),
            socket: self.folder.path().join("run/agent.sock"),
            http_addr: "127.0.0.1:0".parse().unwrap(),
            grpc_addr: "127.0.0.1:0".parse().unwrap(),
            ..AgentConfig::default()
        };
        let tls = Arc::new(self.cluster.cluster_tls("agent", "n1"));
        let mut options = AgentOptions::new(&config, tls).unwrap();
        options.clock = self.clock.clone();
        options.takes_own_writes = true;
        options
    }

    pub async fn agent(&self, servers: &[&Fake]) -> Agent {
        Agent::start(self.options(servers)).await.unwrap()
    }

    pub fn data(&self) -> &Path {
        self.folder.path()
    }
}

/// The service web with a sidecar that calls api.
pub fn web(id: &str) -> Value {
    json!({"ID": id, "Name": "web", "Port": 8080, "Check": {"TTL": "1h", "Status": "passing"},
           "Connect": {"SidecarService": {"Proxy": {"Upstreams": [
               {"DestinationName": "api", "LocalBindPort": 9001}]}}}})
}

/// Registers through Nomad's door, as root or as the agent's user: as whoever runs the test.
pub async fn register(agent: &Agent, body: &Value) {
    let url = "/v1/agent/service/register";
    let answer = request(agent.addresses().http, "PUT", url, &[], body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

pub async fn bootstrap(agent: &Agent, proxy: &str) -> Bootstrap {
    let request = BootstrapRequest {
        proxy_id: Some(proxy.into()),
        ..BootstrapRequest::default()
    };
    agent.bootstrap(&request, Duration::ZERO).await.unwrap()
}

/// Waits for what must come.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not come"),
    }
}
