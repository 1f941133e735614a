//! The built-in CA: a root that is made once, an intermediate that it signs, leaves that the
//! intermediate signs.
//!
//! The root's key is needed once a year, for the next intermediate; only the intermediate's is
//! ever in a server's memory for long. Everything here is a function from state to state, or reads
//! one: the servers replicate what comes out.

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use mesh_tls::{LeafKey, SpiffeId, Trust, TrustDomain};
use rcgen::{Issuer, PublicKeyData, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateDer;

use crate::authority::{
    Authority, AuthorityError, AuthorityStatus, Clock, IssuedLeaf, LeafRequest,
};
use crate::error::CaError;
use crate::key::CaKey;
use crate::seal::SealingKey;
use crate::state::{
    AWS_PCA, BUILT_IN, CaConfig, CaState, IntermediateEntry, LeafSigning, RootEntry, VAULT, short,
};
use crate::x509::{self, END_OF_TIME, Validity};

pub(crate) const ROOT_KEY: &str = "root key";
pub(crate) const INTERMEDIATE_KEY: &str = "intermediate key";
/// CAs are valid from this long before they are made, in seconds: clocks differ.
pub(crate) const BACKDATE: u64 = 60;

/// Makes a new CA: root, intermediate, and their keys, sealed.
///
/// # Errors
/// When the crypto library fails.
pub fn create(
    domain: &TrustDomain,
    dc: &str,
    config: CaConfig,
    sealing: &SealingKey,
    now: SystemTime,
) -> Result<CaState, CaError> {
    let now_unix = x509::unix(now);
    let key = CaKey::generate(config.key_type)?;
    let validity = Validity::new(now_unix, BACKDATE, config.root_ttl_seconds, END_OF_TIME);
    let uri = authority_uri(domain.as_str());
    let name = root_name(validity.not_before, domain.as_str())?;
    // No path length: it may certify the root that follows it.
    let cert = x509::authority(&name, Some(&uri), None, validity)?
        .self_signed(&key)
        .map_err(|e| CaError::make("the root", e))?;
    let root = RootEntry::from_der(cert.der(), true)?;
    let root_key = sealing.seal(ROOT_KEY, &root.id, &key.to_pkcs8()?)?;
    let state = CaState {
        provider: BUILT_IN.to_owned(),
        trust_domain: domain.to_string(),
        dc: dc.to_owned(),
        roots: vec![root],
        intermediate: None,
        root_key: Some(root_key),
        config,
        rotation: None,
        reissue_seconds: 0,
        sealing: sealing.sealed_with(),
    };
    renew_intermediate(&state, sealing, now)
}

/// The same CA with a new intermediate. Leaves of the one before stay good: they carry it.
///
/// # Errors
/// When the state is not of a built-in CA, its root key cannot be opened or is not the root's, or
/// the root has ended.
pub fn renew_intermediate(
    state: &CaState,
    sealing: &SealingKey,
    now: SystemTime,
) -> Result<CaState, CaError> {
    let now = x509::unix(now);
    let root = state
        .active_root()
        .ok_or_else(|| CaError::state("roots", "none is active"))?;
    let what = format!("root {}", short(&root.id));
    let sealed = state.root_key.as_ref().ok_or_else(|| {
        let reason = "its key is not here, so no intermediate can be made; `meshctl ca import` \
                          takes one that it has signed elsewhere";
        CaError::state(&what, reason)
    })?;
    if root.not_after <= now {
        return Err(CaError::state(&what, "it has expired"));
    }
    let root_der = root.der()?;
    let root_key = CaKey::from_pkcs8(&what, &sealing.open(ROOT_KEY, &root.id, sealed)?)?;
    let issuer = issuer(&what, &root_der, root_key)?;

    let key = CaKey::generate(state.config.key_type)?;
    let ttl = state.config.intermediate_ttl_seconds;
    let validity = Validity::new(now, BACKDATE, ttl, root.not_after);
    let uri = authority_uri(&state.trust_domain);
    let name = intermediate_name(&state.dc, &state.trust_domain);
    let cert = x509::authority(&name, Some(&uri), Some(0), validity)?
        .signed_by(&key, &issuer)
        .map_err(|e| CaError::make("the intermediate", e))?;
    let id = x509::fingerprint(cert.der());
    let intermediate = IntermediateEntry {
        key: Some(sealing.seal(INTERMEDIATE_KEY, &id, &key.to_pkcs8()?)?),
        root: root.id.clone(),
        pem: cert.pem(),
        above: Vec::new(),
        vault: None,
        not_before: validity.not_before,
        not_after: validity.not_after,
        id,
    };
    Ok(CaState {
        intermediate: Some(intermediate),
        ..state.clone()
    })
}

/// Why a new intermediate is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Renewal {
    /// There is none.
    Missing,
    /// The one that is there was signed by a root that is no longer the active one.
    OtherRoot,
    /// Two thirds of its life are over.
    Old,
    /// Leaves would soon be cut short by its end.
    CutsLeavesShort,
    /// Its key is in Vault and should be here, or the other way round.
    SignsElsewhere,
}

