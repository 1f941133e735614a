//! What to do next, as a pure function of what is: a wrong step here loses a quorum.
//!
//! [`decide`] gives one step at a time and remembers nothing. Three rules hold for every step:
//!
//! - a server that counts is taken away (restarted with a change, or out of the membership) only
//!   when the others that are well are a quorum without it; the one exception is a cluster of one,
//!   which cannot be changed otherwise;
//! - a server is stopped for good only when it is no member any more;
//! - a cluster is begun only where there is nothing: no job, and no server that knows one.

use std::collections::BTreeMap;

/// A server's number: the first is 0. It names its job and its member.
pub type Index = u32;

/// What is there of one server's job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Nomad has none.
    Absent,
    /// It was stopped, and Nomad still knows where it ran.
    Stopped,
    /// It is to run.
    Present {
        /// It is what is wanted, word for word.
        is_current: bool,
        /// It would begin a cluster if it found none.
        begins: bool,
    },
}

/// How a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// Nothing runs, or what runs does not answer yet.
    Silent,
    /// It answers.
    Answers {
        /// It serves: it knows the leader, has heard of it, has what the leader has.
        is_well: bool,
        /// It belongs to a cluster, or did.
        knows_cluster: bool,
    },
}

/// One server, as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its job.
    pub job: Job,
    /// Its process.
    pub process: Process,
    /// It has a vote, as the leader has it.
    pub is_voter: bool,
    /// It is a member without a vote.
    pub is_learner: bool,
    /// It leads.
    pub leads: bool,
    /// Its machine is gone, or down for longer than a restart takes.
    pub machine_lost: bool,
}

impl Server {
    /// Nothing of it is there.
    pub const ABSENT: Self = Self {
        job: Job::Absent,
        process: Process::Silent,
        is_voter: false,
        is_learner: false,
        leads: false,
        machine_lost: false,
    };

    fn is_well(&self) -> bool {
        matches!(self.process, Process::Answers { is_well: true, .. })
    }

    fn counts(&self) -> bool {
        self.is_voter && self.is_well()
    }

    fn is_present(&self) -> bool {
        matches!(self.job, Job::Present { .. })
    }

    fn is_current(&self) -> bool {
        matches!(
            self.job,
            Job::Present {
                is_current: true,
                ..
            }
        )
    }
}

/// Everything that is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    /// The servers by number; one that is not here is [`Server::ABSENT`].
    pub servers: BTreeMap<Index, Server>,
    /// Members with a vote that are old selves of our servers: their data are gone.
    pub dead_voters: u32,
    /// Members with a vote that are not ours, of whom nothing is known.
    pub strangers: u32,
    /// A leader with a quorum answers; only then is who is a member known.
    pub has_leader: bool,
}

/// A step that is safe now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the first server, which begins the cluster.
    Begin,
    /// Make a server, on a machine of its own, which joins.
    Create(Index),
    /// Start one whose job was stopped, where it was.
    Start(Index),
    /// Give a server its new description: it restarts.
    Update(Index),
    /// Take the old selves of servers out of the membership.
    Forget,
    /// Take a server out of the membership.
    Remove(Index),
    /// Make a server anew on another machine; it is no member.
    Move(Index),
    /// End a server that is no member, with its data.
    End(Index),
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// All is as it should be.
    Done,
    /// Do this, and look again.
    Do(Step),
    /// Look again later; for whom it waits.
    Wait(Wait),
    /// Nothing can be done that would be safe.
    Refuse(Refusal),
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A leader.
    Leader,
    /// This server, until it answers.
    Answer(Index),
    /// This server, until it has a vote.
    Vote(Index),
    /// This server, until it has what the leader has.
    CatchUp(Index),
}

/// Why nothing is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Taking this server away would leave fewer than a quorum.
    Quorum {
        /// Which.
        server: Index,
        /// Members with a vote.
        voters: u32,
        /// Those that are well.
        well: u32,
    },
    /// The machine of the only member is lost, and its data with it.
    OnlyMember(Index),
    /// The servers run, and none knows a cluster: their data are gone.
    DataGone,
}

