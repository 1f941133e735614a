//! What to do, by what the other servers said: a pure function, since a wrong step here makes two
//! clusters.

use mesh_raft::Peer;

use crate::options::Formation;

/// What a server that was asked said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) peer: Peer,
    /// It belongs to a cluster; where to ask for being taken in.
    pub(crate) cluster: Option<String>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask this address to be taken in.
    Join(String),
    /// Make the cluster, of these.
    Make(Vec<Peer>),
    /// Not yet; why, for the log.
    Wait(String),
}

/// `me` belongs to no cluster; `seen` are the others that answered.
pub(crate) fn decide(me: &Peer, formation: Formation, seen: &[Seen]) -> Step {
    if let Some(address) = seen.iter().find_map(|one| one.cluster.clone()) {
        return Step::Join(address);
    }
    let expect = match formation {
        Formation::Join => {
            return Step::Wait("no server that is known belongs to a cluster".to_owned());
        }
        Formation::Bootstrap => return Step::Make(vec![me.clone()]),
        Formation::Expect(expect) => expect.max(1),
    };
    let mut all: Vec<Peer> = vec![me.clone()];
    all.extend(seen.iter().map(|one| one.peer.clone()));
    all.sort_by_key(|peer| peer.id);
    all.dedup_by_key(|peer| peer.id);
    if all.len() < expect {
        let count = all.len();
        return Step::Wait(format!("{count} of {expect} servers are there"));
    }
    if all.len() > expect {
        // Two of them could see different sets, and make a cluster each.
        let count = all.len();
        return Step::Wait(format!(
            "{count} servers are there, more than bootstrap_expect ({expect}): set it to {count}"
        ));
    }
    match all.first() {
        Some(first) if first.id == me.id => Step::Make(all),
        Some(first) => Step::Wait(format!("server {first} makes the cluster")),
        None => Step::Wait("no server is there".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn peer(id: u64) -> Peer {
        Peer {
            id,
            name: format!("s{id}"),
            addr: format!("10.0.0.{id}:8701"),
        }
    }

    fn seen(id: u64, cluster: Option<&str>) -> Seen {
        Seen {
            peer: peer(id),
            cluster: cluster.map(str::to_owned),
        }
    }

    #[test]
    fn a_cluster_that_is_there_is_joined_whatever_was_asked_for() {
        let others = [seen(2, None), seen(3, Some("10.0.0.3:8701"))];
        for formation in [Formation::Bootstrap, Formation::Expect(3), Formation::Join] {
            let step = decide(&peer(1), formation, &others);
            assert_eq!(step, Step::Join("10.0.0.3:8701".to_owned()));
        }
    }

    #[test]
    fn the_lowest_of_all_expected_makes_it() {
        let make = decide(
            &peer(1),
            Formation::Expect(3),
            &[seen(3, None), seen(2, None)],
        );
        assert_eq!(make, Step::Make(vec![peer(1), peer(2), peer(3)]));
        let wait = decide(
            &peer(2),
            Formation::Expect(3),
            &[seen(3, None), seen(1, None)],
        );
        assert!(matches!(wait, Step::Wait(_)));
    }

    #[test]
    fn nobody_makes_it_of_fewer_or_more() {
        let few = decide(
            &peer(1),
            Formation::Expect(3),
            &[seen(2, None), seen(2, None)],
        );
        assert_eq!(few, Step::Wait("2 of 3 servers are there".to_owned()));
        let four: Vec<Seen> = (2..=4).map(|id| seen(id, None)).collect();
        let many = decide(&peer(1), Formation::Expect(3), &four);
        assert!(matches!(many, Step::Wait(why) if why.contains("set it to 4")));
        let join = decide(&peer(1), Formation::Join, &[seen(2, None)]);
        assert!(matches!(join, Step::Wait(_)));
    }

    #[test]
    fn one_alone() {
        let alone = decide(&peer(1), Formation::Bootstrap, &[]);
        assert_eq!(alone, Step::Make(vec![peer(1)]));
        let one = decide(&peer(1), Formation::Expect(1), &[]);
        assert_eq!(one, Step::Make(vec![peer(1)]));
    }
}