impl fmt::Display for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "there is no intermediate",
            Self::OtherRoot => "the intermediate was signed by another root than the active one",
            Self::Old => "two thirds of the intermediate's life are over",
            Self::CutsLeavesShort => "the intermediate ends before two lives of a leaf have passed",
            Self::SignsElsewhere => "leaves are to be signed by another (leaf_signing)",
        })
    }
}

/// Whether the leader should make a new intermediate now, and why. Never of a provider that this
/// build does not know, nor where nobody here can make one ([`CaState::renews`]).
#[must_use]
pub fn renewal_due(state: &CaState, now: SystemTime) -> Option<Renewal> {
    if ![BUILT_IN, VAULT, AWS_PCA].contains(&state.provider.as_str()) {
        return None;
    }
    let Some(intermediate) = &state.intermediate else {
        return Some(Renewal::Missing);
    };
    if !state.renews() {
        return None;
    }
    let root = state.active_root()?;
    if intermediate.root != root.id {
        return Some(Renewal::OtherRoot);
    }
    if let Some(place) = &state.config.vault {
        let signs_at = intermediate.vault.as_ref().map(|role| role.mount.as_str());
        let wanted = match place.leaf_signing {
            LeafSigning::Vault => Some(place.intermediate_pki_path.as_str()),
            LeafSigning::Cluster => None,
        };
        if signs_at != wanted {
            return Some(Renewal::SignsElsewhere);
        }
    }
    if intermediate.not_after >= root.not_after {
        // A new one would end when this one does: only a new root helps.
        return None;
    }
    let now = x509::unix(now);
    let life = intermediate
        .not_after
        .saturating_sub(intermediate.not_before);
    let left = intermediate.not_after.saturating_sub(now);
    if left <= life / 3 {
        return Some(Renewal::Old);
    }
    let leaf = state.config.leaf_ttl().as_secs();
    // Not when even a fresh one is that short: that would be a renewal at every look. (Vault may
    // have made it shorter than it was asked to.)
    let fresh = state.config.intermediate_ttl_seconds.min(life);
    if left < leaf.saturating_mul(2) && fresh > leaf.saturating_mul(3) {
        return Some(Renewal::CutsLeavesShort);
    }
    None
}

/// A CA whose intermediate's key is sealed in the state, open: it can sign. Any server can have it.
/// The root may be the built-in one, Vault's, or one in AWS.
pub struct BuiltIn {
    provider: &'static str,
    domain: TrustDomain,
    roots: Vec<RootEntry>,
    trust: Trust,
    issuer: Issuer<'static, CaKey>,
    /// What follows a leaf.
    chain: Vec<CertificateDer<'static>>,
    /// In seconds since 1970.
    not_after: u64,
    clock: Clock,
}

