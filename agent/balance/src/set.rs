//! The endpoints of one destination, and the choice between them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::time::Duration;

use rand::Rng;

use crate::endpoint::{Endpoint, Health, Outcome, Picked, Status, Token};
use crate::heap::Heap;
use crate::outlier::{Avoidance, Outlier, Record};
use crate::pool::{Load, Policy, Pool};

/// The endpoints of one destination: see the crate for the rules.
///
/// `K` says which endpoint of one list is which of the next; `T` is whatever
/// the caller needs to reach it. Times must not go back; one that does counts
/// as the latest before.
#[derive(Clone, Debug)]
pub struct EndpointSet<K, T> {
    slots: Vec<Option<Member<K, T>>>,
    free: Vec<u32>,
    index: HashMap<K, u32>,
    /// One for each [`Group`].
    pools: [Pool; 4],
    /// When ejections and avoidances end.
    alarms: Heap<Duration>,
    ejected: usize,
    policy: Policy,
    outlier: Option<Outlier>,
    avoidance: Avoidance,
    now: Duration,
    /// Counts endpoints that came, and lists.
    generation: u32,
    list: u64,
    counters: Counters,
}

/// Which endpoints are tried first. The order is the order of choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Passing,
    Unknown,
    PassingButDown,
    UnknownButDown,
}

const GROUPS: [Group; 4] = [
    Group::Passing,
    Group::Unknown,
    Group::PassingButDown,
    Group::UnknownButDown,
];

#[derive(Clone, Debug)]
struct Member<K, T> {
    key: K,
    value: T,
    weight: u32,
    health: Health,
    generation: u32,
    /// The last list that had it.
    list: u64,
    /// Where in its turn it begins (round robin).
    phase: u32,
    active: u32,
    record: Record,
    group: Option<Group>,
}

/// What a set has counted, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Picks.
    pub picks: u64,
    /// Those of an unknown endpoint, for lack of a passing one.
    pub picks_of_unknown: u64,
    /// Those of an ejected or avoided endpoint, for lack of anything better.
    pub picks_in_panic: u64,
    /// Ejections.
    pub ejections: u64,
    /// Ejections that the limit on ejected endpoints forbade.
    pub ejections_forbidden: u64,
    /// Connects that failed.
    pub connect_failures: u64,
}

