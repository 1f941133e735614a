//! Making the mesh's CA from one in AWS: its root, and an intermediate of ours below it.
//!
//! Each certificate that AWS signs is paid for, and whoever makes the CA asks again until it goes
//! well. So one that was asked for is waited for, however long that takes, and no other is asked
//! for after one that was of no use.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use mesh_tls::TrustDomain;
use rcgen::{CertificateParams, DistinguishedName, DnType, PublicKeyData as _};
use rustls_pki_types::CertificateDer;
use tokio::time::Instant;

use super::AwsPca;
use super::pca::{Described, Trouble, Wish};
use crate::authority::AuthorityError;
use crate::builtin::{BuiltIn, INTERMEDIATE_KEY, authority_uri, intermediate_name};
use crate::error::CaError;
use crate::key::{CaKey, KeyType};
use crate::seal::SealingKey;
use crate::state::{AWS_PCA, AwsPlace, CaConfig, CaState, IntermediateEntry, RootEntry};
use crate::x509;

/// Between two looks whether it is signed, at first and at most.
const POLL: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));
/// How long one call waits for AWS to sign.
const WAIT: Duration = Duration::from_secs(40);
/// After a certificate that was of no use no other is asked for so long.
const USELESS: Duration = Duration::from_secs(3600);
/// How much later than was asked for a certificate may end, in seconds: AWS rounds.
const LATER: u64 = 60;

/// An intermediate that AWS was asked for.
pub(super) struct Issued {
    /// The CA that was asked, and for what key.
    of: (String, KeyType),
    /// What AWS calls it.
    certificate: String,
    key: CaKey,
    not_after: u64,
    /// Why it is of no use, and when that was seen.
    useless: Option<(Instant, String)>,
}

/// The mesh's CA, below the CA in AWS that the settings name.
///
/// # Errors
/// When this build is without AWS, or AWS does not do its part, in its own words; or what it gives
/// is of no use.
pub async fn create_in_aws(
    aws: &AwsPca,
    domain: &TrustDomain,
    dc: &str,
    config: CaConfig,
    sealing: &SealingKey,
    now: SystemTime,
) -> Result<CaState, CaError> {
    let above = Above::of(aws, &config, now).await?;
    let state = CaState {
        provider: AWS_PCA.to_owned(),
        trust_domain: domain.to_string(),
        dc: dc.to_owned(),
        roots: vec![above.root.clone()],
        intermediate: None,
        root_key: None,
        config,
        rotation: None,
        reissue_seconds: 0,
        sealing: sealing.sealed_with(),
    };
    with_intermediate(aws, &state, above, sealing, now).await
}

/// The same CA with a new intermediate.
///
/// # Errors
/// As [`create_in_aws`]; and when the CA in AWS now hangs on another root.
pub async fn renew_in_aws(
    aws: &AwsPca,
    state: &CaState,
    sealing: &SealingKey,
    now: SystemTime,
) -> Result<CaState, CaError> {
    let above = Above::of(aws, &state.config, now).await?;
    let active = state.active_root().map(|root| root.id.as_str());
    if active != Some(above.root.id.as_str()) {
        let reason = "its root is another than the one that the mesh trusts: it was given another \
                      certificate. Make another CA in AWS, and change to it with `meshctl ca config \
                      write`";
        return Err(CaError::state(&above.arn, reason));
    }
    with_intermediate(aws, state, above, sealing, now).await
}

fn place(config: &CaConfig) -> Result<&AwsPlace, CaError> {
    let place = config.aws_pca.as_ref();
    place.ok_or_else(|| CaError::state(AWS_PCA, "it is not said which CA in AWS it is"))
}

impl Described {
    /// That the CA can sign.
    pub(super) fn check(&self, arn: &str) -> Result<(), Trouble> {
        match self.status.as_str() {
            "ACTIVE" => Ok(()),
            status => Err(Trouble::Unusable(format!("{arn} is {status} in AWS"))),
        }
    }
}

/// The CA in AWS: what will stand above our intermediate.
struct Above {
    arn: String,
    signing_algorithm: String,
    root: RootEntry,
    /// What stands between our intermediate and the root.
    between: Vec<String>,
    /// When the first of them ends, in seconds since 1970.
    not_after: u64,
}

impl Above {
    async fn of(aws: &AwsPca, config: &CaConfig, now: SystemTime) -> Result<Self, CaError> {
        let arn = place(config)?.existing_arn.clone();
        let pca = aws.pca()?;
        let described = aws.told(pca.describe(&arn).await)?;
        aws.told(described.check(&arn))?;
        let chain = aws.told(pca.chain(&arn).await)?;
        let what = format!("the certificate of {arn}");
        let chain = mesh_tls::pem::certificates(&what, chain.as_bytes())
            .map_err(|error| CaError::input(&what, error))?;
        let Some((top, between)) = chain.split_last() else {
            return Err(CaError::state(&arn, "it has no certificate"));
        };
        let root = RootEntry::from_der(top, true)?;
        let mut not_after = root.not_after;
        for one in between {
            not_after = not_after.min(x509::read(&what, one)?.not_after);
        }
        if not_after <= x509::unix(now) {
            let reason = "its certificate, or one above it, has expired";
            return Err(CaError::state(&arn, reason));
        }
        Ok(Self {
            arn,
            signing_algorithm: described.signing_algorithm,
            root,
            between: between
                .iter()
                .map(|der| x509::certificate_pem(der))
                .collect(),
            not_after,
        })
    }
}

