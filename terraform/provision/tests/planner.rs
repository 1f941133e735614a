//! The planner against a model of a cluster: whatever the beginning, it never loses a quorum that
//! was there, and where the machines do their part it comes to the goal.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use mesh_provision::plan::{
    Decision, Index, Job, Process, Refusal, Server, Situation, Step, Wait, decide, quorum,
};
use proptest::prelude::*;

/// One server of the model: what is true, and not only what is seen.
#[derive(Clone, Copy, Debug)]
struct Truth {
    job: Job,
    runs: bool,
    is_voter: bool,
    /// It has the data of the cluster.
    has_data: bool,
    machine_lost: bool,
}

const NONE: Truth = Truth {
    job: Job::Absent,
    runs: false,
    is_voter: false,
    has_data: false,
    machine_lost: false,
};

#[derive(Clone, Debug)]
struct Model {
    servers: BTreeMap<Index, Truth>,
    dead_voters: u32,
}

impl Model {
    fn voters(&self) -> u32 {
        self.servers.values().filter(|one| one.is_voter).count() as u32 + self.dead_voters
    }

    fn well(&self) -> u32 {
        let well = |one: &&Truth| one.is_voter && one.runs && one.has_data;
        self.servers.values().filter(well).count() as u32
    }

    fn has_quorum(&self) -> bool {
        self.voters() > 0 && self.well() >= quorum(self.voters())
    }

    fn leader(&self) -> Option<Index> {
        let well = |one: &Truth| one.is_voter && one.runs && one.has_data;
        let found = self.servers.iter().find(|(_, one)| well(one));
        self.has_quorum()
            .then(|| found.map(|(index, _)| *index))
            .flatten()
    }

    fn seen(&self) -> Situation {
        let leader = self.leader();
        let server = |(index, one): (&Index, &Truth)| {
            let process = match one.runs {
                false => Process::Silent,
                true => Process::Answers {
                    is_well: leader.is_some() && one.is_voter && one.has_data,
                    knows_cluster: one.has_data,
                },
            };
            let begins = matches!(one.job, Job::Present { begins: true, .. });
            let job = match one.job {
                Job::Present { is_current, .. } => Job::Present {
                    is_current: is_current && !(begins && leader.is_some()),
                    begins,
                },
                other => other,
            };
            let seen = Server {
                job,
                process,
                is_voter: one.is_voter,
                is_learner: false,
                leads: leader == Some(*index),
                machine_lost: one.machine_lost,
            };
            (*index, seen)
        };
        Situation {
            servers: self.servers.iter().map(server).collect(),
            dead_voters: self.dead_voters,
            strangers: 0,
            has_leader: leader.is_some(),
        }
    }

    fn change(&mut self, index: Index) -> &mut Truth {
        self.servers.entry(index).or_insert(NONE)
    }

    fn run(&mut self, step: Step) {
        let current = Job::Present {
            is_current: true,
            begins: false,
        };
        match step {
            Step::Begin => {
                let one = self.change(0);
                *one = NONE;
                one.job = Job::Present {
                    is_current: true,
                    begins: true,
                };
            }
            Step::Create(index) | Step::Move(index) => {
                let one = self.change(index);
                let was_voter = one.is_voter;
                *one = NONE;
                one.job = current;
                // What it was is a dead member, if it was one.
                self.dead_voters += u32::from(was_voter);
            }
            Step::Start(index) => self.change(index).job = current,
            Step::Update(index) => {
                let begins = !self.has_quorum()
                    && matches!(self.change(index).job, Job::Present { begins: true, .. });
                let one = self.change(index);
                one.job = Job::Present {
                    is_current: true,
                    begins,
                };
                one.runs = false;
            }
            Step::Forget => self.dead_voters = 0,
            Step::Remove(index) => self.change(index).is_voter = false,
            Step::End(index) => {
                self.servers.remove(&index);
            }
        }
    }

    /// The machines do their part: what is to run runs, and who may join does.
    fn settle(&mut self) {
        let fresh = self.voters() == 0;
        for one in self.servers.values_mut() {
            one.runs = matches!(one.job, Job::Present { .. }) && !one.machine_lost;
            if let (true, true, Job::Present { begins: true, .. }) = (fresh, one.runs, one.job) {
                one.has_data = true;
                one.is_voter = true;
            }
        }
        if !self.has_quorum() {
            return;
        }
        for one in self.servers.values_mut() {
            if one.runs && !one.has_data {
                // One that lost its data comes back as another, and its old self is removed.
                one.has_data = true;
                one.is_voter = true;
            }
        }
    }
}

