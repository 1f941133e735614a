//! How one entry stands on disk: a version, a checksum, a protobuf message. redb
//! checks its pages only when it recovers, so a byte that turned on the disk would
//! else be applied as if it were the truth.

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::codec::{self, CodecError};
use crate::pb;
use crate::types::Entry;

/// The version of a record that this program writes.
pub(crate) const VERSION: u8 = 1;
const SUM: usize = 8;

/// Why a record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("version {0}")]
    Version(u8),
    #[error("it is cut off")]
    Short,
    #[error("its checksum does not match")]
    Checksum,
    #[error("it holds entry {0}")]
    Index(u64),
    #[error(transparent)]
    Codec(#[from] CodecError),
}

pub(crate) fn encode(entry: &Entry) -> Vec<u8> {
    let message = codec::entry_out(entry);
    let mut out = Vec::with_capacity(1 + SUM + message.encoded_len());
    out.push(VERSION);
    out.extend_from_slice(&[0; SUM]);
    out.extend_from_slice(&message.encode_to_vec());
    let (head, body) = out.split_at_mut(1 + SUM);
    if let Some(place) = head.get_mut(1..) {
        place.copy_from_slice(&sum(entry.log_id.index, body));
    }
    out
}

/// Decodes the record that stands at `index`.
pub(crate) fn decode(index: u64, record: Bytes) -> Result<Entry, RecordError> {
    match record.first() {
        None => return Err(RecordError::Short),
        Some(&VERSION) => {}
        Some(&other) => return Err(RecordError::Version(other)),
    }
    let Some(found) = record.get(1..1 + SUM) else {
        return Err(RecordError::Short);
    };
    let body = record.slice(1 + SUM..);
    if found != sum(index, &body) {
        return Err(RecordError::Checksum);
    }
    let entry = codec::entry_in(codec::decode::<pb::Entry>(&body)?)?;
    if entry.log_id.index != index {
        return Err(RecordError::Index(entry.log_id.index));
    }
    Ok(entry)
}

/// Over the index too: a record that ended up in another's place is not taken.
fn sum(index: u64, body: &[u8]) -> [u8; SUM] {
    let mut hash = Sha256::new();
    hash.update([VERSION]);
    hash.update(index.to_be_bytes());
    hash.update(body);
    let mut out = [0; SUM];
    for (to, from) in out.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::types::{Batch, LogId, Membership, PeerNode};
    use openraft::{CommittedLeaderId, EntryPayload};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn entry(index: u64, payload: EntryPayload<crate::types::TypeConfig>) -> Entry {
        Entry {
            log_id: LogId::new(CommittedLeaderId::new(3, 7), index),
            payload,
        }
    }

    fn batch(commands: &[Vec<u8>]) -> EntryPayload<crate::types::TypeConfig> {
        EntryPayload::Normal(Batch::from(commands.to_vec()))
    }

    #[test]
    fn every_payload_comes_back() {
        let nodes = BTreeMap::from([(
            9,
            PeerNode {
                name: "nine".into(),
                addr: "h:1".into(),
            },
        )]);
        let joint = Membership::new(vec![BTreeSet::from([9]), BTreeSet::from([9, 10])], nodes);
        for payload in [
            EntryPayload::Blank,
            batch(&[]),
            batch(&[vec![], vec![1, 2, 3]]),
            EntryPayload::Membership(joint),
        ] {
            let entry = entry(5, payload);
            assert_eq!(decode(5, encode(&entry).into()).unwrap(), entry);
        }
    }

    /// Old logs are read for ever: no line here may change once it is released.
    #[test]
    fn the_form_is_kept() {
        let nodes = BTreeMap::from([(
            9,
            PeerNode {
                name: "nine".into(),
                addr: "h:1".into(),
            },
        )]);
        let joint = Membership::new(vec![BTreeSet::from([9]), BTreeSet::from([9, 10])], nodes);
        let payloads = [
            EntryPayload::Blank,
            batch(&[b"a".to_vec(), b"bc".to_vec()]),
            EntryPayload::Membership(joint),
        ];
        let records = payloads.map(|payload| {
            let record = encode(&entry(5, payload));
            let hex = record.iter().map(|byte| format!("{byte:02x}"));
            hex.collect::<String>()
        });
        assert_eq!(
            records,
            [
                "01ebef2fb793eb72ef0a060803100718051200",
                "018cb4df8115a6182c0a060803100718051a070a01610a026263",
                "012d4797f15cabb50d0a06080310071805221e0a030a01090a040a02090a120d080912046e696e651a03683a311202080a",
            ]
        );
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut record = encode(&entry(5, EntryPayload::Blank));
        record[0] = 2;
        assert_eq!(decode(5, record.into()), Err(RecordError::Version(2)));
    }

    #[test]
    fn an_entry_of_a_new_kind_is_unknown_not_blank() {
        // Field 15 of an entry, as a newer server might write it.
        let mut body = pb::Entry {
            id: Some(pb::LogId::default()),
            payload: None,
        }
        .encode_to_vec();
        body.extend_from_slice(&[0x7a, 0x00]);
        let mut record = vec![VERSION];
        record.extend_from_slice(&sum(0, &body));
        record.extend_from_slice(&body);
        assert_eq!(
            decode(0, record.into()),
            Err(CodecError::Unknown("the entry's payload").into())
        );
    }

    #[test]
    fn a_record_in_anothers_place_is_refused() {
        let record = encode(&entry(5, EntryPayload::Blank));
        assert_eq!(decode(6, record.into()), Err(RecordError::Checksum));
    }

    proptest! {
        #[test]
        fn noise_is_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200), index: u64) {
            prop_assert!(decode(index, bytes.into()).is_err());
        }

        #[test]
        fn any_flip_or_cut_is_an_error(
            commands in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..5),
            at: proptest::sample::Index,
            bit in 0u8..8,
            cut: bool,
        ) {
            let mut record = encode(&entry(11, batch(&commands)));
            let at = at.index(record.len());
            if cut {
                record.truncate(at);
            } else {
                record[at] ^= 1 << bit;
            }
            prop_assert!(decode(11, record.into()).is_err());
        }
    }
}
