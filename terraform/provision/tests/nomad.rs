//! What Nomad may answer, and what is said of it: a Nomad that is only its answers.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use mesh_nomad::Access;
use mesh_provision::{
    Agents, AgentsTls, Binary, Cluster, Control, Machine, MeshAccess, ProvisionError, Sealing,
    Secret, Servers, ServersTls, Timeouts, apply_agents, apply_servers, destroy_servers,
    read_servers,
};
use serde_json::{Value, json};

const SEALING: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

type Answers = Arc<Mutex<BTreeMap<&'static str, (u16, Value)>>>;

/// Answers by method and path; what is not here is 404. Keeps what it was asked.
struct Fake {
    cluster: Cluster,
    answers: Answers,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    async fn new() -> Self {
        let answers: Answers = Arc::default();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let node = json!([{
            "ID": "n1", "Name": "one", "Datacenter": "dc1", "NodePool": "default", "Status": "ready",
            "SchedulingEligibility": "eligible", "Drivers": {"raw_exec": {"Detected": true, "Healthy": true}},
        }]);
        {
            let mut all = answers.lock().unwrap();
            all.insert("GET /v1/nodes", (200, node));
            all.insert("GET /v1/jobs", (200, json!([])));
            all.insert(
                "PUT /v1/var/nomad/jobs/s-0",
                (200, json!({"ModifyIndex": 7, "Items": {}})),
            );
            all.insert(
                "POST /v1/job/s-0/plan",
                (200, json!({"Diff": {"Type": "Added"}})),
            );
        }
        let state = (answers.clone(), asked.clone());
        let answer = |State((answers, asked)): State<(Answers, Arc<Mutex<Vec<String>>>)>,
                      request: Request| async move {
            let key = format!("{} {}", request.method(), request.uri().path());
            let body = axum::body::to_bytes(request.into_body(), 1 << 20)
                .await
                .unwrap();
            let found = answers.lock().unwrap().get(key.as_str()).cloned();
            asked
                .lock()
                .unwrap()
                .push(format!("{key} {}", String::from_utf8_lossy(&body)));
            let (status, said) = found.unwrap_or((404, json!("not found")));
            (StatusCode::from_u16(status).unwrap(), said.to_string())
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let access = Access {
            address: format!("http://{}", listener.local_addr().unwrap()),
            ..Access::default()
        };
        let router = Router::new().fallback(answer).with_state(state);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            cluster: Cluster::new(&access, "", None).unwrap(),
            answers,
            asked,
        }
    }

    fn answer(&self, question: &'static str, status: u16, said: Value) {
        self.answers
            .lock()
            .unwrap()
            .insert(question, (status, said));
    }

    fn asked(&self, what: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|one| one.starts_with(what)).count()
    }

    /// Applies, for a moment at most; what came of it, and what was said meanwhile.
    async fn apply(&self, servers: &Servers) -> (ProvisionError, String) {
        let access = MeshAccess::issued(&servers.tls).unwrap().unwrap();
        self.apply_with(servers, &access).await
    }

    async fn apply_with(&self, servers: &Servers, access: &MeshAccess) -> (ProvisionError, String) {
        let said = Mutex::new(String::new());
        let say = |text: &str| said.lock().unwrap().push_str(&format!("{text}\n"));
        let timeouts = Timeouts::default();
        let step = Duration::from_millis(300);
        let control = Control::new(&say, Default::default(), Duration::from_secs(5), step);
        let done = apply_servers(&self.cluster, access, servers, timeouts, &control).await;
        (done.unwrap_err(), said.into_inner().unwrap())
    }
}

fn servers() -> Servers {
    let now = std::time::SystemTime::now();
    let ca = mesh_ca::cluster::create_ca("test", mesh_ca::cluster::CA_TTL, now).unwrap();
    Servers {
        name: "s".to_owned(),
        count: 3,
        datacenters: vec!["*".to_owned()],
        node_pool: "default".to_owned(),
        binary: Binary::Path("/usr/local/bin/meshctl".to_owned()),
        version: String::new(),
        user: "meshctl".to_owned(),
        machine: Machine {
            volume: None,
            data_dir: "/var/lib/meshctl".to_owned(),
            distinct: true,
        },
        http_port: 8700,
        grpc_port: 8701,
        tls: ServersTls::Issued {
            ca: ca.certificate.clone(),
            key: Some(Secret::new(ca.key.as_str())),
        },
        sealing: Sealing::Key(Some(Secret::new(SEALING))),
        config: String::new(),
        tokens: BTreeMap::new(),
        cpu: 100,
        memory: 100,
    }
}

#[tokio::test]
async fn who_may_not_is_told_what_is_missing() {
    let nomad = Fake::new().await;
    let denied = || json!("Permission denied");
    nomad.answer("PUT /v1/var/nomad/jobs/s-0", 403, denied());
    let (error, _) = nomad.apply(&servers()).await;
    let said = error.to_string();
    assert!(said.contains("it asks for a token"), "{said}");
    assert!(
        said.contains("`write` on the variable `nomad/jobs/s-0` in the namespace `default`"),
        "{said}"
    );
    assert_eq!(nomad.asked("PUT /v1/jobs"), 0);
    nomad.answer("GET /v1/jobs", 403, denied());
    let (error, _) = nomad.apply(&servers()).await;
    assert!(error.to_string().contains("`list-jobs`"), "{error}");
    nomad.answer("GET /v1/nodes", 403, denied());
    let (error, _) = nomad.apply(&servers()).await;
    assert!(error.to_string().contains("policy of `node`"), "{error}");
}