impl BuiltIn {
    /// Opens the CA of a state.
    ///
    /// A leaf is signed and verified as a peer would, so what opens also works.
    ///
    /// # Errors
    /// When the sealing key is another one (both ids are named), or rows of the state do not fit
    /// together. An intermediate that has expired is not an error here, so that a server can
    /// start and renew it; until then [`Authority::sign_leaf`] says so.
    pub fn open(state: &CaState, sealing: &SealingKey, clock: Clock) -> Result<Self, CaError> {
        let known = [BUILT_IN, VAULT, AWS_PCA].into_iter();
        let provider = known.into_iter().find(|known| *known == state.provider);
        let provider = provider.ok_or_else(|| {
            let reason = format!("{:?} is none that this server knows", state.provider);
            CaError::state("provider", reason)
        })?;
        let entry = state
            .intermediate
            .as_ref()
            .ok_or_else(|| CaError::state("intermediate", "there is none"))?;
        let what = format!("intermediate {}", short(&entry.id));
        let intermediate = entry.der()?;
        let sealed = entry
            .key
            .as_ref()
            .ok_or_else(|| CaError::state(&what, "its key is not here"))?;
        let key = sealing.open(INTERMEDIATE_KEY, &entry.id, sealed)?;
        let key = CaKey::from_pkcs8(&what, &key)?;
        let open = Self {
            provider,
            chain: state.chain()?,
            domain: state
                .domain()
                .map_err(|e| CaError::state("trust domain", e))?,
            roots: state.roots.clone(),
            trust: state.trust()?,
            // Of an imported one, what is above it may end before it.
            not_after: entry
                .not_after
                .min(x509::read(&what, &intermediate)?.not_after),
            issuer: issuer(&what, &intermediate, key)?,
            clock,
        };
        open.check(&what)?;
        Ok(open)
    }

    /// Signs a leaf for nobody and verifies it.
    fn check(&self, what: &str) -> Result<(), CaError> {
        let now = (self.clock)();
        if self.not_after <= x509::unix(now) {
            return Ok(());
        }
        let error = |e: &dyn fmt::Display| CaError::state(what, e.to_string());
        let key = LeafKey::generate().map_err(|e| error(&e))?;
        let csr = key.csr().map_err(|e| error(&e))?;
        let id = SpiffeId::new(&self.domain, "default", "self", "test").map_err(|e| error(&e))?;
        let request = LeafRequest::from_csr(&csr, id, Duration::from_secs(60));
        let request = request.map_err(|e| error(&e))?;
        let leaf = self.sign(&request).map_err(|e| error(&e))?;
        self.trust
            .verify(&leaf.chain, now)
            .map(drop)
            .map_err(|e| error(&format!("no peer would take what it signs: {e}")))
    }

    fn sign(&self, request: &LeafRequest) -> Result<IssuedLeaf, AuthorityError> {
        let invalid = |reason: String| AuthorityError::Invalid {
            provider: self.provider,
            reason,
        };
        let id = request.id();
        if id.trust_domain() != self.domain.as_str() {
            return Err(AuthorityError::Denied {
                provider: self.provider,
                reason: format!("{id} is not of the trust domain {}", self.domain),
            });
        }
        let now = x509::unix((self.clock)());
        if self.not_after <= now {
            return Err(AuthorityError::Unavailable {
                provider: self.provider,
                reason: "the intermediate has expired and is not renewed yet".into(),
                retry_after: Some(Duration::from_secs(1)),
            });
        }
        let validity = Validity::new(
            now,
            request.backdate().as_secs(),
            request.ttl().as_secs().max(1),
            self.not_after,
        );
        let key = SubjectPublicKeyInfo::from_der(request.public_key())
            .map_err(|e| invalid(e.to_string()))?;
        let cert = x509::leaf(id.as_str(), request.dns_names(), validity)
            .map_err(|e| invalid(e.to_string()))?
            .signed_by(&key, &self.issuer)
            .map_err(|e| invalid(e.to_string()))?;
        let leaf = x509::read("leaf", cert.der()).map_err(|e| invalid(e.to_string()))?;
        let mut chain = vec![cert.der().clone()];
        chain.extend(self.chain.iter().cloned());
        Ok(IssuedLeaf {
            chain,
            serial: leaf.serial,
            not_before: validity.not_before,
            not_after: validity.not_after,
        })
    }
}