impl<K: Clone + Eq + Hash, T> EndpointSet<K, T> {
    /// An empty set, without outlier detection.
    pub fn new(policy: Policy) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashMap::new(),
            pools: std::array::from_fn(|_| Pool::new(policy)),
            alarms: Heap::new(),
            ejected: 0,
            policy,
            outlier: None,
            avoidance: Avoidance::default(),
            now: Duration::ZERO,
            generation: 0,
            list: 0,
            counters: Counters::default(),
        }
    }

    /// Takes a new list. Endpoints that stay keep what is known of them and
    /// their requests in progress; those that are not in it go. One that was
    /// critical and is not any more begins anew. Of two with the same key the
    /// later one counts.
    pub fn update(
        &mut self,
        endpoints: impl IntoIterator<Item = Endpoint<K, T>>,
        now: Duration,
        rng: &mut impl Rng,
    ) {
        self.advance(now);
        self.list += 1;
        for endpoint in endpoints {
            let slot = match self.index.get(&endpoint.key) {
                Some(&slot) => {
                    self.change(slot, endpoint);
                    slot
                }
                None => self.add(endpoint, rng.random()),
            };
            self.settle(slot);
        }
        for slot in 0..self.slots.len() as u32 {
            if self
                .member(slot)
                .is_some_and(|member| member.list != self.list)
            {
                self.remove(slot);
            }
        }
    }

    /// Chooses an endpoint for a request, other than `exclude` (those that a
    /// retry has tried). `None` if there is none; when `exclude` is the reason,
    /// the caller may pick again without it.
    pub fn pick(&mut self, now: Duration, rng: &mut impl Rng, exclude: &[Token]) -> Option<Picked> {
        self.advance(now);
        let group = GROUPS
            .into_iter()
            .find(|group| self.pools[*group as usize].len() > 0)?;
        let slots = &self.slots;
        let excluded = exclude.iter().filter_map(|token| {
            let member = slots.get(token.slot as usize)?.as_ref()?;
            (member.generation == token.generation).then_some(token.slot)
        });
        let load = |slot: u32| match slots.get(slot as usize) {
            Some(Some(member)) => Load {
                weight: member.weight,
                active: member.active,
            },
            _ => Load {
                weight: 0,
                active: 0,
            },
        };
        let slot = self.pools[group as usize].choose(rng, excluded, load)?;
        let member = self.slots.get_mut(slot as usize)?.as_mut()?;
        member.active = member.active.saturating_add(1);
        member.record.picked(&self.avoidance, self.now);
        let token = Token {
            slot,
            generation: member.generation,
        };
        if !member.record.is_up() {
            self.settle(slot);
        }
        self.counters.picks += 1;
        let is_unknown = matches!(group, Group::Unknown | Group::UnknownButDown);
        let is_panic = matches!(group, Group::PassingButDown | Group::UnknownButDown);
        self.counters.picks_of_unknown += u64::from(is_unknown);
        self.counters.picks_in_panic += u64::from(is_panic);
        Some(Picked {
            token,
            is_panic,
            began: self.now,
        })
    }

    /// A connection to a picked endpoint came about. To be said as soon as it is
    /// known, if the request may last: it ends an avoidance.
    pub fn connected(&mut self, picked: &Picked, now: Duration) {
        self.advance(now);
        if let Some(member) = self.named(picked.token) {
            member.record.connected(picked.began);
            self.settle(picked.token.slot);
        }
    }

    /// Gives a pick back, with how it went. Of an endpoint that has left the set
    /// nothing is learned.
    pub fn done(&mut self, picked: Picked, outcome: Outcome, now: Duration) {
        self.advance(now);
        let now = self.now;
        let avoidance = self.avoidance;
        let outlier = self.outlier.clone();
        let Some(member) = self.named(picked.token) else {
            return;
        };
        member.active = member.active.saturating_sub(1);
        let record = &mut member.record;
        match outcome {
            Outcome::Cancelled => return,
            Outcome::Success => {
                record.connected(picked.began);
                record.succeeded();
            }
            Outcome::ServerError | Outcome::Reset => record.connected(picked.began),
            // Whether it is connected to is not known.
            Outcome::Timeout => {}
            Outcome::ConnectFailure => record.connect_failed(&avoidance, picked.began, now),
        }
        let eject = match &outlier {
            Some(outlier) if outcome != Outcome::Success => record.failed(outlier, picked.began),
            _ => false,
        };
        self.counters.connect_failures += u64::from(outcome == Outcome::ConnectFailure);
        if let Some(outlier) = outlier.filter(|_| eject) {
            self.eject(picked.token.slot, &outlier);
        }
        self.settle(picked.token.slot);
    }

    /// Chooses otherwise from now on; what is known stays.
    pub fn set_policy(&mut self, policy: Policy) {
        if self.policy == policy {
            return;
        }
        self.policy = policy;
        self.pools = std::array::from_fn(|_| Pool::new(policy));
        self.grow();
        for slot in 0..self.slots.len() as u32 {
            if let Some(Some(member)) = self.slots.get_mut(slot as usize) {
                member.group = None;
            }
            self.settle(slot);
        }
    }

    /// Sets, or with `None` ends, outlier detection. At its end nothing stays
    /// ejected; otherwise what is ejected stays so.
    pub fn set_outlier(&mut self, outlier: Option<Outlier>) {
        self.outlier = outlier;
        if self.outlier.is_none() {
            self.ejected = 0;
            for slot in 0..self.slots.len() as u32 {
                if let Some(Some(member)) = self.slots.get_mut(slot as usize) {
                    member.record.ejected_until = None;
                    member.record.failures = 0;
                }
                self.settle(slot);
            }
        }
    }

    /// Sets how long endpoints that cannot be connected to are avoided, from
    /// the next failure on.
    pub fn set_avoidance(&mut self, avoidance: Avoidance) {
        self.avoidance = avoidance;
    }

    /// What is needed to reach a picked endpoint; `None` if it has left the set.
    pub fn value(&self, picked: &Picked) -> Option<&T> {
        self.member_of(picked.token).map(|member| &member.value)
    }

    /// The key of an endpoint; `None` if it has left the set.
    pub fn key(&self, token: Token) -> Option<&K> {
        self.member_of(token).map(|member| &member.key)
    }

    /// How many endpoints there are, usable or not.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// How many endpoints are ejected.
    pub fn ejected(&self) -> usize {
        self.ejected
    }

    /// What it has counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What is thought of each endpoint, as of the last call with a time.
    pub fn statuses(&self) -> impl Iterator<Item = Status<'_, K, T>> {
        self.slots.iter().flatten().map(|member| Status {
            key: &member.key,
            value: &member.value,
            weight: member.weight,
            health: member.health,
            active: member.active,
            failures: member.record.failures,
            ejected_until: member.record.ejected_until,
            avoided_until: member.record.avoided_until,
        })
    }

    fn add(&mut self, endpoint: Endpoint<K, T>, phase: u32) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.grow();
            self.slots.len() as u32 - 1
        });
        self.generation = self.generation.wrapping_add(1);
        self.index.insert(endpoint.key.clone(), slot);
        self.slots[slot as usize] = Some(Member {
            key: endpoint.key,
            value: endpoint.value,
            weight: endpoint.weight,
            health: endpoint.health,
            generation: self.generation,
            list: self.list,
            phase,
            active: 0,
            record: Record::default(),
            group: None,
        });
        slot
    }

    fn change(&mut self, slot: u32, endpoint: Endpoint<K, T>) {
        let Some(Some(member)) = self.slots.get_mut(slot as usize) else {
            return;
        };
        member.list = self.list;
        member.value = endpoint.value;
        if member.health == Health::Critical && endpoint.health != Health::Critical {
            self.ejected -= usize::from(member.record.ejected_until.is_some());
            member.record = Record::default();
        }
        member.health = endpoint.health;
        if member.weight != endpoint.weight {
            member.weight = endpoint.weight;
            if let Some(group) = member.group.take() {
                self.pools[group as usize].leave(slot);
            }
        }
    }

    fn remove(&mut self, slot: u32) {
        let Some(member) = self.slots.get_mut(slot as usize).and_then(Option::take) else {
            return;
        };
        if let Some(group) = member.group {
            self.pools[group as usize].leave(slot);
        }
        self.ejected -= usize::from(member.record.ejected_until.is_some());
        self.alarms.remove(slot);
        if let Entry::Occupied(entry) = self.index.entry(member.key) {
            entry.remove();
        }
        self.free.push(slot);
    }

    /// Ends what is over by now.
    fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now);
        while let Some((at, slot)) = self.alarms.first()
            && at <= self.now
        {
            if let Some(Some(member)) = self.slots.get_mut(slot as usize)
                && member.record.expire(self.now)
            {
                self.ejected -= 1;
            }
            self.alarms.remove(slot);
            self.settle(slot);
        }
    }

    fn eject(&mut self, slot: u32, outlier: &Outlier) {
        let usable = self.pools.iter().map(Pool::len).sum();
        if self.ejected >= outlier.allowed(usable) {
            self.counters.ejections_forbidden += 1;
            return;
        }
        if let Some(Some(member)) = self.slots.get_mut(slot as usize) {
            member.record.eject(outlier, self.now);
            self.ejected += 1;
            self.counters.ejections += 1;
        }
    }

    /// Puts an endpoint into the pool, and under the alarm, where it belongs.
    fn settle(&mut self, slot: u32) {
        let Some(Some(member)) = self.slots.get_mut(slot as usize) else {
            return;
        };
        match member.record.next_change() {
            Some(at) => self.alarms.set(slot, at),
            None => self.alarms.remove(slot),
        }
        let group = match (member.health, member.record.is_up()) {
            _ if member.weight == 0 => None,
            (Health::Critical, _) => None,
            (Health::Passing | Health::Warning, true) => Some(Group::Passing),
            (Health::Passing | Health::Warning, false) => Some(Group::PassingButDown),
            (Health::Unknown, true) => Some(Group::Unknown),
            (Health::Unknown, false) => Some(Group::UnknownButDown),
        };
        if member.group == group {
            return;
        }
        if let Some(old) = std::mem::replace(&mut member.group, group) {
            self.pools[old as usize].leave(slot);
        }
        if let Some(new) = group {
            self.pools[new as usize].enter(slot, member.weight, member.phase);
        }
    }

    /// Makes room everywhere, so that nothing is allocated later.
    fn grow(&mut self) {
        let slots = self.slots.len().next_power_of_two();
        self.alarms.grow(slots);
        for pool in &mut self.pools {
            pool.grow(slots);
        }
    }

    fn member(&self, slot: u32) -> Option<&Member<K, T>> {
        self.slots.get(slot as usize)?.as_ref()
    }

    fn member_of(&self, token: Token) -> Option<&Member<K, T>> {
        self.member(token.slot)
            .filter(|member| member.generation == token.generation)
    }

    fn named(&mut self, token: Token) -> Option<&mut Member<K, T>> {
        let member = self.slots.get_mut(token.slot as usize)?.as_mut()?;
        (member.generation == token.generation).then_some(member)
    }
}