/// How many of `voters` must be well.
pub fn quorum(voters: u32) -> u32 {
    voters / 2 + 1
}

impl Situation {
    fn server(&self, index: Index) -> Server {
        self.servers.get(&index).copied().unwrap_or(Server::ABSENT)
    }

    /// All members with a vote.
    pub fn voters(&self) -> u32 {
        let ours = self.servers.values().filter(|one| one.is_voter).count();
        u32::try_from(ours).unwrap_or(u32::MAX) + self.dead_voters + self.strangers
    }

    /// Those of whom it is known that they are well.
    pub fn well(&self) -> u32 {
        let ours = self.servers.values().filter(|one| one.counts()).count();
        u32::try_from(ours).unwrap_or(u32::MAX)
    }

    /// Whether the others are a quorum while this one is away.
    fn spares(&self, index: Index) -> bool {
        let voters = self.voters();
        let without = self.well() - u32::from(self.server(index).counts());
        !self.server(index).is_voter || without >= quorum(voters) || voters == 1
    }

    fn refusal(&self, server: Index) -> Decision {
        Decision::Refuse(Refusal::Quorum {
            server,
            voters: self.voters(),
            well: self.well(),
        })
    }
}

/// The next step towards `count` servers with their wanted descriptions.
pub fn decide(count: u32, now: &Situation) -> Decision {
    let wanted = || (0..count).map(|index| (index, now.server(index)));
    if now.servers.values().all(|one| one.job == Job::Absent) && !now.has_leader {
        return Decision::Do(Step::Begin);
    }
    // Nobody is lost by a start, and without a quorum nothing else helps.
    if let Some((index, _)) = wanted().find(|(_, one)| one.job == Job::Stopped && !one.machine_lost)
    {
        return Decision::Do(Step::Start(index));
    }
    // Nor by a change of what does not answer: it may be what keeps it from running. One at a time,
    // since it may be well for all but this program.
    let silent = |one: &Server| one.is_present() && one.process == Process::Silent;
    let in_motion = now
        .servers
        .values()
        .any(|one| silent(one) && one.is_current());
    let mends = |one: &Server| silent(one) && !one.is_current() && !one.machine_lost;
    if let Some((index, _)) = wanted().find(|(_, one)| mends(one) && !in_motion) {
        return Decision::Do(Step::Update(index));
    }
    if !now.has_leader {
        return without_leader(count, now);
    }
    if now.dead_voters > 0 {
        return Decision::Do(Step::Forget);
    }
    if let Some(decision) = lost(count, now) {
        return decision;
    }
    // One after the other: the next waits until this one has its vote.
    for (index, one) in wanted().filter(|(_, one)| one.is_present()) {
        if let Some(decision) = settle(index, &one, now) {
            return decision;
        }
    }
    // Its old self, whose job is gone, is out by now: it would be a dead member.
    if let Some((index, one)) = wanted().find(|(_, one)| one.job == Job::Absent) {
        return match one.is_voter || one.is_learner {
            true => Decision::Do(Step::Remove(index)),
            false => Decision::Do(Step::Create(index)),
        };
    }
    // Now all are there. The leader last, so that it changes once.
    let mut outdated: Vec<(Index, Server)> =
        wanted().filter(|(_, one)| !one.is_current()).collect();
    outdated.sort_by_key(|(index, one)| (one.leads, *index));
    if let Some((index, _)) = outdated.first() {
        if now.spares(*index) {
            return Decision::Do(Step::Update(*index));
        }
        // Of two members neither can be spared, and of one it can.
        return match fewer(count, now) {
            Decision::Do(step) => Decision::Do(step),
            _ => now.refusal(*index),
        };
    }
    fewer(count, now)
}