fn job() -> impl Strategy<Value = Job> {
    prop_oneof![
        1 => Just(Job::Absent),
        1 => Just(Job::Stopped),
        6 => any::<bool>().prop_map(|is_current| Job::Present { is_current, begins: false }),
    ]
}

fn truth() -> impl Strategy<Value = Truth> {
    (
        job(),
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.85),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(job, runs, is_voter, machine_lost)| Truth {
            job,
            runs: runs && !machine_lost && matches!(job, Job::Present { .. }),
            is_voter,
            has_data: true,
            machine_lost: machine_lost && job != Job::Absent,
        })
}

fn model() -> impl Strategy<Value = Model> {
    (prop::collection::vec(truth(), 0..=5), 0..2_u32).prop_map(|(servers, dead_voters)| Model {
        servers: (0..).zip(servers).collect(),
        dead_voters,
    })
}

fn count() -> impl Strategy<Value = u32> {
    prop_oneof![Just(1_u32), Just(3), Just(5)]
}

/// What a step may never do, by what is true.
fn is_safe(before: &Model, step: Step, after: &Model) {
    if before.has_quorum() {
        let alone = before.voters() == 1 && matches!(step, Step::Update(0));
        assert!(
            after.has_quorum() || alone,
            "{step:?} lost the quorum: {before:?} -> {after:?}"
        );
    }
    match step {
        Step::End(index) => assert!(!before.servers[&index].is_voter, "a member was stopped"),
        Step::Begin => assert!(!before.servers.values().any(|one| one.job != Job::Absent)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_step_loses_a_quorum_even_when_nothing_settles(model in model(), count in count()) {
        let mut model = model;
        for _ in 0..40 {
            let Decision::Do(step) = decide(count, &model.seen()) else { break };
            let before = model.clone();
            model.run(step);
            is_safe(&before, step, &model);
        }
    }

    #[test]
    fn it_comes_to_the_goal_or_says_why_not(model in model(), count in count()) {
        let mut model = model;
        let could = model.has_quorum();
        for _ in 0..80 {
            match decide(count, &model.seen()) {
                Decision::Done => {
                    model.servers.retain(|_, one| one.job != Job::Absent || one.is_voter);
                    prop_assert_eq!(model.servers.len() as u32, count);
                    prop_assert_eq!(model.voters(), count);
                    prop_assert_eq!(model.well(), count);
                    let current = Job::Present { is_current: true, begins: false };
                    prop_assert!(model.servers.values().all(|one| one.job == current));
                    return Ok(());
                }
                Decision::Do(step) => {
                    let before = model.clone();
                    model.run(step);
                    is_safe(&before, step, &model);
                }
                Decision::Wait(wait) => {
                    let before = model.seen();
                    model.settle();
                    if model.seen() == before {
                        // Only what no program can give: a majority whose data are gone.
                        prop_assert!(!could, "{wait:?} for ever in {model:?}");
                        return Ok(());
                    }
                }
                Decision::Refuse(refusal) => {
                    // With a leader, and all that can run running, something is safe.
                    model.settle();
                    let last = matches!(refusal, Refusal::OnlyMember(_) | Refusal::DataGone);
                    prop_assert!(last || !could || !matches!(decide(count, &model.seen()), Decision::Refuse(_)),
                        "{refusal:?} in {model:?}");
                    if matches!(decide(count, &model.seen()), Decision::Refuse(_)) {
                        return Ok(());
                    }
                }
            }
        }
        prop_assert!(false, "no end in {model:?}");
    }

    #[test]
    fn what_is_killed_at_any_step_goes_on(stops in prop::collection::vec(0..6_usize, 1..8), counts in prop::collection::vec(count(), 1..5)) {
        // Steps are taken in bursts, and the goal changes in the middle of what was begun.
        let mut model = Model { servers: BTreeMap::new(), dead_voters: 0 };
        for (stop, count) in stops.iter().zip(counts.iter().cycle()) {
            for _ in 0..*stop {
                match decide(*count, &model.seen()) {
                    Decision::Do(step) => {
                        let before = model.clone();
                        model.run(step);
                        is_safe(&before, step, &model);
                    }
                    Decision::Wait(_) => model.settle(),
                    Decision::Done => break,
                    Decision::Refuse(refusal) => prop_assert!(false, "{refusal:?} in {model:?}"),
                }
            }
        }
        for _ in 0..60 {
            match decide(3, &model.seen()) {
                Decision::Do(step) => {
                    let before = model.clone();
                    model.run(step);
                    is_safe(&before, step, &model);
                }
                Decision::Wait(_) => model.settle(),
                Decision::Done => return Ok(()),
                Decision::Refuse(refusal) => prop_assert!(false, "{refusal:?} in {model:?}"),
            }
        }
        prop_assert!(false, "no end in {model:?}");
    }
}

fn well(is_current: bool, leads: bool) -> Server {
    Server {
        job: Job::Present {
            is_current,
            begins: false,
        },
        process: Process::Answers {
            is_well: true,
            knows_cluster: true,
        },
        is_voter: true,
        is_learner: false,
        leads,
        machine_lost: false,
    }
}

fn situation(servers: &[Server]) -> Situation {
    Situation {
        servers: (0..).zip(servers.iter().copied()).collect(),
        dead_voters: 0,
        strangers: 0,
        has_leader: servers.iter().any(|one| one.leads),
    }
}

#[test]
fn from_nothing_one_begins_and_the_others_join_one_by_one() {
    let mut model = Model {
        servers: BTreeMap::new(),
        dead_voters: 0,
    };
    let mut said = Vec::new();
    loop {
        let decision = decide(3, &model.seen());
        said.push(format!("{decision:?}"));
        match decision {
            Decision::Do(step) => model.run(step),
            Decision::Wait(_) => model.settle(),
            Decision::Done => break,
            Decision::Refuse(refusal) => panic!("{refusal:?}"),
        }
    }
    assert_eq!(
        said,
        [
            "Do(Begin)",
            "Wait(Answer(0))",
            "Do(Create(1))",
            "Wait(Answer(1))",
            "Do(Create(2))",
            "Wait(Answer(2))",
            // From now on it would never begin another cluster.
            "Do(Update(0))",
            "Wait(Answer(0))",
            "Done",
        ]
    );
}

#[test]
fn the_leader_is_changed_last_and_nobody_while_one_is_away() {
    let three = [well(false, true), well(false, false), well(false, false)];
    assert_eq!(decide(3, &situation(&three)), Decision::Do(Step::Update(1)));
    let mut away = three;
    away[1].job = Job::Present {
        is_current: true,
        begins: false,
    };
    away[1].process = Process::Silent;
    assert_eq!(
        decide(3, &situation(&away)),
        Decision::Wait(Wait::Answer(1))
    );
    away[1] = well(true, false);
    assert_eq!(decide(3, &situation(&away)), Decision::Do(Step::Update(2)));
    away[2] = well(true, false);
    assert_eq!(decide(3, &situation(&away)), Decision::Do(Step::Update(0)));
}

#[test]
fn members_of_whom_nothing_is_known_do_not_count_as_well() {
    let mut now = situation(&[well(false, true), well(false, false)]);
    now.strangers = 1;
    let mut three = now.clone();
    three.servers.insert(2, well(true, false));
    // Three of ours are a quorum of four, two are not.
    assert!(matches!(
        decide(3, &three),
        Decision::Refuse(Refusal::Quorum {
            voters: 4,
            well: 3,
            ..
        })
    ));
    three.strangers = 0;
    assert_eq!(decide(3, &three), Decision::Do(Step::Update(1)));
    now.servers.insert(2, Server::ABSENT);
    assert_eq!(decide(3, &now), Decision::Do(Step::Create(2)));
}

#[test]
fn a_member_is_taken_out_before_it_is_stopped() {
    let mut three = situation(&[well(true, true), well(true, false), well(true, false)]);
    assert_eq!(decide(1, &three), Decision::Do(Step::Remove(2)));
    three.servers.get_mut(&2).unwrap().is_voter = false;
    assert_eq!(decide(1, &three), Decision::Do(Step::End(2)));
    three.servers.remove(&2);
    assert_eq!(decide(1, &three), Decision::Do(Step::Remove(1)));
}

#[test]
fn one_that_somebody_took_out_comes_back_as_new() {
    let mut three = situation(&[well(true, true), well(true, false), well(true, false)]);
    three.servers.get_mut(&2).unwrap().is_voter = false;
    assert_eq!(decide(3, &three), Decision::Do(Step::Move(2)));
}

#[test]
fn a_second_cluster_is_never_begun() {
    // The servers run and know nothing: all data are gone, and only a person may begin anew.
    let mut empty = well(true, false);
    empty.is_voter = false;
    empty.process = Process::Answers {
        is_well: false,
        knows_cluster: false,
    };
    let refused = decide(3, &situation(&[empty, empty, empty]));
    assert_eq!(refused, Decision::Refuse(Refusal::DataGone));
    let mut only = well(true, false);
    only.machine_lost = true;
    only.process = Process::Silent;
    let refused = decide(1, &situation(&[only]));
    assert_eq!(refused, Decision::Refuse(Refusal::OnlyMember(0)));
}
