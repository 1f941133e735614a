//! Taking over a root and an intermediate that somebody has already.
//!
//! What is given is one chain, lowest first and the root last, and the private key of its first
//! certificate. Where that is the root itself, the servers make intermediates of it as they do of
//! their own. Where it is an intermediate, the root's key may be given too, or stay away: then
//! nobody here can make the next intermediate, and it is imported in its time, by the same way
//! and without a change of the root.
//!
//! A chain that does not fit is found here, while the one who has it looks, and not by a sidecar.

mod chain;

pub(crate) use chain::signed_by;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use mesh_tls::pem::{self, PrivateKey};
use mesh_tls::{TlsError, TrustDomain};
use rcgen::PublicKeyData as _;
use rustls_pki_types::CertificateDer;

use crate::builtin::{BuiltIn, INTERMEDIATE_KEY, ROOT_KEY, renew_intermediate};
use crate::error::CaError;
use crate::key::CaKey;
use crate::seal::SealingKey;
use crate::state::{BUILT_IN, CaConfig, CaState, IntermediateEntry, RootEntry};
use crate::x509;

/// What a key is called in errors.
const KEY: &str = "private key";
const THE_ROOTS_KEY: &str = "the root's private key";

/// A chain and its keys, as they were given. Nothing of a key prints.
pub struct Import {
    /// Lowest first, the root last.
    chain: Vec<CertificateDer<'static>>,
    /// Of the first of them.
    key: PrivateKey,
    /// Of the root, where that is not the first.
    root_key: Option<PrivateKey>,
}

impl fmt::Debug for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Import")
            .field("certificates", &self.chain.len())
            .finish_non_exhaustive()
    }
}

impl Import {
    /// From PEM texts: the certificates, lowest first and the root last; the key of the first; and
    /// the root's, where it is given and is another one. Whether they fit is seen by [`import`].
    ///
    /// # Errors
    /// When a text is not PEM of what it should be.
    pub fn from_pem(
        certificates: &[u8],
        key: &[u8],
        root_key: Option<&[u8]>,
    ) -> Result<Self, CaError> {
        Ok(Self {
            chain: pem::certificates("certificates", certificates).map_err(input("import"))?,
            key: pem::private_key(KEY, key).map_err(input("import"))?,
            root_key: root_key
                .map(|key| pem::private_key(THE_ROOTS_KEY, key))
                .transpose()
                .map_err(input("import"))?,
        })
    }

    /// The same from files.
    ///
    /// # Errors
    /// When one cannot be read, or is not PEM of what it should be; the file is named.
    pub fn from_files(
        certificates: &Path,
        key: &Path,
        root_key: Option<&Path>,
    ) -> Result<Self, CaError> {
        let error = input("ca: import");
        Ok(Self {
            chain: pem::read_certificates(certificates).map_err(&error)?,
            key: pem::read_private_key(key).map_err(&error)?,
            root_key: root_key
                .map(pem::read_private_key)
                .transpose()
                .map_err(&error)?,
        })
    }
}

fn input(what: &'static str) -> impl Fn(TlsError) -> CaError {
    move |error| CaError::input(what, error)
}