/// What a server that is to stay needs before anything else changes.
fn settle(index: Index, one: &Server, now: &Situation) -> Option<Decision> {
    let wait = match one.process {
        Process::Silent => return Some(Decision::Wait(Wait::Answer(index))),
        Process::Answers { knows_cluster, .. } if !one.is_voter => {
            // Somebody took it out: it would wait for ever with what it has.
            if knows_cluster && !one.is_learner {
                return Some(Decision::Do(Step::Move(index)));
            }
            Wait::Vote(index)
        }
        Process::Answers { is_well: true, .. } => return None,
        Process::Answers { .. } => Wait::CatchUp(index),
    };
    // It serves nobody, so its new description costs nothing, and may be what it needs.
    Some(match !one.is_current() && now.spares(index) {
        true => Decision::Do(Step::Update(index)),
        false => Decision::Wait(wait),
    })
}

/// Who starts may make a quorum; nothing else can be done.
fn without_leader(count: u32, now: &Situation) -> Decision {
    let all = || now.servers.iter().filter(|(_, one)| one.job != Job::Absent);
    // Those that are to go are members still, and without them there may be no quorum.
    let stopped = |one: &Server| one.job == Job::Stopped && one.is_voter && !one.machine_lost;
    if let Some((index, _)) = all().find(|(index, one)| **index >= count && stopped(one)) {
        return Decision::Do(Step::Start(*index));
    }
    let running = |one: &Server| one.is_present() && !one.machine_lost;
    let silent = all().find(|(_, one)| running(one) && one.process == Process::Silent);
    if let Some((index, _)) = silent {
        return Decision::Wait(Wait::Answer(*index));
    }
    let lost = all().find(|(_, one)| one.machine_lost);
    if let (Some((index, _)), 1) = (lost, all().count()) {
        return Decision::Refuse(Refusal::OnlyMember(*index));
    }
    let may_come = all().any(|(_, one)| {
        let begins = matches!(one.job, Job::Present { begins: true, .. });
        let knows = matches!(
            one.process,
            Process::Answers {
                knows_cluster: true,
                ..
            }
        );
        begins || knows || one.machine_lost
    });
    match may_come {
        true => Decision::Wait(Wait::Leader),
        false => Decision::Refuse(Refusal::DataGone),
    }
}

/// A server whose machine is gone: out of the membership, then anew elsewhere.
fn lost(count: u32, now: &Situation) -> Option<Decision> {
    let (index, one) = (0..count)
        .map(|index| (index, now.server(index)))
        .find(|(_, one)| one.machine_lost && one.job != Job::Absent)?;
    Some(match (one.is_voter || one.is_learner, now.voters()) {
        (false, _) => Decision::Do(Step::Move(index)),
        (true, 1) if one.is_voter => Decision::Refuse(Refusal::OnlyMember(index)),
        (true, _) if now.spares(index) => Decision::Do(Step::Remove(index)),
        (true, _) => now.refusal(index),
    })
}

/// Those beyond the count: dead members first, since they count against the others, then the last;
/// each out of the membership before it is stopped.
fn fewer(count: u32, now: &Situation) -> Decision {
    let beyond = now
        .servers
        .iter()
        .rev()
        .filter(|(index, _)| **index >= count);
    let is_there = |one: &Server| one.job != Job::Absent || one.is_voter || one.is_learner;
    let mut beyond: Vec<_> = beyond.filter(|(_, one)| is_there(one)).collect();
    beyond.sort_by_key(|(_, one)| one.counts());
    let Some((index, one)) = beyond.first() else {
        return Decision::Done;
    };
    let is_member = one.is_voter || one.is_learner;
    match is_member {
        false => Decision::Do(Step::End(**index)),
        true if !one.is_voter => Decision::Do(Step::Remove(**index)),
        true => {
            let left = now.voters() - 1;
            let well = now.well() - u32::from(one.counts());
            match left > 0 && well >= quorum(left) {
                true => Decision::Do(Step::Remove(**index)),
                false => now.refusal(**index),
            }
        }
    }
}
