#![allow(clippy::unwrap_used)]

use rcgen::{CertificateParams, Issuer, KeyPair, SubjectPublicKeyInfo};

use super::*;
use crate::testing::TestClock;

/// How long a leaf lives, in seconds.
const LIFE: u64 = 3600;

/// Servers that sign once, and then tell when they were asked, and refuse; until they sign again.
struct Servers {
    signs: AtomicBool,
    asked: Mutex<Vec<Instant>>,
}

#[async_trait::async_trait]
impl Signer for Servers {
    async fn sign(&self, _: &str, csr: Vec<u8>) -> Result<Vec<Vec<u8>>, SignError> {
        self.asked.lock().unwrap().push(Instant::now());
        if !self.signs.load(Relaxed) {
            return Err(SignError::new("the CA is away"));
        }
        let public = mesh_tls::csr::public_key(&csr).unwrap();
        let public = SubjectPublicKeyInfo::from_der(&public).unwrap();
        let mut params = CertificateParams::default();
        params.not_after = (SystemTime::now() + Duration::from_secs(LIFE)).into();
        let signer = Issuer::new(CertificateParams::default(), KeyPair::generate().unwrap());
        Ok(vec![
            params.signed_by(&public, &signer).unwrap().der().to_vec(),
        ])
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_next_one_has_it_asked_for_by_a_back_off() {
    let folder = tempfile::tempdir().unwrap();
    let facts = Facts::open(folder.path(), mesh_policy::Features::default()).unwrap();
    let servers = Arc::new(Servers {
        signs: AtomicBool::new(true),
        asked: Mutex::default(),
    });
    let clock = Arc::new(TestClock::default());
    let leaves = Leaves::new(servers.clone(), clock, Arc::new(facts));
    let began = Instant::now();
    let first = leaves.of("pay", None, Duration::ZERO).await.unwrap();
    servers.signs.store(false, Relaxed);

    // Nobody is asked before half of its life, and then less and less often.
    let wait = Duration::from_secs(LIFE / 2 + 600);
    let same = leaves.of("pay", Some(first.index), wait).await.unwrap();
    assert_eq!(same.index, first.index);
    assert!(began.elapsed() >= wait);
    let asked: Vec<f64> = (servers.asked.lock().unwrap().iter())
        .map(|at| at.duration_since(began).as_secs_f64())
        .collect();
    assert!((1615.0..1985.0).contains(&asked[1]), "{asked:?}");
    let waits: Vec<f64> = asked[1..]
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .collect();
    let most = [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0];
    for (wait, most) in waits.iter().zip(most) {
        assert!((most / 2.0 - 0.1..=most + 0.1).contains(wait), "{waits:?}");
    }
    assert!((9..35).contains(&waits.len()), "{waits:?}");

    // Who wants what there is gets it, and a try is made for each.
    let tries = servers.asked.lock().unwrap().len();
    let there = leaves.of("pay", None, Duration::ZERO).await.unwrap();
    assert_eq!(there.index, first.index);
    assert_eq!(servers.asked.lock().unwrap().len(), tries + 1);
    servers.signs.store(true, Relaxed);
    let next = leaves.of("pay", Some(first.index), wait).await.unwrap();
    assert!(next.index > first.index);
}
