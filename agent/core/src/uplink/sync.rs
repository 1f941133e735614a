//! Bringing the servers' part of the catalog to what it should be.
//!
//! It goes by difference and not by event: whatever happened, the next change is the first
//! difference between what should be and what a server has acknowledged. One change is on its way
//! at a time. A stream begins with the whole set, so that nothing of an earlier one can stay.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_model::Instance;
use mesh_proto::fact::CheckChange;
use mesh_proto::servers::v1 as pb;
use mesh_proto::servers::v1::catalog::Change;
use tokio::time::Instant;

use super::backoff::Backoff;

type Instances = BTreeMap<String, Instance>;

/// How long a server may take for one change.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// What a server has of this node, within one stream.
#[derive(Debug, Default)]
pub(super) struct Sync {
    /// What it has acknowledged.
    known: Instances,
    /// What it refused, and refuses until it is another.
    refused: Instances,
    /// The whole set has been taken.
    whole: bool,
    /// It is tried one by one which instance it is that makes the server refuse the whole set.
    one_by_one: bool,
    on_its_way: Option<OnItsWay>,
    last_request: u64,
    backoff: Backoff,
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct OnItsWay {
    request: u64,
    what: What,
    since: Instant,
}

#[derive(Debug)]
enum What {
    Whole(Instances),
    Put(Box<Instance>),
    Remove(String),
    Checks(Vec<Instance>),
}

impl Sync {
    /// The next change to send, if there is one and nothing is on its way.
    pub(super) fn next(&mut self, desired: &Instances, now: Instant) -> Option<pb::Catalog> {
        if self.on_its_way.is_some() || self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        self.not_before = None;
        self.refused.retain(|id, was| desired.get(id) == Some(was));
        let (what, change) = self.difference(desired)?;
        self.last_request += 1;
        self.on_its_way = Some(OnItsWay {
            request: self.last_request,
            what,
            since: now,
        });
        Some(pb::Catalog {
            request: self.last_request,
            change: Some(change),
        })
    }

    /// What came of it. `Some`: why the server refused it for good.
    pub(super) fn answered(&mut self, result: &pb::CatalogResult, now: Instant) -> Option<String> {
        let at_hand = self.on_its_way.take_if(|it| it.request == result.request)?;
        if result.error.is_empty() {
            self.backoff.reset();
            self.taken(at_hand.what);
            return None;
        }
        if result.retry {
            self.not_before = Some(now + self.backoff.step());
            return None;
        }
        match at_hand.what {
            // It is this one: the rest go without it.
            What::Whole(all) if all.len() == 1 => self.refused.extend(all),
            What::Whole(all) if !all.is_empty() && !self.one_by_one => self.one_by_one = true,
            // It is none of them; what each alone can bring about is done.
            What::Whole(_) => self.whole = true,
            What::Put(one) => drop(self.refused.insert(one.id.clone(), *one)),
            // What it has of these is not what we thought: they go whole.
            What::Checks(all) => {
                for one in all {
                    self.known.remove(&one.id);
                }
            }
            What::Remove(id) => drop(self.known.remove(&id)),
        }
        Some(result.error.clone())
    }

    /// When to look again though nothing changed.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.not_before
    }

    /// When the server has taken too long.
    pub(super) fn late_at(&self) -> Option<Instant> {
        self.on_its_way.as_ref().map(|it| it.since + LIMIT)
    }

    fn taken(&mut self, what: What) {
        match what {
            What::Whole(all) => {
                self.known = all;
                self.whole = true;
                self.one_by_one = false;
            }
            What::Put(one) => drop(self.known.insert(one.id.clone(), *one)),
            What::Remove(id) => drop(self.known.remove(&id)),
            What::Checks(all) => self
                .known
                .extend(all.into_iter().map(|it| (it.id.clone(), it))),
        }
    }

    fn difference(&self, desired: &Instances) -> Option<(What, Change)> {
        if !self.whole && !self.one_by_one {
            return self.all(desired);
        }
        let gone = self.known.keys().find(|id| !desired.contains_key(*id));
        if let Some(id) = gone {
            return Some((What::Remove(id.clone()), Change::Remove(id.clone())));
        }
        let differ = desired.values().filter(|one| {
            self.known.get(&one.id) != Some(one) && self.refused.get(&one.id) != Some(one)
        });
        let mut only_checks = Vec::new();
        for one in differ {
            match self.known.get(&one.id) {
                Some(known) if same_but_checks(known, one) => only_checks.push(one),
                _ => {
                    let put = Change::Put(json(one)?);
                    return Some((What::Put(Box::new(one.clone())), put));
                }
            }
        }
        if !only_checks.is_empty() {
            let changes: Vec<CheckChange> = only_checks
                .iter()
                .flat_map(|one| self.changed_checks(one))
                .collect();
            let what = only_checks.into_iter().cloned().collect();
            return Some((What::Checks(what), Change::Checks(json(&changes)?)));
        }
        // Each is taken or known to be refused: now the whole, without those.
        (!self.whole).then(|| self.all(desired)).flatten()
    }

