//! Inbound ports for sidecars that came without one.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, TcpListener};
use std::ops::RangeInclusive;

/// A port of the range that nobody has and that can be bound at `bind`. Begins at a place that hangs on the
/// instance's id, so that the same instance tends to get the same port on a node whose state was
/// lost, and two agents on one machine seldom want the same.
pub(crate) fn pick(
    id: &str,
    bind: IpAddr,
    range: &RangeInclusive<u16>,
    taken: &BTreeSet<u16>,
) -> Option<u16> {
    let all: Vec<u16> = range.clone().collect();
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    let begin = usize::try_from(hasher.finish() % (all.len().max(1) as u64)).unwrap_or(0);
    let (before, after) = all.split_at(begin);
    after
        .iter()
        .chain(before)
        .copied()
        .find(|port| !taken.contains(port) && is_free(bind, *port))
}

fn is_free(bind: IpAddr, port: u16) -> bool {
    TcpListener::bind((bind, port)).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_taken_or_bound_port_is_not_picked() {
        let any = IpAddr::from([0, 0, 0, 0]);
        let listener = TcpListener::bind((any, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(pick("a", any, &(port..=port), &BTreeSet::new()), None);
        drop(listener);
        assert_eq!(
            pick("a", any, &(port..=port), &BTreeSet::from([port])),
            None
        );
        assert_eq!(pick("a", any, &(port..=port), &BTreeSet::new()), Some(port));
    }
}