#[tokio::test]
async fn what_nomad_repeats_of_a_variable_is_not_said() {
    let nomad = Fake::new().await;
    nomad.answer(
        "PUT /v1/var/nomad/jobs/s-0",
        500,
        json!(format!("cannot store {SEALING}")),
    );
    let (error, said) = nomad.apply(&servers()).await;
    assert!(!format!("{error} {error:?} {said}").contains(SEALING));
    // And it did go to Nomad, as a variable and as nothing else.
    let asked = nomad.asked.lock().unwrap();
    let with: Vec<&String> = asked.iter().filter(|one| one.contains(SEALING)).collect();
    assert!(!with.is_empty() && with.iter().all(|one| one.starts_with("PUT /v1/var/")));
}

#[tokio::test]
async fn a_description_without_a_place_changes_nothing() {
    let nomad = Fake::new().await;
    let failed = json!({"server": {"NodesEvaluated": 1, "DimensionExhausted": {"memory": 1}}});
    nomad.answer(
        "POST /v1/job/s-0/plan",
        200,
        json!({"Diff": {"Type": "Added"}, "FailedTGAllocs": failed}),
    );
    let (error, _) = nomad.apply(&servers()).await;
    let said = error.to_string();
    assert!(
        said.contains("nothing was changed: of 1 nodes that were looked at: too little memory"),
        "{said}"
    );
    assert_eq!(nomad.asked("PUT /v1/jobs"), 0);
}

#[tokio::test]
async fn no_machine_is_said_with_the_reasons() {
    let nomad = Fake::new().await;
    let mut servers = servers();
    servers.machine.volume = Some("mesh".to_owned());
    let (error, _) = nomad.apply(&servers).await;
    assert_eq!(
        error.to_string(),
        "there is no machine for s-0 (volume mesh). Of Nomad's 1 nodes: 1 has no such host volume"
    );
}

#[tokio::test]
async fn who_writes_at_the_same_time_is_given_way_and_then_named() {
    let nomad = Fake::new().await;
    let said = "Enforcing job modify index 0: job exists with conflicting job modify index: 9";
    nomad.answer("PUT /v1/jobs", 500, json!(said));
    let (error, _) = nomad.apply(&servers()).await;
    assert_eq!(
        error.to_string(),
        "job s-0 was changed by somebody else at the same time; run it again"
    );
    assert!(
        nomad.asked("PUT /v1/jobs") > 3,
        "it looks again, and tries again"
    );
}

#[tokio::test]
async fn jobs_of_others_are_left_alone() {
    let nomad = Fake::new().await;
    nomad.answer(
        "GET /v1/jobs",
        200,
        json!([{"ID": "s-0"}, {"ID": "s-other"}, {"ID": "s-01"}]),
    );
    nomad.answer("GET /v1/job/s-0", 200, json!({"ID": "s-0", "Meta": null}));
    let (error, _) = nomad.apply(&servers()).await;
    assert!(
        error
            .to_string()
            .starts_with("job s-0 is there, and was not made here"),
        "{error}"
    );
    let read = read_servers(&nomad.cluster, None, &servers()).await;
    assert!(matches!(read, Err(ProvisionError::Foreign(_))));
    let nothing = |_: &str| {};
    let control = Control::new(
        &nothing,
        Default::default(),
        Duration::from_secs(9),
        Duration::from_secs(1),
    );
    let ended = destroy_servers(&nomad.cluster, &servers(), true, &control).await;
    assert!(matches!(ended, Err(ProvisionError::Foreign(_))));
    assert_eq!(nomad.asked("DELETE"), 0);
}

