//! Random commands against a naive model, and against a second replica.

use std::collections::{BTreeMap, BTreeSet};

use mesh_model::{Action, Entry, EntryKey, Instance, Key, Node, NodeState, Status};
use mesh_state::{
    CheckChange, Command, ConfigKey, Envelope, InstanceKey, Op, Outcome, Pair, Prefix, Refusal,
    Revoked, RowKey, State, Store, TableName, Topic, Touched, Virtual, WatchKey,
};
use proptest::prelude::*;
use serde_json::Value;

use crate::make::*;

/// What is asked, with a check-and-set that is resolved when it is its turn.
#[derive(Clone, Debug)]
enum Ask {
    Write(Vec<(Target, Cas)>, &'static str, bool),
    Register(&'static str, &'static str),
    Silence(&'static str),
    Sync(&'static str, Vec<(&'static str, &'static str)>),
    Put(&'static str, &'static str, &'static str),
    Remove(&'static str, &'static str),
    Check(&'static str, &'static str, Status),
    RemoveNode(&'static str),
    Reap,
    Ca(u8, Cas),
    Revoke(&'static str, &'static str),
    Unrevoke(&'static str),
    /// By a stream that is so far from the node's last one: an older one, or one
    /// that a restore does not know any more.
    Late(Box<Ask>, i64),
}

#[derive(Clone, Debug)]
enum Target {
    Put(Entry),
    Delete(EntryKey),
}

#[derive(Clone, Copy, Debug)]
enum Cas {
    Any,
    Absent,
    Present,
    Wrong,
}

const SERVICES: [&str; 3] = ["a", "b", "team/a"];
/// Theirs, for ever: they follow from the names.
const ADDRESSES: [&str; 3] = ["249.239.179.98", "253.45.157.58", "246.95.131.139"];
const PATTERNS: [&str; 4] = ["a", "b", "*", "*/*"];
const NODES: [&str; 3] = ["n1", "n2", "n3"];
const IDS: [&str; 3] = ["i1", "i2", "i3"];

fn one_of(choices: &'static [&'static str]) -> impl Strategy<Value = &'static str> + Clone {
    prop::sample::select(choices)
}

fn entries() -> impl Strategy<Value = Entry> {
    let action = prop_oneof![Just(Action::Allow), Just(Action::Deny)];
    prop_oneof![
        (one_of(&SERVICES), one_of(&["x", "y"])).prop_map(|(name, label)| service(name, label)),
        (one_of(&SERVICES), one_of(&["v1", "v2"])).prop_map(|(name, to)| route(name, to)),
        (one_of(&PATTERNS), one_of(&PATTERNS), action.clone())
            .prop_map(|(source, destination, action)| intention(source, destination, action)),
        prop::option::of(action).prop_map(mesh),
    ]
}

fn asks() -> impl Strategy<Value = Ask> {
    (timely(), prop_oneof![5 => Just(0), 1 => -3..3_i64]).prop_map(|(ask, off)| match off {
        0 => ask,
        off => Ask::Late(Box::new(ask), off),
    })
}

fn timely() -> impl Strategy<Value = Ask> {
    let cas = prop_oneof![
        3 => Just(Cas::Any),
        1 => Just(Cas::Absent),
        2 => Just(Cas::Present),
        1 => Just(Cas::Wrong)
    ];
    let target = prop_oneof![
        2 => entries().prop_map(Target::Put),
        1 => entries().prop_map(|entry| Target::Delete(entry.key())),
    ];
    let ops = prop::collection::vec((target, cas.clone()), 1..3);
    let (node, id, service) = (one_of(&NODES), one_of(&IDS), one_of(&SERVICES));
    let named = service.clone();
    let reason = one_of(&["", "stolen"]);
    let status = prop_oneof![Just(Status::Passing), Just(Status::Critical)];
    let set = prop::collection::btree_map(id.clone(), service.clone(), 0..3);
    prop_oneof![
        6 => (ops, one_of(&["cli", "apply"]), prop::bool::weighted(0.2))
            .prop_map(|(ops, owner, force)| Ask::Write(ops, owner, force)),
        2 => (node.clone(), one_of(&["1.1.1.1", "2.2.2.2"]))
            .prop_map(|(node, address)| Ask::Register(node, address)),
        1 => node.clone().prop_map(Ask::Silence),
        2 => (node.clone(), set).prop_map(|(node, set)| Ask::Sync(node, set.into_iter().collect())),
        2 => (node.clone(), id.clone(), service).prop_map(|(n, i, s)| Ask::Put(n, i, s)),
        1 => (node.clone(), id.clone()).prop_map(|(node, id)| Ask::Remove(node, id)),
        1 => (node.clone(), id, status).prop_map(|(node, id, status)| Ask::Check(node, id, status)),
        1 => node.prop_map(Ask::RemoveNode),
        1 => Just(Ask::Reap),
        1 => (any::<u8>(), cas).prop_map(|(value, cas)| Ask::Ca(value, cas)),
        1 => (named.clone(), reason).prop_map(|(service, why)| Ask::Revoke(service, why)),
        1 => named.prop_map(Ask::Unrevoke),
    ]
}

/// The naive model: one map, and no thought for speed.
#[derive(Clone, Debug, Default, PartialEq)]
struct Naive {
    rows: BTreeMap<RowKey, Held>,
    index: u64,
    now: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Held {
    value: Value,
    owner: String,
    create: u64,
    modify: u64,
    /// When, as `create` and `modify`.
    times: (u64, u64),
}

fn json(value: impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

fn entry_json(entry: &Entry) -> Value {
    json(entry).get("value").cloned().unwrap()
}

impl Naive {
    fn command(&self, ask: &Ask) -> Command {
        let last = |node: &str| self.node(node).map_or(9, |node| node.stream);
        match ask {
            Ask::Late(ask, off) => by_stream(self.ask(ask), |node, _| {
                last(node).saturating_add_signed(*off).max(1)
            }),
            ask => by_stream(self.ask(ask), |node, _| last(node)),
        }
    }

    fn ask(&self, ask: &Ask) -> Command {
        let cas = |key: &RowKey, cas: Cas| {
            let modify = self.rows.get(key).map_or(0, |row| row.modify);
            match cas {
                Cas::Any => None,
                Cas::Absent => Some(0),
                Cas::Present => Some(modify),
                Cas::Wrong => Some(modify + 1),
            }
        };
        match ask.clone() {
            Ask::Write(ops, owner, force) => Command::Transaction {
                ops: ops
                    .into_iter()
                    .map(|(target, kind)| match target {
                        Target::Put(entry) => Op::Put {
                            cas: cas(&entry.key().into(), kind),
                            entry,
                        },
                        Target::Delete(key) => Op::Delete {
                            cas: cas(&key.clone().into(), kind),
                            key,
                        },
                    })
                    .collect(),
                owner: owner.into(),
                force,
            },
            Ask::Register(id, address) => Command::RegisterNode {
                node: node(id, address),
            },
            Ask::Silence(node) => Command::SetNodeState {
                node: node.into(),
                state: NodeState::Silent {
                    since: self.now / 1000,
                },
            },
            Ask::Sync(node, set) => Command::SyncInstances {
                node: node.into(),
                stream: LAST,
                instances: set
                    .into_iter()
                    .map(|(id, service)| instance(node, id, service, true))
                    .collect(),
            },
            Ask::Put(node, id, service) => Command::PutInstance {
                node: node.into(),
                stream: LAST,
                instance: instance(node, id, service, id != "i1"),
            },
            Ask::Remove(node, id) => Command::RemoveInstance {
                node: node.into(),
                stream: LAST,
                id: id.into(),
            },
            Ask::Check(node, id, status) => Command::SetChecks {
                node: node.into(),
                stream: LAST,
                changes: vec![CheckChange {
                    instance: id.into(),
                    id: "alive".into(),
                    check: Some(check(status)),
                }],
            },
            Ask::RemoveNode(node) => Command::RemoveNode { node: node.into() },
            Ask::Reap => Command::ReapNodes { ttl: 5_000 },
            Ask::Ca(value, kind) => Command::PutCa {
                value: value.into(),
                cas: cas(&RowKey::Ca, kind),
            },
            Ask::Revoke(service, reason) => Command::Revoke {
                what: Revoked::Service(key(service)),
                reason: reason.into(),
                until: None,
            },
            Ask::Unrevoke(service) => Command::Unrevoke {
                service: key(service),
            },
            Ask::Late(ask, _) => self.ask(&ask),
        }
    }

    /// Applies it as the documents say; what it touched, or `None` when it is
    /// refused.
    fn apply(&mut self, time: u64, command: &Command) -> Option<BTreeSet<RowKey>> {
        let before = self.clone();
        self.now = self.now.max(time);
        if !self.change(command) {
            *self = before;
            return None;
        }
        self.count_endpoints(&before);
        self.give_addresses();
        let keys: BTreeSet<&RowKey> = before.rows.keys().chain(self.rows.keys()).collect();
        let touched: BTreeSet<RowKey> = keys
            .into_iter()
            .filter(|key| before.rows.get(key) != self.rows.get(key))
            .cloned()
            .collect();
        if !touched.is_empty() {
            self.index += 1;
        }
        Some(touched)
    }

    fn change(&mut self, command: &Command) -> bool {
        match command {
            Command::Transaction { ops, owner, force } => self.write(ops, owner, *force),
            Command::RegisterNode { node } => {
                let node = Node {
                    stream: self.index + 1,
                    ..node.clone()
                };
                self.put(RowKey::Node(node.id.clone()), json(node))
            }
            Command::SetNodeState { node, state } => {
                let Some(mut value) = self.node(node) else {
                    return false;
                };
                value.state = *state;
                self.put(RowKey::Node(node.clone()), json(value))
            }
            Command::SyncInstances {
                node,
                stream,
                instances,
            } => {
                if !self.speaks(node, *stream) {
                    return false;
                }
                let named: BTreeSet<_> = instances.iter().map(|i| &i.id).collect();
                self.rows.retain(|key, _| match key {
                    RowKey::Instance(key) => key.node != *node || named.contains(&key.id),
                    _ => true,
                });
                instances.iter().all(|i| self.put_instance(i))
            }
            Command::PutInstance {
                node,
                stream,
                instance,
            } => self.speaks(node, *stream) && self.put_instance(instance),
            Command::RemoveInstance { node, stream, id } => {
                let speaks = self.speaks(node, *stream);
                if speaks {
                    self.rows.remove(&instance_key(node, id));
                }
                speaks
            }
            Command::SetChecks {
                node,
                stream,
                changes,
            } => {
                if !self.speaks(node, *stream) {
                    return false;
                }
                for change in changes {
                    if let Some(mut instance) = self.instance(node, &change.instance) {
                        let check = change.check.clone().unwrap();
                        instance.checks.insert(change.id.clone(), check);
                        self.put_instance(&instance);
                    }
                }
                true
            }
            Command::RemoveNode { node } => {
                self.drop_node(node);
                true
            }
            Command::ReapNodes { ttl } => {
                for id in NODES {
                    if let Some(NodeState::Silent { since }) = self.node(id).map(|n| n.state)
                        && since * 1000 + ttl <= self.now
                    {
                        self.drop_node(id);
                    }
                }
                true
            }
            Command::PutCa { value, cas } => {
                self.holds(&RowKey::Ca, *cas) && self.put(RowKey::Ca, value.clone())
            }
            Command::Revoke { what, reason, .. } => {
                let mut value = serde_json::json!({"what": what});
                if !reason.is_empty() {
                    value["reason"] = reason.as_str().into();
                }
                self.put(RowKey::Revocation(what.clone()), value)
            }
            Command::Unrevoke { service } => {
                let what = Revoked::Service(service.clone());
                self.rows.remove(&RowKey::Revocation(what)).is_some()
            }
            other => panic!("{other:?} is not asked"),
        }
    }

    fn write(&mut self, ops: &[Op], owner: &str, force: bool) -> bool {
        let before = self.clone();
        let mut keys = BTreeSet::new();
        for op in ops {
            let (key, cas, value): (RowKey, _, _) = match op {
                Op::Put { entry, cas } => (entry.key().into(), cas, Some(entry_json(entry))),
                Op::Delete { key, cas } => (key.clone().into(), cas, None),
                other => panic!("{other:?} is not asked"),
            };
            let old = before.rows.get(&key);
            if !keys.insert(key.clone())
                || !before.holds(&key, *cas)
                || old.is_some_and(|row| row.owner != owner && !force)
                || (value.is_none() && old.is_none())
            {
                return false;
            }
            match value {
                Some(value) => self.put_as(key, value, owner),
                None => {
                    self.rows.remove(&key);
                }
            }
        }
        true
    }

    fn holds(&self, key: &RowKey, cas: Option<u64>) -> bool {
        cas.is_none_or(|cas| cas == self.rows.get(key).map_or(0, |row| row.modify))
    }

    fn put(&mut self, key: RowKey, value: Value) -> bool {
        let owner = match key {
            RowKey::Ca | RowKey::Revocation(_) => "server",
            _ => "agent",
        };
        self.put_as(key, value, owner);
        true
    }

    fn put_as(&mut self, key: RowKey, value: Value, owner: &str) {
        let modify = self.index + 1;
        let row = self.rows.entry(key).or_insert(Held {
            value: Value::Null,
            owner: owner.into(),
            create: modify,
            modify,
            times: (self.now, self.now),
        });
        if row.value != value || row.owner != owner {
            row.value = value;
            row.owner = owner.into();
            row.modify = modify;
            row.times.1 = self.now;
        }
    }

    fn put_instance(&mut self, instance: &Instance) -> bool {
        self.put(instance_key(&instance.node, &instance.id), json(instance))
    }

    fn drop_node(&mut self, node: &str) {
        self.rows.retain(|key, _| match key {
            RowKey::Instance(key) => key.node != node,
            RowKey::Node(id) => id != node,
            _ => true,
        });
    }

    fn node(&self, id: &str) -> Option<Node> {
        let row = self.rows.get(&RowKey::Node(id.into()))?;
        Some(serde_json::from_value(row.value.clone()).unwrap())
    }

    fn speaks(&self, node: &str, stream: u64) -> bool {
        self.node(node).is_some_and(|node| node.stream == stream)
    }

    fn instance(&self, node: &str, id: &str) -> Option<Instance> {
        let row = self.rows.get(&instance_key(node, id))?;
        Some(serde_json::from_value(row.value.clone()).unwrap())
    }

    /// What can be seen of a service's endpoints.
    fn endpoints(&self, service: &Key) -> Vec<(Held, Node)> {
        self.rows
            .iter()
            .filter_map(|(key, row)| match key {
                RowKey::Instance(key) => {
                    let instance = self.instance(&key.node, &key.id)?;
                    let node = Node {
                        stream: 0,
                        ..self.node(&key.node)?
                    };
                    (instance.key() == *service).then(|| (row.clone(), node))
                }
                _ => None,
            })
            .collect()
    }

    fn count_endpoints(&mut self, before: &Self) {
        for service in SERVICES.map(key) {
            let now = self.endpoints(&service);
            let row = RowKey::Endpoints(service.clone());
            if now.is_empty() {
                self.rows.remove(&row);
            } else if now != before.endpoints(&service) {
                let modify = self.index + 1;
                let (create, made) = before
                    .rows
                    .get(&row)
                    .map_or((modify, self.now), |row| (row.create, row.times.0));
                let held = Held {
                    value: serde_json::json!({"service": service, "instances": now.len()}),
                    owner: "agent".into(),
                    create,
                    modify,
                    times: (made, self.now),
                };
                self.rows.insert(row, held);
            }
        }
    }

    fn give_addresses(&mut self) {
        for service in SERVICES {
            let value = virtual_of(service);
            let row = RowKey::Virtual(value.clone());
            let there = [
                RowKey::Service(key(service)),
                RowKey::Endpoints(key(service)),
            ];
            match there.iter().any(|row| self.rows.contains_key(row)) {
                true => self.put_as(row, json(value), "server"),
                false => drop(self.rows.remove(&row)),
            }
        }
    }
}

fn virtual_of(service: &str) -> Virtual {
    let at = SERVICES.iter().position(|name| *name == service).unwrap();
    Virtual {
        address: ADDRESSES[at].parse().unwrap(),
        service: key(service),
    }
}

fn instance_key(node: &str, id: &str) -> RowKey {
    RowKey::Instance(InstanceKey {
        node: node.into(),
        id: id.into(),
    })
}

/// The rows of a state, by what its accessors give.
fn rows(state: &State) -> BTreeMap<RowKey, Held> {
    let mut rows = BTreeMap::new();
    macro_rules! add {
        ($iter:expr, $row:ident => $key:expr) => {
            for $row in $iter {
                let held = Held {
                    value: json(&$row.value),
                    owner: $row.owner.clone(),
                    create: $row.create_index,
                    modify: $row.modify_index,
                    times: ($row.created_at, $row.modified_at),
                };
                assert!(rows.insert($key, held).is_none());
            }
        };
    }
    add!(state.mesh().into_iter(), _row => RowKey::Mesh);
    add!(state.ca().into_iter(), _row => RowKey::Ca);
    add!(state.revocations(), row => RowKey::Revocation(row.value.what.clone()));
    add!(state.services(), row => RowKey::Service(row.value.key()));
    add!(state.routes(), row => RowKey::Route(row.value.key()));
    add!(state.intentions(), row => RowKey::Intention(Pair {
        destination: row.value.destination.clone(),
        source: row.value.source.clone(),
    }));
    add!(state.gateways(), row => RowKey::Gateway(row.value.key()));
    add!(state.nodes(), row => RowKey::Node(row.value.id.clone()));
    add!(state.instances(), row => instance_key(&row.value.node, &row.value.id));
    add!(state.registered(), row => RowKey::Endpoints(row.value.service.clone()));
    add!(state.virtuals(), row => RowKey::Virtual(row.value.clone()));
    rows
}

/// Everything that could be watched in this small world.
fn watch_keys() -> Vec<WatchKey> {
    let mut keys: Vec<WatchKey> = TableName::ALL.into_iter().map(WatchKey::Table).collect();
    keys.extend(
        [
            Topic::Mesh,
            Topic::Roots,
            Topic::Services,
            Topic::Revocations,
        ]
        .map(WatchKey::Topic),
    );
    keys.extend([RowKey::Mesh, RowKey::Ca].map(WatchKey::Key));
    for service in SERVICES.map(key) {
        let topics = [
            Topic::Service(service.clone()),
            Topic::Route(service.clone()),
            Topic::Endpoints(service.clone()),
            Topic::Intentions(service.clone()),
            Topic::Virtual(service.clone()),
            Topic::Gateway(service.clone()),
            Topic::Outside(service.clone()),
        ];
        keys.extend(topics.map(WatchKey::Topic));
        keys.push(WatchKey::Key(RowKey::Service(service.clone())));
        let revoked = Revoked::Service(service.clone());
        keys.push(WatchKey::Key(RowKey::Revocation(revoked)));
        keys.push(WatchKey::Prefix(Prefix::IntentionsTo(service)));
    }
    for service in SERVICES {
        let row = virtual_of(service);
        keys.push(WatchKey::Topic(Topic::Address(row.address)));
        keys.push(WatchKey::Key(RowKey::Virtual(row)));
    }
    keys.push(WatchKey::Topic(Topic::Address(
        "240.0.0.1".parse().unwrap(),
    )));
    for namespace in ["default", "team", "*"] {
        let prefixes = [Prefix::Services, Prefix::Routes, Prefix::IntentionsIn];
        keys.extend(prefixes.map(|of| WatchKey::Prefix(of(namespace.into()))));
    }
    for node in NODES {
        keys.push(WatchKey::Prefix(Prefix::InstancesOn(node.into())));
        keys.push(WatchKey::Key(RowKey::Node(node.into())));
        keys.extend(IDS.map(|id| WatchKey::Key(instance_key(node, id))));
    }
    let config = ConfigKey {
        kind: "k".into(),
        key: key("a"),
    };
    keys.push(WatchKey::Key(RowKey::Config(config)));
    keys
}

/// One step, seen from every side.
fn step(naive: &mut Naive, state: &mut State, store: &Store, time: u64, ask: &Ask) {
    let command = naive.command(ask);
    let before = state.clone();
    let (result, touched) = run_at(state, time, command.clone());

    let mut expected = naive.clone();
    let predicted = expected.apply(time, &command);
    match (&result, predicted) {
        (Ok(applied), Some(rows)) => {
            *naive = expected;
            assert!(
                touched.rows().eq(rows.iter()),
                "{touched:?} is not {rows:?}"
            );
            assert_eq!(applied.version, state.version());
        }
        (Err(_), None) => {}
        // What is wrong with entries is the model's business, not this one's.
        (Err(Refusal::Invalid { .. } | Refusal::Dangling { .. }), Some(_)) => {}
        (result, predicted) => panic!("{command:?}: {result:?}, and the model says {predicted:?}"),
    }
    if result.is_err() {
        assert!(*state == before && touched.is_empty());
    }
    assert_eq!(rows(state), naive.rows);
    assert_eq!(state.version().index, naive.index);
    assert_eq!(state.now(), naive.now);
    check_indexes(&before, state, &touched);
    check_watches(store, &before, time, command, &touched);
}

/// Indexes never go back, and each change is seen in the index of all that
/// covers it, and of nothing else.
fn check_indexes(before: &State, after: &State, touched: &Touched) {
    for key in watch_keys() {
        let keys = std::slice::from_ref(&key);
        let (old, new) = (before.index(keys), after.index(keys));
        match touched.wakes(&key) {
            true => assert_eq!(new, after.version().index, "{key:?}"),
            false => assert_eq!(new, old, "{key:?}"),
        }
        assert!(new >= old && new >= 1);
    }
}

/// The store wakes exactly those whom the commit's word covers.
fn check_watches(store: &Store, before: &State, time: u64, command: Command, touched: &Touched) {
    let since = before.version();
    assert_eq!(store.state().version(), since);
    let watches: Vec<_> = watch_keys()
        .into_iter()
        .map(|key| (store.watch(std::slice::from_ref(&key), &since), key))
        .collect();
    store.apply(&[Envelope::new(time, command)]);
    let awake = watches.iter().filter(|(_, key)| touched.wakes(key)).count();
    assert_eq!(store.watch_count(), watches.len() - awake);
    for (mut watch, key) in watches {
        let woken = std::pin::pin!(&mut watch);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let ready = std::future::Future::poll(woken, &mut cx).is_ready();
        assert_eq!(ready, touched.wakes(&key), "{key:?}");
    }
}

proptest! {
    #[test]
    fn does_what_a_naive_model_does(asks in prop::collection::vec((asks(), 0..20_000_u64), 1..40)) {
        let mut state = cluster();
        let store = Store::new(state.clone());
        let mut naive = Naive { index: state.version().index, now: state.now(), ..Naive::default() };
        for (ask, time) in &asks {
            step(&mut naive, &mut state, &store, *time, ask);
        }
        prop_assert!(*store.state() == state);
        let bytes = state.to_snapshot().unwrap();
        let again = State::read_snapshot(bytes.as_slice()).unwrap();
        prop_assert!(again == state);
        prop_assert_eq!(mesh_state::inspect(bytes.as_slice()).unwrap().bytes, bytes.len() as u64);
    }

    /// Two replicas that apply the same commands make the same bytes, however
    /// they are batched, and though one of them began with a snapshot.
    #[test]
    fn replicas_are_equal_to_the_byte(
        asks in prop::collection::vec((asks(), 0..20_000_u64), 1..30),
        batch in 1..7_usize,
        halfway in any::<prop::sample::Index>(),
    ) {
        let mut one = cluster();
        let mut naive = Naive { index: one.version().index, now: one.now(), ..Naive::default() };
        let halfway = halfway.index(asks.len());
        let mut late = None;
        let mut log = Vec::new();
        let mut outcomes = Vec::new();
        for (at, (ask, time)) in asks.iter().enumerate() {
            if at == halfway {
                late = Some(one.to_snapshot().unwrap());
            }
            let command = naive.command(ask);
            let envelope = Envelope::new(*time, command);
            let commit = one.apply(std::slice::from_ref(&envelope));
            if matches!(commit.outcomes[..], [Outcome::Applied(_)]) {
                naive.apply(*time, &envelope.command);
            }
            outcomes.extend(commit.outcomes);
            log.push(envelope);
        }
        let mut two = cluster();
        let batched: Vec<Outcome> = log
            .chunks(batch)
            .flat_map(|commands| two.apply(commands).outcomes)
            .collect();
        prop_assert_eq!(outcomes, batched);
        let bytes = one.to_snapshot().unwrap();
        prop_assert_eq!(&two.to_snapshot().unwrap(), &bytes);

        let mut three = State::read_snapshot(late.unwrap().as_slice()).unwrap();
        three.apply(&log[halfway..]);
        prop_assert_eq!(&three.to_snapshot().unwrap(), &bytes);
    }
}
