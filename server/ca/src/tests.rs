//! What this crate promises. Leaves and chains are judged by others: webpki through whole
//! handshakes of `mesh-tls`, and OpenSSL where the machine has it.

#![allow(clippy::unwrap_used)]

mod aws;
mod builtin;
mod cluster;
mod cross;
mod import;
mod judge;
mod keyring;
mod malformed;
mod rotation;
mod seal;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_tls::{LeafKey, SpiffeId};

use crate::{BuiltIn, CaConfig, CaState, Clock, LeafRequest, SealingKey, create};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn sealing() -> SealingKey {
    SealingKey::generate().unwrap()
}

fn fixed(now: SystemTime) -> Clock {
    Arc::new(move || now)
}

fn new_state(sealing: &SealingKey, now: SystemTime) -> CaState {
    let domain = "test.mesh".parse().unwrap();
    create(&domain, "dc1", CaConfig::default(), sealing, now).unwrap()
}

/// A CA made just now, open.
fn new_ca() -> (CaState, BuiltIn) {
    let (sealing, now) = (sealing(), SystemTime::now());
    let state = new_state(&sealing, now);
    let open = BuiltIn::open(&state, &sealing, Arc::new(SystemTime::now)).unwrap();
    (state, open)
}

fn service(name: &str) -> SpiffeId {
    SpiffeId::new(&"test.mesh".parse().unwrap(), "default", "dc1", name).unwrap()
}

fn request(key: &LeafKey, name: &str, ttl: Duration) -> LeafRequest {
    LeafRequest::from_csr(&key.csr().unwrap(), service(name), ttl).unwrap()
}

fn unix(time: SystemTime) -> u64 {
    crate::x509::unix(time)
}

/// What OpenSSL prints, or nothing where there is no OpenSSL. Panics when it refuses.
fn openssl(arguments: &[&str], folder: &Path) -> Option<String> {
    let run = Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .output();
    let output = match run {
        Ok(output) => output,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        Err(e) => panic!("openssl: {e}"),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "openssl {arguments:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    Some(text(&output.stdout))
}