    fn all(&self, desired: &Instances) -> Option<(What, Change)> {
        let all: Instances = desired
            .iter()
            .filter(|(id, one)| self.refused.get(*id) != Some(one))
            .map(|(id, one)| (id.clone(), one.clone()))
            .collect();
        let list: Vec<&Instance> = all.values().collect();
        let change = Change::Sync(json(&list)?);
        Some((What::Whole(all), change))
    }

    fn changed_checks(&self, one: &Instance) -> Vec<CheckChange> {
        let known = self.known.get(&one.id).map(|it| &it.checks);
        let changed = one
            .checks
            .iter()
            .filter(|(id, check)| known.is_none_or(|known| known.get(*id) != Some(*check)));
        changed
            .map(|(id, check)| CheckChange {
                instance: one.id.clone(),
                id: id.clone(),
                check: check.clone(),
            })
            .collect()
    }
}

/// Whether only the states of the same checks differ.
fn same_but_checks(a: &Instance, b: &Instance) -> bool {
    let bare = |one: &Instance| Instance {
        checks: BTreeMap::new(),
        ..one.clone()
    };
    a.checks.keys().eq(b.checks.keys()) && bare(a) == bare(b)
}

/// Our own types always become JSON; if one did not, it would not be sent.
fn json<T: serde::Serialize + ?Sized>(value: &T) -> Option<Vec<u8>> {
    serde_json::to_vec(value).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mesh_model::{Check, Status};
    use proptest::prelude::*;

    fn instance(id: &str, port: u16, status: Status) -> Instance {
        let check = Check {
            name: "x".into(),
            status,
        };
        Instance {
            namespace: "default".into(),
            service: "web".into(),
            id: id.into(),
            node: "n".into(),
            address: "10.0.0.1".into(),
            port,
            tags: Vec::new(),
            meta: BTreeMap::new(),
            weights: Default::default(),
            proxy: None,
            gateway: None,
            checks: BTreeMap::from([(format!("{id}-check"), check)]),
        }
    }

    fn set(all: &[Instance]) -> Instances {
        all.iter().map(|it| (it.id.clone(), it.clone())).collect()
    }

    /// A server that does what it is told, refuses what has port 0, and drops the unknown.
    #[derive(Default)]
    struct Server(Instances);

    impl Server {
        fn take(&mut self, catalog: &pb::Catalog) -> pb::CatalogResult {
            let error = match catalog.change.clone().unwrap() {
                Change::Sync(bytes) => {
                    let all: Vec<Instance> = serde_json::from_slice(&bytes).unwrap();
                    match all.iter().any(|it| it.port == 0) {
                        true => "one has port 0",
                        false => {
                            self.0 = set(&all);
                            ""
                        }
                    }
                }
                Change::Put(bytes) => {
                    let one: Instance = serde_json::from_slice(&bytes).unwrap();
                    match one.port {
                        0 => "port 0",
                        _ => {
                            self.0.insert(one.id.clone(), one);
                            ""
                        }
                    }
                }
                Change::Remove(id) => {
                    self.0.remove(&id);
                    ""
                }
                Change::Checks(bytes) => {
                    let all: Vec<CheckChange> = serde_json::from_slice(&bytes).unwrap();
                    for one in all {
                        let checks = &mut self.0.get_mut(&one.instance).unwrap().checks;
                        checks.insert(one.id, one.check);
                    }
                    ""
                }
            };
            pb::CatalogResult {
                request: catalog.request,
                error: error.into(),
                ..Default::default()
            }
        }

        fn settle(&mut self, sync: &mut Sync, desired: &Instances) -> usize {
            let now = Instant::now();
            let mut count = 0;
            while let Some(change) = sync.next(desired, now) {
                count += 1;
                assert!(count < 100, "it never settles");
                assert!(sync.next(desired, now).is_none(), "one at a time");
                let result = self.take(&change);
                sync.answered(&result, now);
            }
            count
        }
    }

    #[test]
    fn begins_with_the_whole_and_goes_on_with_differences() {
        let mut server = Server(set(&[instance("stale", 1, Status::Passing)]));
        let mut sync = Sync::default();
        let desired = set(&[
            instance("a", 1, Status::Critical),
            instance("b", 2, Status::Passing),
        ]);
        assert_eq!(server.settle(&mut sync, &desired), 1);
        assert_eq!(server.0, desired);
        let desired = set(&[
            instance("a", 1, Status::Passing),
            instance("b", 2, Status::Warning),
        ]);
        assert_eq!(server.settle(&mut sync, &desired), 1, "checks go together");
        assert_eq!(server.0, desired);
        let desired = set(&[
            instance("a", 9, Status::Passing),
            instance("c", 2, Status::Warning),
        ]);
        assert_eq!(server.settle(&mut sync, &desired), 3);
        assert_eq!(server.0, desired);
        assert_eq!(server.settle(&mut sync, &desired), 0);
    }

    #[test]
    fn nothing_is_said_too_when_a_stream_begins() {
        let mut server = Server(set(&[instance("stale", 1, Status::Passing)]));
        assert_eq!(server.settle(&mut Sync::default(), &Instances::new()), 1);
        assert!(server.0.is_empty());
    }

    #[test]
    fn one_that_is_refused_does_not_hold_up_the_others() {
        let mut server = Server(set(&[instance("stale", 1, Status::Passing)]));
        let mut sync = Sync::default();
        let bad = instance("bad", 0, Status::Passing);
        let desired = set(&[
            instance("a", 1, Status::Passing),
            bad,
            instance("b", 2, Status::Passing),
        ]);
        server.settle(&mut sync, &desired);
        assert_eq!(server.0.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(server.settle(&mut sync, &desired), 0, "not again and again");
        let desired = set(&[instance("bad", 7, Status::Passing)]);
        server.settle(&mut sync, &desired);
        assert_eq!(server.0, desired);
    }

    #[test]
    fn a_whole_that_is_never_taken_is_not_sent_for_ever() {
        let mut sync = Sync::default();
        let desired = set(&[
            instance("a", 1, Status::Passing),
            instance("b", 2, Status::Passing),
        ]);
        let now = Instant::now();
        let mut wholes = 0;
        for _ in 0..20 {
            let Some(change) = sync.next(&desired, now) else {
                break;
            };
            let whole = matches!(change.change, Some(Change::Sync(_)));
            wholes += u32::from(whole);
            let result = pb::CatalogResult {
                request: change.request,
                error: if whole { "never" } else { "" }.into(),
                ..Default::default()
            };
            sync.answered(&result, now);
        }
        assert_eq!(wholes, 2);
        assert!(sync.next(&desired, now).is_none());
    }

    #[test]
    fn what_may_pass_is_tried_again_later() {
        let mut sync = Sync::default();
        let desired = set(&[instance("a", 1, Status::Passing)]);
        let now = Instant::now();
        let change = sync.next(&desired, now).unwrap();
        assert_eq!(sync.late_at(), Some(now + LIMIT));
        let result = pb::CatalogResult {
            request: change.request,
            error: "no leader".into(),
            retry: true,
            ..Default::default()
        };
        assert_eq!(sync.answered(&result, now), None);
        assert!(sync.next(&desired, now).is_none());
        let at = sync.wakes_at().unwrap();
        assert!(sync.next(&desired, at).is_some());
        // An answer to what is not on its way is not looked at.
        assert_eq!(sync.answered(&result, now), None);
        assert!(sync.late_at().is_some());
    }

    proptest! {
        #[test]
        fn always_settles_on_what_should_be(
            steps in prop::collection::vec(
                prop::collection::btree_map("[a-d]", (0u16..3, 0u8..3), 0..4), 1..6)
        ) {
            let mut server = Server(set(&[instance("stale", 1, Status::Passing)]));
            let mut sync = Sync::default();
            for step in steps {
                let states = [Status::Passing, Status::Warning, Status::Critical];
                let all = step.iter().map(|(id, (port, status))| {
                    instance(id, *port, states[usize::from(*status)])
                });
                let desired = set(&all.collect::<Vec<_>>());
                server.settle(&mut sync, &desired);
                for (id, one) in &desired {
                    match one.port {
                        0 => prop_assert!(server.0.get(id).is_none_or(|it| it.port != 0)),
                        _ => prop_assert_eq!(server.0.get(id), Some(one)),
                    }
                }
                prop_assert!(server.0.keys().all(|id| desired.contains_key(id)));
            }
        }
    }
}