/// The CA that a chain makes: a built-in one, whose root's key may be missing
/// ([`CaState::renews`]).
///
/// # Errors
/// When the chain, its keys and the trust domain do not fit together, when something of it ends
/// too soon, or when no peer would take what it signs. Each error names the certificate and what
/// to do.
pub fn import(
    domain: &TrustDomain,
    dc: &str,
    config: CaConfig,
    given: &Import,
    sealing: &SealingKey,
    now: SystemTime,
) -> Result<CaState, CaError> {
    chain::check(&given.chain, domain, config.leaf_ttl().as_secs(), now)?;
    let [first, .., root] = given.chain.as_slice() else {
        // One certificate: the root itself.
        return of_a_root(domain, dc, config, given, sealing, now);
    };
    let key = fitting(KEY, &given.key, "certificate 1", first)?;
    let above = given.chain.get(1..given.chain.len() - 1);
    let mut state = with_root(domain, dc, config, root, sealing)?;
    if let Some(root_key) = &given.root_key {
        let what = format!("certificate {}", given.chain.len());
        let key = fitting(THE_ROOTS_KEY, root_key, &what, root)?;
        seal_root(&mut state, &key, sealing)?;
    }
    let seen = x509::read("certificate 1", first)?;
    // What it signs is good for as long as all of the chain is.
    let mut not_after = seen.not_after;
    for der in &given.chain {
        not_after = not_after.min(x509::read("certificate", der)?.not_after);
    }
    state.intermediate = Some(IntermediateEntry {
        root: state
            .roots
            .first()
            .map_or_else(String::new, |root| root.id.clone()),
        pem: x509::certificate_pem(first),
        above: above
            .unwrap_or_default()
            .iter()
            .map(|der| x509::certificate_pem(der))
            .collect(),
        key: Some(sealing.seal(INTERMEDIATE_KEY, &seen.fingerprint, &key.to_pkcs8()?)?),
        vault: None,
        not_before: seen.not_before,
        not_after,
        id: seen.fingerprint,
    });
    works(&state, sealing, now)?;
    Ok(state)
}

/// Of a root that is given alone, with its key.
fn of_a_root(
    domain: &TrustDomain,
    dc: &str,
    config: CaConfig,
    given: &Import,
    sealing: &SealingKey,
    now: SystemTime,
) -> Result<CaState, CaError> {
    let Some(root) = given.chain.first() else {
        return Err(CaError::input("certificates", "there is none"));
    };
    if given.root_key.is_some() {
        let reason = "the one certificate is the root, and its key is given twice; leave the \
                      root's key out";
        return Err(CaError::input(THE_ROOTS_KEY, reason));
    }
    let key = fitting(KEY, &given.key, "certificate 1", root)?;
    let mut state = with_root(domain, dc, config, root, sealing)?;
    seal_root(&mut state, &key, sealing)?;
    let state = renew_intermediate(&state, sealing, now)?;
    works(&state, sealing, now)?;
    Ok(state)
}

fn with_root(
    domain: &TrustDomain,
    dc: &str,
    config: CaConfig,
    root: &CertificateDer<'_>,
    sealing: &SealingKey,
) -> Result<CaState, CaError> {
    Ok(CaState {
        provider: BUILT_IN.to_owned(),
        trust_domain: domain.to_string(),
        dc: dc.to_owned(),
        roots: vec![RootEntry::from_der(root, true)?],
        intermediate: None,
        root_key: None,
        config: CaConfig {
            vault: None,
            ..config
        },
        rotation: None,
        reissue_seconds: 0,
        sealing: sealing.sealed_with(),
    })
}

fn seal_root(state: &mut CaState, key: &CaKey, sealing: &SealingKey) -> Result<(), CaError> {
    if let Some(root) = state.roots.first() {
        state.root_key = Some(sealing.seal(ROOT_KEY, &root.id, &key.to_pkcs8()?)?);
    }
    Ok(())
}

/// A key, once it is seen to be the one of a certificate.
fn fitting(
    what: &str,
    key: &PrivateKey,
    of: &str,
    certificate: &CertificateDer<'_>,
) -> Result<CaKey, CaError> {
    let key = CaKey::from_der(what, &key.copy())?;
    let seen = x509::read(of, certificate)?;
    if seen.public_key == key.subject_public_key_info() {
        return Ok(key);
    }
    Err(CaError::input(
        what,
        format!(
            "it is not the key of {of} ({}); the first certificate must be the one whose key is \
             given, the root the last",
            seen.subject
        ),
    ))
}

/// What opens signs a leaf and sees whether a peer would take it.
fn works(state: &CaState, sealing: &SealingKey, now: SystemTime) -> Result<(), CaError> {
    BuiltIn::open(state, sealing, Arc::new(move || now)).map(drop)
}