async fn with_intermediate(
    aws: &AwsPca,
    state: &CaState,
    above: Above,
    sealing: &SealingKey,
    now: SystemTime,
) -> Result<CaState, CaError> {
    // One at a time: what another has asked for is not asked for again.
    let mut slot = aws.issued.lock().await;
    let issued = match slot.take() {
        Some(issued) if issued.is_of(&above, state) => issued,
        _ => issue(aws, state, &above, now).await?,
    };
    let issued = slot.insert(issued);
    if let Some((seen, why)) = &issued.useless {
        let left = USELESS
            .saturating_sub(seen.elapsed())
            .as_secs()
            .div_ceil(60);
        let reason = format!("{why}. Another, which is paid for too, is asked for in {left} min");
        return Err(denied(reason).into());
    }
    let signed = wait(aws, &above.arn, &issued.certificate).await?;
    match used(state, &above, issued, &signed, sealing, now) {
        Ok(next) => {
            *slot = None;
            Ok(next)
        }
        Err(error) => {
            let why = format!(
                "{}: what AWS signed is of no use: {error}",
                issued.certificate
            );
            issued.useless = Some((Instant::now(), why.clone()));
            Err(denied(why).into())
        }
    }
}

fn denied(reason: String) -> AuthorityError {
    AuthorityError::Denied {
        provider: AWS_PCA,
        reason,
    }
}

impl Issued {
    /// Whether it is what is wanted now, and no other is to be asked for.
    fn is_of(&self, above: &Above, state: &CaState) -> bool {
        let fresh = |(seen, _): &(Instant, String)| seen.elapsed() < USELESS;
        self.of == (above.arn.clone(), state.config.key_type)
            && self.useless.as_ref().is_none_or(fresh)
    }
}

/// Asks AWS for an intermediate with a new key.
async fn issue(
    aws: &AwsPca,
    state: &CaState,
    above: &Above,
    now: SystemTime,
) -> Result<Issued, CaError> {
    let key = CaKey::generate(state.config.key_type)?;
    let wish = wish(state, above, &key, now)?;
    let certificate = aws.told(aws.pca()?.issue(&above.arn, &wish).await)?;
    tracing::info!(%certificate, "AWS was asked for an intermediate");
    Ok(Issued {
        of: (above.arn.clone(), state.config.key_type),
        certificate,
        key,
        not_after: wish.not_after,
        useless: None,
    })
}

fn wish(state: &CaState, above: &Above, key: &CaKey, now: SystemTime) -> Result<Wish, CaError> {
    let failed = |error| CaError::make("a request for the intermediate", error);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let name = intermediate_name(&state.dc, &state.trust_domain);
    params.distinguished_name.push(DnType::CommonName, name);
    // AWS's template takes the subject and this from the request, and nothing else.
    params.subject_alt_names = vec![x509::uri_name(&authority_uri(&state.trust_domain))?];
    let csr = params.serialize_request(key).map_err(failed)?;
    let ttl = state.config.intermediate_ttl_seconds;
    let token = digest::digest(&digest::SHA256, csr.der());
    let token = token.as_ref().iter().take(16);
    Ok(Wish {
        csr: csr.pem().map_err(failed)?,
        signing_algorithm: above.signing_algorithm.clone(),
        not_after: x509::unix(now).saturating_add(ttl).min(above.not_after),
        token: token.map(|byte| format!("{byte:02x}")).collect(),
    })
}

/// Waits until it is signed.
async fn wait(
    aws: &AwsPca,
    arn: &str,
    certificate: &str,
) -> Result<CertificateDer<'static>, CaError> {
    let end = Instant::now() + WAIT;
    let mut pause = POLL.0;
    loop {
        if let Some(pem) = aws.told(aws.pca()?.certificate(arn, certificate).await)? {
            return x509::certificate_der("the intermediate that AWS signed", &pem);
        }
        if Instant::now() + pause > end {
            let reason = format!("{certificate} is not signed yet; it is waited for");
            return Err(AuthorityError::from(Trouble::Unavailable(reason)).into());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL.1);
    }
}

/// The state with it, once a leaf below it was taken as a peer would take it.
fn used(
    state: &CaState,
    above: &Above,
    issued: &Issued,
    signed: &CertificateDer<'_>,
    sealing: &SealingKey,
    now: SystemTime,
) -> Result<CaState, CaError> {
    let bad = |reason: &str| Err(CaError::state("intermediate", reason));
    let seen = x509::read("the intermediate", signed)?;
    if seen.public_key != issued.key.subject_public_key_info() {
        return bad("it certifies another key than the one that was given");
    }
    if !seen.is_ca {
        return bad("it is not the certificate of a CA");
    }
    if seen.not_after > issued.not_after + LATER {
        return bad("it lives longer than was asked for");
    }
    let key = issued.key.to_pkcs8()?;
    let intermediate = IntermediateEntry {
        key: Some(sealing.seal(INTERMEDIATE_KEY, &seen.fingerprint, &key)?),
        id: seen.fingerprint,
        root: above.root.id.clone(),
        pem: x509::certificate_pem(signed),
        above: above.between.clone(),
        vault: None,
        not_before: seen.not_before,
        not_after: seen.not_after,
    };
    let next = CaState {
        intermediate: Some(intermediate),
        ..state.clone()
    };
    // AWS's clock may be a little before ours.
    let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(seen.not_before);
    let then = now.max(begin);
    BuiltIn::open(&next, sealing, std::sync::Arc::new(move || then)).map(|_| next)
}
