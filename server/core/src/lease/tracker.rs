//! The leases themselves: a function of what was heard and of the time.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_model::NodeState;

/// With fewer nodes, "a third of them" says nothing about the servers.
const FEW: usize = 2;

/// The leases that a leader holds. Times are of any clock that does not run back.
#[derive(Debug)]
pub(crate) struct Tracker {
    lease: Duration,
    /// When every lease began anew.
    begun: Duration,
    last_tick: Duration,
    suspects: bool,
    heard: BTreeMap<String, Duration>,
}

/// What a tick found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Alive in the state, and not heard.
    pub(crate) silent: Vec<String>,
    /// Silent in the state, and heard.
    pub(crate) alive: Vec<String>,
    /// So many fell silent together that nothing is to change.
    pub(crate) suspect: bool,
    /// And that was not so at the last tick.
    pub(crate) is_new: bool,
    /// How many are not heard then.
    pub(crate) unheard: usize,
}

impl Tracker {
    /// A new leader: every lease starts anew, since nothing was heard by it before.
    pub(crate) fn new(lease: Duration, now: Duration) -> Self {
        Self {
            lease,
            begun: now,
            last_tick: now,
            suspects: false,
            heard: BTreeMap::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.heard.len()
    }

    pub(crate) fn heard(&mut self, node: String, now: Duration) {
        self.heard.insert(node, now);
    }

    pub(crate) fn forget(&mut self, node: &str) {
        self.heard.remove(node);
    }

    /// What is to change now.
    pub(crate) fn tick<'a>(
        &mut self,
        now: Duration,
        nodes: impl Iterator<Item = (&'a str, NodeState)>,
    ) -> Verdict {
        // This process stood still: what it did not hear says nothing of the nodes.
        if now.saturating_sub(self.last_tick) > self.lease / 2 {
            self.begun = now;
        }
        self.last_tick = now;
        let mut verdict = Verdict::default();
        let mut count = 0;
        let mut kept = BTreeMap::new();
        for (node, state) in nodes {
            count += 1;
            let heard = self.heard.remove_entry(node);
            let at = heard.as_ref().map(|(_, at)| *at);
            kept.extend(heard);
            let last = at.map_or(self.begun, |at| at.max(self.begun));
            let expired = now.saturating_sub(last) >= self.lease;
            match state {
                NodeState::Alive if expired => verdict.silent.push(node.to_owned()),
                NodeState::Silent { .. } if at.is_some_and(|at| now - at < self.lease) => {
                    verdict.alive.push(node.to_owned());
                }
                _ => {}
            }
        }
        self.heard = kept;
        if count > FEW && verdict.silent.len() * 3 > count {
            verdict.suspect = true;
            verdict.is_new = !self.suspects;
            verdict.unheard = verdict.silent.len();
            verdict.silent.clear();
        }
        self.suspects = verdict.suspect;
        verdict
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const LEASE: Duration = Duration::from_secs(15);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Ticks each second up to `to`, hearing `heard` each time.
    fn run(
        tracker: &mut Tracker,
        from: u64,
        to: u64,
        nodes: &[(&str, NodeState)],
        heard: &[&str],
    ) -> Verdict {
        let mut verdict = Verdict::default();
        for now in from..=to {
            for node in heard {
                tracker.heard((*node).to_owned(), s(now));
            }
            verdict = tracker.tick(s(now), nodes.iter().copied());
        }
        verdict
    }

    const SILENT: NodeState = NodeState::Silent { since: 1 };

    #[test]
    fn a_node_that_is_not_heard_is_silent_and_comes_back() {
        let mut tracker = Tracker::new(LEASE, s(0));
        let nodes = [("a", NodeState::Alive), ("b", NodeState::Alive)];
        assert_eq!(run(&mut tracker, 1, 14, &nodes, &["b"]), Verdict::default());
        let verdict = run(&mut tracker, 15, 15, &nodes, &["b"]);
        assert_eq!(verdict.silent, ["a"]);
        let nodes = [("a", SILENT), ("b", NodeState::Alive)];
        assert_eq!(
            run(&mut tracker, 16, 20, &nodes, &["b"]),
            Verdict::default()
        );
        let verdict = run(&mut tracker, 21, 21, &nodes, &["a", "b"]);
        assert_eq!(verdict.alive, ["a"]);
    }

    #[test]
    fn more_than_a_third_together_changes_nothing() {
        let mut tracker = Tracker::new(LEASE, s(0));
        let alive = NodeState::Alive;
        let nodes = [("a", alive), ("b", alive), ("c", alive), ("d", alive)];
        let verdict = run(&mut tracker, 1, 20, &nodes, &["c", "d"]);
        assert!(verdict.suspect);
        assert!(verdict.silent.is_empty());
        // One of them is heard again: one of four may be silent.
        let verdict = run(&mut tracker, 21, 21, &nodes, &["b", "c", "d"]);
        assert_eq!(
            (verdict.suspect, verdict.silent),
            (false, vec!["a".to_owned()])
        );
    }

    #[test]
    fn with_two_nodes_there_is_no_third() {
        let mut tracker = Tracker::new(LEASE, s(0));
        let nodes = [("a", NodeState::Alive), ("b", NodeState::Alive)];
        let verdict = run(&mut tracker, 1, 15, &nodes, &[]);
        assert_eq!(verdict.silent, ["a", "b"]);
    }

    #[test]
    fn a_process_that_stood_still_blames_nobody() {
        let mut tracker = Tracker::new(LEASE, s(0));
        let nodes = [("a", NodeState::Alive)];
        run(&mut tracker, 1, 3, &nodes, &["a"]);
        assert_eq!(
            tracker.tick(s(100), nodes.iter().copied()),
            Verdict::default()
        );
        assert_eq!(run(&mut tracker, 101, 114, &nodes, &[]), Verdict::default());
        assert_eq!(run(&mut tracker, 115, 115, &nodes, &[]).silent, ["a"]);
    }

    proptest! {
        /// Whatever is heard and whenever: a node that was heard within the
        /// lease is never called silent, and never more than a third are.
        #[test]
        fn nobody_who_is_heard_is_silent(
            heard in proptest::collection::vec((0u64..60, 0usize..6), 0..80),
        ) {
            let names = ["a", "b", "c", "d", "e", "f"];
            let mut tracker = Tracker::new(LEASE, s(0));
            let mut last = BTreeMap::new();
            for now in 1..60u64 {
                for (_, node) in heard.iter().filter(|(at, _)| *at == now) {
                    tracker.heard(names[*node].to_owned(), s(now));
                    last.insert(names[*node], now);
                }
                let nodes = names.iter().map(|name| (*name, NodeState::Alive));
                let verdict = tracker.tick(s(now), nodes);
                prop_assert!(verdict.silent.len() <= 2);
                for node in &verdict.silent {
                    let at = last.get(node.as_str()).copied().unwrap_or(0);
                    prop_assert!(now - at >= 15);
                }
            }
        }
    }
}
