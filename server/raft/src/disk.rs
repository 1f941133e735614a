//! The JSON of what is kept on disk beside log entries. openraft's own serde forms
//! may change with its versions; these do not.

use std::collections::{BTreeMap, BTreeSet};

use openraft::CommittedLeaderId;
use serde::{Deserialize, Serialize};

use crate::config::Peer;
use crate::snapshot::Header;
use crate::types::{LogId, Membership, PeerNode, StoredMembership, Vote};

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct DiskLogId {
    term: u64,
    node: u64,
    index: u64,
}

impl From<LogId> for DiskLogId {
    fn from(id: LogId) -> Self {
        Self {
            term: id.leader_id.term,
            node: id.leader_id.node_id,
            index: id.index,
        }
    }
}

impl From<DiskLogId> for LogId {
    fn from(id: DiskLogId) -> Self {
        Self::new(CommittedLeaderId::new(id.term, id.node), id.index)
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct DiskVote {
    term: u64,
    node: u64,
    committed: bool,
}

impl From<Vote> for DiskVote {
    fn from(vote: Vote) -> Self {
        Self {
            term: vote.leader_id.term,
            node: vote.leader_id.node_id,
            committed: vote.committed,
        }
    }
}

impl From<DiskVote> for Vote {
    fn from(vote: DiskVote) -> Self {
        let mut out = Self::new(vote.term, vote.node);
        if vote.committed {
            out.commit();
        }
        out
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct DiskMembership {
    log_id: Option<DiskLogId>,
    /// Voters; two sets while a change was under way.
    configs: Vec<BTreeSet<u64>>,
    nodes: Vec<Peer>,
}

impl From<StoredMembership> for DiskMembership {
    fn from(stored: StoredMembership) -> Self {
        let membership = stored.membership();
        Self {
            log_id: stored.log_id().map(DiskLogId::from),
            configs: membership.get_joint_config().clone(),
            nodes: membership.nodes().map(|(id, n)| n.peer(*id)).collect(),
        }
    }
}

impl From<DiskMembership> for StoredMembership {
    fn from(disk: DiskMembership) -> Self {
        let nodes: BTreeMap<u64, PeerNode> = disk
            .nodes
            .iter()
            .map(|peer| (peer.id, PeerNode::from(peer)))
            .collect();
        let membership = if disk.configs.is_empty() && nodes.is_empty() {
            Membership::default()
        } else {
            Membership::new(disk.configs, nodes)
        };
        Self::new(disk.log_id.map(LogId::from), membership)
    }
}

/// The header of a snapshot file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DiskHeader {
    id: String,
    last: Option<DiskLogId>,
    membership: DiskMembership,
    machine_format: u32,
}

impl From<Header> for DiskHeader {
    fn from(header: Header) -> Self {
        Self {
            id: header.id,
            last: header.last.map(DiskLogId::from),
            membership: header.membership.into(),
            machine_format: header.machine_format,
        }
    }
}

impl From<DiskHeader> for Header {
    fn from(disk: DiskHeader) -> Self {
        Self {
            id: disk.id,
            last: disk.last.map(LogId::from),
            membership: disk.membership.into(),
            machine_format: disk.machine_format,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;

    fn same<T: Serialize + DeserializeOwned>(value: T, text: &str) -> T {
        assert_eq!(serde_json::to_string(&value).unwrap(), text);
        serde_json::from_str(text).unwrap()
    }

    /// What old versions wrote is read for ever: no text here may change once it is
    /// released.
    #[test]
    fn the_forms_are_kept() {
        let id = LogId::new(CommittedLeaderId::new(3, 7), 5);
        let back = same(DiskLogId::from(id), r#"{"term":3,"node":7,"index":5}"#);
        assert_eq!(LogId::from(back), id);
        let mut vote = Vote::new(3, 7);
        let open = r#"{"term":3,"node":7,"committed":false}"#;
        assert_eq!(Vote::from(same(DiskVote::from(vote), open)), vote);
        vote.commit();
        let committed = r#"{"term":3,"node":7,"committed":true}"#;
        assert_eq!(Vote::from(same(DiskVote::from(vote), committed)), vote);

        let nodes = BTreeMap::from([(
            9,
            PeerNode {
                name: "nine".into(),
                addr: "h:1".into(),
            },
        )]);
        let joint = Membership::new(vec![BTreeSet::from([9]), BTreeSet::from([9, 10])], nodes);
        let header = Header {
            id: "3-7-5".into(),
            last: Some(id),
            membership: StoredMembership::new(Some(id), joint),
            machine_format: 1,
        };
        let text = r#"{"id":"3-7-5","last":{"term":3,"node":7,"index":5},"membership":{"log_id":{"term":3,"node":7,"index":5},"configs":[[9],[9,10]],"nodes":[{"id":9,"name":"nine","addr":"h:1"},{"id":10,"name":"","addr":""}]},"machine_format":1}"#;
        let back = Header::from(same(DiskHeader::from(header.clone()), text));
        assert_eq!(back.membership, header.membership);
        let empty = Header {
            id: "empty".into(),
            last: None,
            membership: StoredMembership::default(),
            machine_format: 1,
        };
        let text = r#"{"id":"empty","last":null,"membership":{"log_id":null,"configs":[],"nodes":[]},"machine_format":1}"#;
        let back = Header::from(same(DiskHeader::from(empty.clone()), text));
        assert_eq!(back.membership, empty.membership);
    }
}
