//! Damaged and random input: an error, never a panic, never something else signed.

use std::sync::OnceLock;
use std::time::SystemTime;

use mesh_tls::LeafKey;
use proptest::prelude::*;

use super::{DAY, fixed, new_state, sealing, service};
use crate::cluster::{CA_TTL, ClusterCa, Pair, create_ca};
use crate::{
    BuiltIn, CaState, LeafRequest, RootEntry, SealingKey, renew_intermediate, renewal_due,
};

struct Good {
    sealing: SealingKey,
    state: String,
    csr: Vec<u8>,
    public_key: Vec<u8>,
    cluster: Pair,
}

fn good() -> &'static Good {
    static GOOD: OnceLock<Good> = OnceLock::new();
    GOOD.get_or_init(|| {
        let (sealing, now, key) = (sealing(), SystemTime::now(), LeafKey::generate().unwrap());
        Good {
            state: serde_json::to_string(&new_state(&sealing, now)).unwrap(),
            sealing,
            csr: key.csr().unwrap(),
            public_key: key.public_key(),
            cluster: create_ca("", CA_TTL, now).unwrap(),
        }
    })
}

fn damaged(good: &[u8], changes: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for (at, value) in changes {
        let at = at % bytes.len();
        bytes[at] = *value;
    }
    bytes
}

fn changes() -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec((any::<usize>(), any::<u8>()), 1..4)
}

proptest! {
    #[test]
    fn a_damaged_state_opens_wholly_or_not_at_all(changes in changes()) {
        let good = good();
        let bytes = damaged(good.state.as_bytes(), &changes);
        if let Ok(state) = serde_json::from_slice::<CaState>(&bytes) {
            let now = SystemTime::now();
            let _ = renewal_due(&state, now);
            let _ = renew_intermediate(&state, &good.sealing, now);
            let _ = BuiltIn::open(&state, &good.sealing, fixed(now));
        }
    }

    #[test]
    fn a_damaged_request_asks_for_no_other_key(changes in changes()) {
        let good = good();
        let bytes = damaged(&good.csr, &changes);
        if let Ok(request) = LeafRequest::from_csr(&bytes, service("a"), DAY) {
            prop_assert_eq!(request.public_key(), good.public_key.as_slice());
        }
    }

    #[test]
    fn a_damaged_cluster_ca_makes_no_panic(changes in changes(), key_too in any::<bool>()) {
        let good = good();
        let cert = damaged(good.cluster.certificate.as_bytes(), &changes);
        let key = if key_too {
            damaged(good.cluster.key.as_str().as_bytes(), &changes)
        } else {
            good.cluster.key.as_str().into()
        };
        if let (Ok(cert), Ok(key)) = (String::from_utf8(cert), String::from_utf8(key)) {
            let _ = ClusterCa::from_pem(&cert, &key);
        }
    }

    #[test]
    fn random_bytes_are_no_root(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(RootEntry::from_der(&bytes.into(), true).is_err());
    }
}