impl fmt::Debug for BuiltIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuiltIn")
            .field("domain", &self.domain)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Authority for BuiltIn {
    fn provider(&self) -> &'static str {
        self.provider
    }

    fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    async fn roots(&self) -> Result<Vec<RootEntry>, AuthorityError> {
        Ok(self.roots.clone())
    }

    async fn sign_leaf(&self, request: &LeafRequest) -> Result<IssuedLeaf, AuthorityError> {
        self.sign(request)
    }

    async fn status(&self) -> AuthorityStatus {
        let expired = self.not_after <= x509::unix((self.clock)());
        AuthorityStatus {
            provider: self.provider.to_owned(),
            healthy: !expired,
            reason: expired.then(|| "the intermediate has expired and is not renewed yet".into()),
            active_root: self.roots.iter().find(|r| r.active).map(|r| r.id.clone()),
            intermediate_not_after: Some(self.not_after),
        }
    }
}

/// A CA certificate with its key, once the two are seen to belong together.
pub(crate) fn issuer(
    what: &str,
    cert: &CertificateDer<'_>,
    key: CaKey,
) -> Result<Issuer<'static, CaKey>, CaError> {
    if x509::read(what, cert)?.public_key != key.subject_public_key_info() {
        return Err(CaError::state(
            what,
            "the key is not the one of the certificate",
        ));
    }
    issues(what, cert)?;
    Issuer::from_ca_cert_der(cert, key).map_err(|e| CaError::state(what, e))
}

/// What it signs is given its name as the issuer's. rcgen, which writes that, knows no name that
/// has two attributes in one part, or two of one kind.
fn issues(what: &str, cert: &CertificateDer<'_>) -> Result<(), CaError> {
    let unread = |_| CaError::state(what, "it is not an X.509 certificate");
    let (_, cert) = x509_parser::parse_x509_certificate(cert).map_err(unread)?;
    let mut kinds = Vec::new();
    for part in cert.subject().iter_rdn() {
        let mut attributes = part.iter();
        let (Some(attribute), None) = (attributes.next(), attributes.next()) else {
            let reason = format!(
                "its name ({}) has a part with two attributes",
                cert.subject()
            );
            return Err(CaError::state(what, reason + UNWRITABLE));
        };
        let kind = attribute.attr_type().to_id_string();
        if kinds.contains(&kind) {
            let reason = format!("its name ({}) has two parts of one kind", cert.subject());
            return Err(CaError::state(what, reason + UNWRITABLE));
        }
        kinds.push(kind);
    }
    Ok(())
}

/// What to do about a name that cannot be written.
const UNWRITABLE: &str = ", which this CA cannot write as an issuer's; sign with an intermediate \
                          whose name has neither, such as CN and O alone";

/// A root's name, which no other has: where one certifies another, a program that finds issuers by
/// their names alone would take it for self-signed. The year is for people.
pub(crate) fn root_name(not_before: u64, domain: &str) -> Result<String, CaError> {
    let mark = x509::random_hex::<4>()?;
    Ok(format!("meshctl root {} {mark} {domain}", year(not_before)))
}

/// An intermediate's name.
pub(crate) fn intermediate_name(dc: &str, domain: &str) -> String {
    x509::truncated(&format!("meshctl intermediate {dc} {domain}"))
}

/// The name that a CA of the trust domain has (X.509-SVID, section 4.1).
pub(crate) fn authority_uri(domain: &str) -> String {
    format!("spiffe://{domain}")
}

fn year(unix: u64) -> i32 {
    i64::try_from(unix)
        .ok()
        .and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok())
        .map_or(0, time::OffsetDateTime::year)
}
