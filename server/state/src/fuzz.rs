//! What must hold of any bytes: fuzz targets as plain functions. They panic
//! when it does not; a test replays a corpus through them.

use crate::command::{Command, Envelope, LEVEL};
use crate::state::State;

/// Reads `data` as a snapshot. What can be read can be written and read again.
pub fn snapshot(data: &[u8]) {
    let summary = crate::inspect(data);
    if let Ok(state) = State::read_snapshot(data) {
        assert!(summary.is_ok(), "inspect refuses what can be read");
        round_trip(&state);
    }
}

/// Reads `data` as a command, and applies it twice to a cluster. Whether it is
/// one.
pub fn command(data: &[u8]) -> bool {
    let Ok(envelope) = Envelope::decode(data, LEVEL) else {
        return false;
    };
    if let Ok(bytes) = envelope.encode() {
        let again = Envelope::decode(&bytes, LEVEL);
        assert_eq!(
            again.as_ref(),
            Ok(&envelope),
            "a command changes on its way"
        );
    }
    let mut state = State::new();
    state.apply(&[Envelope::new(
        1,
        Command::Bootstrap {
            cluster_id: "c".to_owned(),
            trust_domain: "c.mesh".to_owned(),
            datacenter: "dc1".to_owned(),
            epoch: "e".to_owned(),
            default_intention: mesh_model::Action::Deny,
        },
    )]);
    for _ in 0..2 {
        state.apply(std::slice::from_ref(&envelope));
        round_trip(&state);
    }
    true
}

fn round_trip(state: &State) {
    let bytes = state.to_snapshot().unwrap_or_default();
    match State::read_snapshot(bytes.as_slice()) {
        Ok(again) => assert!(again == *state, "a snapshot changes the state"),
        Err(error) => panic!("a snapshot of ours cannot be read: {error}"),
    }
}
