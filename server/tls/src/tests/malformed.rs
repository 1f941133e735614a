//! What comes from outside: requests, proofs, certificates; good, wrong and damaged.

use std::sync::OnceLock;
use std::time::SystemTime;

use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, PublicKeyData, SanType};
use rustls_pki_types::CertificateDer;

use crate::csr::{CsrError, MAX_CSR, public_key, sign_nonce, verify_nonce};
use crate::testing::{Ca, service};
use crate::{Credential, Leaf, LeafKey, Trust, pem};

#[test]
fn a_request_gives_its_key_and_nothing_else() {
    let key = LeafKey::generate().unwrap();
    assert_eq!(public_key(&key.csr().unwrap()).unwrap(), key.public_key());
}

#[test]
fn every_kind_of_key_that_is_named_works_and_no_other() {
    let spki = |algorithm| {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::default();
        // Names that somebody would like to have.
        params.subject_alt_names = vec![SanType::URI(service("payment").try_into().unwrap())];
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let request = params.serialize_request(&key).unwrap();
        (public_key(request.der()), key.subject_public_key_info())
    };
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
        &rcgen::PKCS_RSA_SHA512,
    ] {
        let (found, made) = spki(algorithm);
        assert_eq!(found.unwrap(), made);
    }
    let (p521, _) = spki(&rcgen::PKCS_ECDSA_P521_SHA512);
    assert!(matches!(p521, Err(CsrError::Key(_))), "{p521:?}");
    // OpenSSL made this one: RSA of 1024 bits.
    let weak = public_key(include_bytes!("../../corpus/csr/rsa1024.der"));
    assert_eq!(weak, Err(CsrError::Key("an RSA key of 1024 bits".into())));
}

#[test]
fn a_request_signed_by_another_key_is_refused() {
    struct Forger(LeafKey, KeyPair);
    impl PublicKeyData for Forger {
        fn der_bytes(&self) -> &[u8] {
            self.1.der_bytes()
        }
        fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
            &rcgen::PKCS_ECDSA_P256_SHA256
        }
    }
    impl rcgen::SigningKey for Forger {
        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
            // A good signature, by the wrong key.
            Ok(sign_nonce(&self.0, "x", message).unwrap())
        }
    }
    let forger = Forger(LeafKey::generate().unwrap(), KeyPair::generate().unwrap());
    let request = CertificateParams::default().serialize_request(&forger);
    let refused = public_key(request.unwrap().der());
    assert_eq!(refused, Err(CsrError::Signature));
}

#[test]
fn a_request_is_bounded_and_has_nothing_behind_it() {
    let mut csr = LeafKey::generate().unwrap().csr().unwrap();
    csr.push(0);
    assert_eq!(public_key(&csr), Err(CsrError::Malformed));
    let large = vec![0x30; MAX_CSR + 1];
    assert_eq!(public_key(&large), Err(CsrError::TooLarge(MAX_CSR + 1)));
    assert_eq!(public_key(&[]), Err(CsrError::Malformed));
}

#[test]
fn a_proof_is_for_one_key_one_proxy_and_one_nonce() {
    let (key, other) = (LeafKey::generate().unwrap(), LeafKey::generate().unwrap());
    let spki = key.public_key();
    let proof = sign_nonce(&key, "proxy-1", b"nonce").unwrap();
    assert_eq!(verify_nonce(&spki, "proxy-1", b"nonce", &proof), Ok(()));
    for (spki, context, nonce) in [
        (&other.public_key(), "proxy-1", b"nonce".as_slice()),
        (&spki, "proxy-2", b"nonce"),
        (&spki, "proxy-1", b"nonce2"),
        (&spki, "proxy-1n", b"once"),
        (&Vec::new(), "proxy-1", b"nonce"),
    ] {
        let refused = verify_nonce(spki, context, nonce, &proof);
        assert_eq!(refused, Err(CsrError::Proof));
    }
    assert!(verify_nonce(&spki, "proxy-1", b"nonce", &[]).is_err());
}

#[test]
fn the_corpus_of_requests_is_replayed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/csr");
    let mut good = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let data = std::fs::read(&path).unwrap();
        crate::csr::fuzz(&data);
        if public_key(&data).is_ok() {
            good.push(path.file_stem().unwrap().to_string_lossy().into_owned());
        }
    }
    good.sort();
    assert_eq!(good, ["ed25519", "p256", "p384-with-names", "rsa2048"]);
}

