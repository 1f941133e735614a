//! Small states and commands for tests.

use mesh_model::{
    Action, Check, Entry, EntryKey, Instance, Intention, IntentionRule, Key, Mesh, Node, NodeState,
    Protocol, ProxyEndpoint, Route, Rule, Service, Status, Subset, Weights,
};
use mesh_state::{Applied, Command, Envelope, LEVEL, Op, Outcome, Refusal, State, Touched};

pub(crate) fn bootstrap() -> Command {
    Command::Bootstrap {
        cluster_id: "cluster-1".into(),
        trust_domain: "cluster-1.mesh".into(),
        datacenter: "dc1".into(),
        epoch: "epoch-1".into(),
        default_intention: Action::Deny,
    }
}

/// A bootstrapped state.
pub(crate) fn cluster() -> State {
    let mut state = State::new();
    run(&mut state, bootstrap()).unwrap();
    state
}

/// In a command of an agent: the stream of its node that began last.
pub(crate) const LAST: u64 = 0;

/// Names the stream that [`LAST`] is in this state.
pub(crate) fn by_last_stream(state: &State, command: Command) -> Command {
    let last = |node: &str| state.node(node).map_or(LAST, |row| row.value.stream);
    by_stream(command, |node, stream| match stream {
        LAST => last(node),
        other => other,
    })
}

/// The command with another stream: a function of its node and its stream.
pub(crate) fn by_stream(mut command: Command, change: impl Fn(&str, u64) -> u64) -> Command {
    match &mut command {
        Command::SyncInstances { node, stream, .. }
        | Command::PutInstance { node, stream, .. }
        | Command::RemoveInstance { node, stream, .. }
        | Command::SetChecks { node, stream, .. } => *stream = change(node, *stream),
        _ => {}
    }
    command
}

pub(crate) fn run(state: &mut State, command: Command) -> Result<Applied, Refusal> {
    run_at(state, 1_000, command).0
}

pub(crate) fn run_at(
    state: &mut State,
    time: u64,
    command: Command,
) -> (Result<Applied, Refusal>, Touched) {
    let command = by_last_stream(state, command);
    // Through its bytes, as the log has it.
    let bytes = Envelope::new(time, command).encode().unwrap();
    let commit = state.apply(&[Envelope::decode(&bytes, LEVEL).unwrap()]);
    let [outcome] = commit.outcomes.as_slice() else {
        panic!("one outcome for one command");
    };
    let outcome = Outcome::decode(&outcome.encode().unwrap()).unwrap();
    (outcome.into_result(), commit.touched)
}

/// Runs a command that must be refused, and sees that it left no trace.
pub(crate) fn refused(state: &mut State, command: Command) -> Refusal {
    let before = state.clone();
    let bytes = state.to_snapshot().unwrap();
    let (result, touched) = run_at(state, 1 << 50, command);
    assert!(*state == before, "a refused command changed the state");
    assert_eq!(state.to_snapshot().unwrap(), bytes);
    assert!(touched.is_empty());
    result.unwrap_err()
}

pub(crate) fn write(owner: &str, ops: Vec<Op>) -> Command {
    Command::Transaction {
        ops,
        owner: owner.into(),
        force: false,
    }
}

pub(crate) fn force(owner: &str, ops: Vec<Op>) -> Command {
    Command::Transaction {
        ops,
        owner: owner.into(),
        force: true,
    }
}

pub(crate) fn put(entry: Entry) -> Op {
    Op::Put { entry, cas: None }
}

pub(crate) fn put_cas(entry: Entry, cas: u64) -> Op {
    Op::Put {
        entry,
        cas: Some(cas),
    }
}

pub(crate) fn delete(key: EntryKey) -> Op {
    Op::Delete { key, cas: None }
}

pub(crate) fn key(text: &str) -> Key {
    text.parse().unwrap()
}

/// An HTTP service with subsets v1 and v2; `label` makes it another one.
pub(crate) fn service(name: &str, label: &str) -> Entry {
    let mut service = Service::named(&key(name));
    service.protocol = Protocol::Http;
    for version in ["v1", "v2"] {
        let subset = Subset {
            meta: [("version".to_owned(), version.to_owned())].into(),
            ..Subset::default()
        };
        service.subsets.insert(version.to_owned(), subset);
    }
    service.meta.insert("label".into(), label.into());
    Entry::Service(service)
}

/// A route of a service to one of its subsets.
pub(crate) fn route(name: &str, subset: &str) -> Entry {
    let key = key(name);
    Entry::Route(Route {
        namespace: key.namespace,
        name: key.name,
        rules: vec![Rule {
            name: "all".into(),
            to: vec![mesh_model::Destination {
                service: None,
                subset: Some(subset.into()),
                weight: mesh_model::Weight::FULL,
            }],
            ..Rule::default()
        }],
    })
}

pub(crate) fn intention(source: &str, destination: &str, action: Action) -> Entry {
    Entry::Intention(Intention {
        source: key(source),
        destination: key(destination),
        rule: IntentionRule::Action(action),
        description: String::new(),
        meta: Default::default(),
    })
}

pub(crate) fn mesh(default_intention: Option<Action>) -> Entry {
    Entry::Mesh(Mesh {
        default_intention,
        ..Mesh::default()
    })
}

pub(crate) fn node(id: &str, address: &str) -> Node {
    Node {
        id: id.into(),
        name: format!("host-{id}"),
        address: address.into(),
        version: String::new(),
        meta: Default::default(),
        state: NodeState::Alive,
        stream: 0,
    }
}

pub(crate) fn instance(node: &str, id: &str, service: &str, proxied: bool) -> Instance {
    let key = key(service);
    Instance {
        namespace: key.namespace,
        service: key.name,
        id: id.into(),
        node: node.into(),
        address: "10.0.0.1".into(),
        port: 8080,
        tags: Vec::new(),
        meta: Default::default(),
        weights: Weights::default(),
        proxy: proxied.then(|| ProxyEndpoint {
            id: format!("{id}-sidecar-proxy"),
            address: "10.0.0.1".into(),
            port: 21000,
            native: false,
        }),
        gateway: None,
        checks: [("alive".to_owned(), check(Status::Passing))].into(),
    }
}

pub(crate) fn check(status: Status) -> Check {
    Check {
        name: "alive".into(),
        status,
    }
}

/// The lines of a snapshot, with the trailer that is right for them.
pub(crate) fn sealed(lines: &[&str]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let mut out = lines.join("\n") + "\n";
    let sha256 = format!("{:x}", Sha256::digest(&out));
    let end = format!(
        r#"{{"end":{{"lines":{},"sha256":"{sha256}"}}}}"#,
        lines.len()
    );
    out += &end;
    out += "\n";
    out.into_bytes()
}
