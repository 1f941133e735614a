//! When the others were last heard, as of now.
//!
//! openraft's own number is made when it publishes its metrics, and stands still
//! with its loop: in a process that was stopped and goes on, or while an append
//! waits for the disk, a leader would think that a majority heard it a moment ago,
//! and answer reads by that. So each answer is noted here, with the moment *before*
//! what it answers was sent: from then on the peer votes for nobody else for as long
//! as a leader's lease.
//!
//! An [`Instant`] does not count while the whole machine is suspended (or a virtual
//! one paused): a leader that wakes up on such a host may answer a few reads by a
//! lease that is over. Those that must not be so are proved by a majority.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::types::Metrics;

/// What this node heard of the others.
#[derive(Debug, Default)]
pub(crate) struct Contacts(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    /// The last word of a leader, to this node as a follower.
    leader: Option<Instant>,
    /// The term in which this node led when they answered.
    term: u64,
    /// When the last message was sent to each peer that it has taken.
    peers: BTreeMap<u64, Instant>,
}

impl Contacts {
    /// A leader was heard.
    pub(crate) fn leader(&self) {
        self.lock().leader = Some(Instant::now());
    }

    /// A peer has taken what this node sent it at `sent`, as the leader of `term`.
    pub(crate) fn peer(&self, peer: u64, term: u64, sent: Instant) {
        let mut heard = self.lock();
        if term > heard.term {
            heard.term = term;
            heard.peers.clear();
        }
        if term == heard.term {
            let last = heard.peers.entry(peer).or_insert(sent);
            *last = sent.max(*last);
        }
    }

    /// How old this node's knowledge may be: as [`crate::RaftNode::last_contact`].
    pub(crate) fn age(&self, metrics: &Metrics) -> Option<Duration> {
        match metrics.state.is_leader() {
            true => self.majority(metrics),
            false => self.lock().leader.map(|at| at.elapsed()),
        }
    }

    /// The age of the last moment at which a majority is known to have followed.
    fn majority(&self, metrics: &Metrics) -> Option<Duration> {
        let membership = metrics.membership_config.membership();
        let heard = self.lock();
        let now = Instant::now();
        let at = |voter: &u64| match *voter == metrics.id {
            true => Some(now),
            false if heard.term == metrics.current_term => heard.peers.get(voter).copied(),
            false => None,
        };
        // While members change there are two sets of voters, and each counts.
        let moments = membership.get_joint_config().iter();
        let oldest = moments.map(|voters| majority(voters, at)).min();
        oldest.flatten().map(|at| now.saturating_duration_since(at))
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last moment at which a majority of the voters had been heard.
fn majority(voters: &BTreeSet<u64>, at: impl Fn(&u64) -> Option<Instant>) -> Option<Instant> {
    let mut moments: Vec<Option<Instant>> = voters.iter().map(at).collect();
    // Newest first; those that were never heard are last.
    moments.sort_unstable_by(|a, b| b.cmp(a));
    moments.get(voters.len() / 2).copied().flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use openraft::{Membership, ServerState, StoredMembership};

    fn leader(term: u64, voters: &[&[u64]]) -> Metrics {
        let sets = voters.iter().map(|set| set.iter().copied().collect());
        let nodes: BTreeMap<u64, _> = (1..=9).map(|id| (id, Default::default())).collect();
        let membership = Membership::new(sets.collect(), nodes);
        let mut metrics = Metrics::new_initial(1);
        metrics.state = ServerState::Leader;
        metrics.current_term = term;
        metrics.membership_config = StoredMembership::new(None, membership).into();
        metrics
    }

    fn ago(seconds: u64) -> Instant {
        Instant::now() - Duration::from_secs(seconds)
    }

    /// In whole seconds.
    fn age(contacts: &Contacts, metrics: &Metrics) -> Option<u64> {
        contacts.age(metrics).map(|age| age.as_secs())
    }

    #[test]
    fn a_majority_is_as_old_as_its_oldest() {
        let contacts = Contacts::default();
        assert_eq!(age(&contacts, &leader(1, &[&[1]])), Some(0), "alone");
        let three = leader(1, &[&[1, 2, 3]]);
        assert_eq!(age(&contacts, &three), None);
        contacts.peer(2, 1, ago(50));
        assert_eq!(age(&contacts, &three), Some(50));
        contacts.peer(3, 1, ago(30));
        assert_eq!(age(&contacts, &three), Some(30));
        let five = leader(1, &[&[1, 2, 3, 4, 5]]);
        assert_eq!(age(&contacts, &five), Some(50));
        assert_eq!(age(&contacts, &leader(1, &[&[1, 4, 5, 6]])), None);
        // One that is not a voter itself does not count.
        assert_eq!(age(&contacts, &leader(1, &[&[2, 3, 4]])), Some(50));
        // Answers come in any order.
        contacts.peer(3, 1, ago(90));
        assert_eq!(age(&contacts, &three), Some(30));
    }

    #[test]
    fn while_members_change_both_sets_count() {
        let contacts = Contacts::default();
        contacts.peer(2, 1, ago(50));
        contacts.peer(4, 1, ago(10));
        let joint = leader(1, &[&[1, 2, 3], &[1, 4, 5]]);
        assert_eq!(age(&contacts, &joint), Some(50));
        let joint = leader(1, &[&[1, 3], &[1, 4, 5]]);
        assert_eq!(age(&contacts, &joint), None);
    }

    #[test]
    fn what_was_heard_in_another_term_says_nothing() {
        let contacts = Contacts::default();
        contacts.peer(2, 4, ago(1));
        let three = |term| leader(term, &[&[1, 2, 3]]);
        assert_eq!(age(&contacts, &three(5)), None);
        contacts.peer(3, 5, ago(20));
        contacts.peer(2, 4, ago(0));
        assert_eq!(age(&contacts, &three(5)), Some(20));
        assert_eq!(age(&contacts, &three(4)), None);
    }
}