#[tokio::test]
async fn nothing_is_destroyed_that_is_not_forced() {
    let nomad = Fake::new().await;
    let nothing = |_: &str| {};
    let control = Control::new(
        &nothing,
        Default::default(),
        Duration::from_secs(9),
        Duration::from_secs(1),
    );
    let ended = destroy_servers(&nomad.cluster, &servers(), false, &control).await;
    assert!(
        ended
            .unwrap_err()
            .to_string()
            .contains("force_destroy = true")
    );
    assert_eq!(nomad.asked(""), 0);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_shown_with_its_log_and_no_secret() {
    let nomad = Fake::new().await;
    nomad.answer("GET /v1/jobs", 200, json!([{"ID": "s-0"}]));
    let meta = json!({"mesh_set": "s", "mesh_node": "n1", "mesh_incarnation": "ab", "mesh_begins": "true", "mesh_secrets": "7"});
    nomad.answer(
        "GET /v1/job/s-0",
        200,
        json!({"ID": "s-0", "Meta": meta, "Version": 0, "JobModifyIndex": 5}),
    );
    let states = json!({"server": {"State": "pending", "Failed": false, "Restarts": 4, "Events": [{"DisplayMessage": "Exit Code: 1"}]}});
    let allocation = json!({"ID": "a1", "NodeID": "n1", "NodeName": "one", "DesiredStatus": "run", "ClientStatus": "running",
        "JobVersion": 0, "TaskStates": states});
    nomad.answer(
        "GET /v1/job/s-0/allocations",
        200,
        json!([allocation.clone()]),
    );
    nomad.answer("GET /v1/allocation/a1", 200, allocation);
    nomad.answer(
        "GET /v1/client/fs/logs/a1",
        200,
        json!(format!("cannot bind; key {SEALING}")),
    );
    nomad.answer(
        "POST /v1/job/s-0/plan",
        200,
        json!({"Diff": {"Type": "None"}}),
    );
    // What it should have stands there already.
    let mut servers = servers();
    let access = MeshAccess::issued(&servers.tls).unwrap().unwrap();
    servers.tls = ServersTls::Files {
        ca: "/a/ca.pem".to_owned(),
        certificate: "/a/cert.pem".to_owned(),
        key: "/a/key.pem".to_owned(),
    };
    let items = json!({"ModifyIndex": 7, "Items": {"sealing": SEALING}});
    nomad.answer("GET /v1/var/nomad/jobs/s-0", 200, items);
    let (error, said) = nomad.apply_with(&servers, &access).await;
    let text = error.to_string();
    assert!(
        text.contains("Exit Code: 1")
            && text.contains("4 restarts")
            && text.contains("cannot bind; key (secret)"),
        "{text}"
    );
    assert!(
        text.contains("nomad alloc logs -stderr a1 server"),
        "{text}"
    );
    assert!(!format!("{text}{said}").contains(SEALING));
}

/// It replaces nothing of a system job that was stopped until then, and a node that came late would have
/// no agent for ever.
#[tokio::test]
async fn nomad_is_asked_to_look_again_where_it_runs_no_agent() {
    let nomad = Fake::new().await;
    let meta = json!({"mesh_set": "a", "mesh_secrets": "0"});
    let job = json!({"ID": "a", "Meta": meta, "Version": 0, "JobModifyIndex": 5});
    nomad.answer("GET /v1/job/a", 200, job);
    nomad.answer("GET /v1/job/a/allocations", 200, json!([]));
    let same = json!({"Diff": {"Type": "None"}});
    nomad.answer("POST /v1/job/a/plan", 200, same);
    nomad.answer("PUT /v1/job/a/evaluate", 403, json!("Permission denied"));
    let agents = Agents {
        name: "a".to_owned(),
        servers: "s".to_owned(),
        datacenters: vec!["*".to_owned()],
        node_pool: "default".to_owned(),
        binary: Binary::Path("/usr/local/bin/meshctl".to_owned()),
        version: String::new(),
        user: "meshctl-agent".to_owned(),
        data_dir: "/var/lib/meshctl-agent".to_owned(),
        socket: "/run/meshctl/agent.sock".to_owned(),
        shim_dir: "/usr/lib/meshctl/nomad".to_owned(),
        cni_dir: "/opt/cni/bin".to_owned(),
        tls: AgentsTls::Files {
            ca: "/a/ca.pem".to_owned(),
            certificate: "/a/cert.pem".to_owned(),
            key: "/a/key.pem".to_owned(),
        },
        config: String::new(),
        cpu: 100,
        memory: 100,
    };
    let nothing = |_: &str| {};
    let (total, step) = (Duration::from_secs(60), Duration::from_secs(30));
    let control = Control::new(&nothing, Default::default(), total, step);
    let done = apply_agents(&nomad.cluster, &agents, &control).await;
    let said = done.unwrap_err().to_string();
    assert!(
        said.contains("asked to look at job a again") && said.contains("`submit-job`"),
        "{said}"
    );
}

#[tokio::test]
async fn where_nomad_is_not_is_said() {
    let access = Access {
        address: "http://127.0.0.1:1".to_owned(),
        ..Access::default()
    };
    let cluster = Cluster::new(&access, "", None).unwrap();
    let error = read_servers(&cluster, None, &servers()).await.unwrap_err();
    let said = error.to_string();
    assert!(
        said.starts_with("http://127.0.0.1:1/v1/nodes")
            && said.ends_with("Is the address right, and Nomad there?"),
        "{said}"
    );
}

#[tokio::test]
async fn steps_that_somebody_undoes_each_time_come_to_an_end() {
    let nomad = Fake::new().await;
    // Whatever is registered, there is no job.
    nomad.answer("PUT /v1/jobs", 200, json!({}));
    let live =
        json!([{"ID": "a1", "NodeID": "n1", "DesiredStatus": "run", "ClientStatus": "running"}]);
    nomad.answer("GET /v1/job/s-0/allocations", 200, live);
    let (error, _) = nomad.apply(&servers()).await;
    let said = error.to_string();
    assert!(
        said.contains("s to be as it is wanted. The next step would be Begin"),
        "{said}"
    );
}