#[test]
fn the_corpus_of_certificates_is_replayed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/certificate");
    let mut read = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let data = std::fs::read(&path).unwrap();
        crate::fuzz_certificate(&data);
        for end in 0..data.len() {
            crate::fuzz_certificate(&data[..end]);
        }
        if Leaf::parse("corpus", vec![data.into()]).is_ok() {
            read.push(path.file_stem().unwrap().to_string_lossy().into_owned());
        }
    }
    read.sort();
    assert_eq!(
        read,
        ["dns-and-uri", "intermediate", "leaf", "root", "two-uris"]
    );
}

/// A CA, a leaf with its chain, and a request, made once.
struct Good {
    root: Ca,
    chain: Vec<CertificateDer<'static>>,
    csr: Vec<u8>,
    key: LeafKey,
    pem: String,
    key_pem: String,
}

fn good() -> &'static Good {
    static GOOD: OnceLock<Good> = OnceLock::new();
    GOOD.get_or_init(|| {
        let root = Ca::root("root");
        let key = LeafKey::generate().unwrap();
        let chain = root
            .intermediate("intermediate")
            .chain(&key, &[&service("a")], |_| {});
        let (pem, key_pem) = root.pem_pair(&service("a"));
        Good {
            chain,
            csr: key.csr().unwrap(),
            root,
            key,
            pem,
            key_pem,
        }
    })
}

/// A good form with some bytes changed, and perhaps cut off.
fn damaged(good: &[u8], changes: &[(usize, u8)], cut: usize) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for (at, value) in changes {
        let at = at % bytes.len();
        bytes[at] = *value;
    }
    bytes.truncate(bytes.len().saturating_sub(cut));
    bytes
}

fn damage() -> impl Strategy<Value = (Vec<(usize, u8)>, usize)> {
    let changes = prop::collection::vec((any::<usize>(), any::<u8>()), 0..4);
    (changes, prop_oneof![4 => Just(0usize), 1 => 0usize..200])
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let good = good();
        crate::csr::fuzz(&bytes);
        prop_assert!(public_key(&bytes).is_err());
        prop_assert!(verify_nonce(&bytes, "p", b"n", &bytes).is_err());
        prop_assert!(verify_nonce(&good.key.public_key(), "p", b"n", &bytes).is_err());
        let der = CertificateDer::from(bytes.clone());
        prop_assert!(Leaf::parse("leaf", vec![der.clone()]).is_err());
        prop_assert!(Trust::new("a.mesh".parse().unwrap(), "roots", std::slice::from_ref(&der)).is_err());
        prop_assert!(good.root.trust().verify(std::slice::from_ref(&der), SystemTime::now()).is_err());
        prop_assert!(good.root.trust().verify(&[good.chain[0].clone(), der], SystemTime::now()).is_err());
        prop_assert!(pem::certificates("text", &bytes).is_err());
        prop_assert!(pem::private_key("text", &bytes).is_err());
    }

    #[test]
    fn a_damaged_request_gives_no_other_key((changes, cut) in damage()) {
        let good = good();
        let csr = damaged(&good.csr, &changes, cut);
        crate::csr::fuzz(&csr);
        if let Ok(key) = public_key(&csr) {
            prop_assert_eq!(key, good.key.public_key());
        }
    }

    #[test]
    fn a_damaged_chain_gives_no_other_identity((changes, cut) in damage(), which in 0usize..2) {
        let good = good();
        let mut chain = good.chain.clone();
        chain[which] = damaged(&chain[which], &changes, cut).into();
        let _ = Leaf::parse("leaf", chain.clone());
        crate::fuzz_certificate(&chain[which]);
        if let Ok(id) = good.root.trust().verify(&chain, SystemTime::now()) {
            prop_assert_eq!(id.to_string(), service("a"));
        }
    }

    #[test]
    fn damaged_pem_never_panics_and_shows_no_key((changes, cut) in damage()) {
        let good = good();
        let cert = damaged(good.pem.as_bytes(), &changes, cut);
        let key = damaged(good.key_pem.as_bytes(), &changes, cut);
        let _ = Credential::from_pem("cert", &cert, good.key_pem.as_bytes());
        if let Err(error) = Credential::from_pem("key", good.pem.as_bytes(), &key) {
            let shown = format!("{error} {error:?}");
            prop_assert!(shown.len() < 600, "{}", shown);
        }
    }
}
