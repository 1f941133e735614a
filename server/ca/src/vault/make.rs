//! Making the CA in Vault: its mounts, the root, and an intermediate of ours below it.
//!
//! What is there is used: a mount, and the root that it has by default. What is not is made, when
//! our policy allows it ([`vault_policy`](super::vault_policy)).

use std::time::SystemTime;

use mesh_tls::TrustDomain;
use rcgen::{CertificateParams, PublicKeyData as _};
use rustls_pki_types::CertificateDer;
use vaultrs::api::pki::requests::{
    GenerateIntermediateCSRRequest, GenerateRootRequest, SetRoleRequest,
    SignIntermediateIssuerRequest,
};
use vaultrs::api::sys::requests::{EnableEngineDataConfig, EnableEngineRequest};
use vaultrs::error::ClientError;
use vaultrs::pki::cert::ca;
use vaultrs::pki::{issuer, role};
use vaultrs::sys::mount;

use super::Vault;
use crate::builtin::{INTERMEDIATE_KEY, authority_uri, intermediate_name, root_name};
use crate::error::CaError;
use crate::key::CaKey;
use crate::seal::SealingKey;
use crate::state::{
    CaConfig, CaState, IntermediateEntry, LeafSigning, RootEntry, VAULT, VaultPlace, VaultRole,
};
use crate::x509;

/// What a role lets a leaf live at most: what the mesh takes at most.
const ROLE_MAX_TTL: &str = "2160h";
/// How long before now Vault's leaves are valid from, in seconds.
const BACKDATE: u64 = crate::authority::DEFAULT_BACKDATE.as_secs();

/// Makes a CA in Vault, or takes the root that is there, unless it is the one with the id `not`:
/// then another is made beside it.
///
/// # Errors
/// When Vault does not do its part, in its own words; or what it gives is of no use.
pub async fn create_in_vault(
    vault: &Vault,
    domain: &TrustDomain,
    dc: &str,
    config: CaConfig,
    not: Option<&str>,
    sealing: &SealingKey,
    now: SystemTime,
) -> Result<CaState, CaError> {
    let (mut root, mut above) = root(vault, place(&config)?, domain, &config, now).await?;
    if not == Some(root.id.as_str()) {
        let made = generate_root(vault, place(&config)?, domain, &config, now).await?;
        (root, above) = entry_of_root(made, place(&config)?, now)?;
    }
    let state = CaState {
        provider: VAULT.to_owned(),
        trust_domain: domain.to_string(),
        dc: dc.to_owned(),
        roots: vec![root],
        intermediate: None,
        root_key: None,
        config,
        rotation: None,
        reissue_seconds: 0,
        sealing: sealing.sealed_with(),
    };
    with_intermediate(vault, &state, above, sealing).await
}

/// The same CA with a new intermediate of its active root.
///
/// # Errors
/// As [`create_in_vault`].
pub async fn renew_in_vault(
    vault: &Vault,
    state: &CaState,
    sealing: &SealingKey,
) -> Result<CaState, CaError> {
    let above = match &state.intermediate {
        Some(intermediate) => intermediate.above.clone(),
        None => Vec::new(),
    };
    with_intermediate(vault, state, above, sealing).await
}

fn place(config: &CaConfig) -> Result<&VaultPlace, CaError> {
    let place = config.vault.as_ref();
    place.ok_or_else(|| CaError::state("vault", "it is not said where in Vault the CA is"))
}

/// What is at a mount.
enum Found {
    NoMount,
    NoIssuer,
    Issuer { id: String, chain: Vec<String> },
}

/// The default issuer of a mount.
async fn find(vault: &Vault, path: &str) -> Result<Found, CaError> {
    let what = format!("GET {path}/issuer/default/json");
    let found = vault.ask(&what, |client| async move {
        match issuer::read(&*client, path, None).await {
            Ok(read) => Ok(Found::Issuer {
                id: read.issuer_id,
                chain: match read.ca_chain.is_empty() {
                    true => vec![read.certificate],
                    false => read.ca_chain,
                },
            }),
            Err(error) if says(&error, "no default issuer") => Ok(Found::NoIssuer),
            Err(error) if says(&error, "no handler for route") => Ok(Found::NoMount),
            Err(error) => Err(error),
        }
    });
    Ok(found.await?)
}

fn says(error: &ClientError, words: &str) -> bool {
    match error {
        ClientError::APIError { errors, .. } => errors.iter().any(|text| text.contains(words)),
        _ => false,
    }
}

/// Mounts a PKI engine where none is.
async fn mount(vault: &Vault, path: &str, max_ttl: u64) -> Result<(), CaError> {
    let what = format!("{path}: no PKI engine is mounted there; POST sys/mounts/{path}");
    let made = vault.ask(&what, |client| async move {
        let config = EnableEngineDataConfig {
            max_lease_ttl: Some(format!("{max_ttl}s")),
            ..EnableEngineDataConfig::default()
        };
        let mut options = EnableEngineRequest::builder();
        options.config(config).description("meshctl");
        match mount::enable(&*client, path, "pki", Some(&mut options)).await {
            // Another server was faster.
            Err(error) if says(&error, "already in use") => Ok(()),
            other => other,
        }
    });
    made.await?;
    tracing::info!(path, "a PKI engine was mounted in Vault");
    Ok(())
}

/// The root, and what stands between it and the issuer that signs for us.
async fn root(
    vault: &Vault,
    place: &VaultPlace,
    domain: &TrustDomain,
    config: &CaConfig,
    now: SystemTime,
) -> Result<(RootEntry, Vec<String>), CaError> {
    let path = place.root_pki_path.as_str();
    let mut found = find(vault, path).await?;
    if matches!(found, Found::NoMount) {
        mount(vault, path, config.root_ttl_seconds).await?;
        found = find(vault, path).await?;
    }
    let found = match found {
        Found::Issuer { id, chain } => (id, chain),
        Found::NoMount => {
            let reason = "is mounted, and yet Vault does not find it";
            return Err(CaError::state(path, reason));
        }
        Found::NoIssuer => generate_root(vault, place, domain, config, now).await?,
    };
    entry_of_root(found, place, now)
}

/// The root of an issuer's id and chain, and what stands between the two.
fn entry_of_root(
    (id, chain): (String, Vec<String>),
    place: &VaultPlace,
    now: SystemTime,
) -> Result<(RootEntry, Vec<String>), CaError> {
    let path = place.root_pki_path.as_str();
    let Some((top, between)) = chain.split_last() else {
        return Err(CaError::state(path, "its issuer has no certificate"));
    };
    let top = x509::certificate_der(&format!("the root at {path}"), top)?;
    let mut root = RootEntry::from_der(&top, true)?;
    root.issuer = Some(id);
    if root.not_after <= x509::unix(now) {
        return Err(CaError::state(path, "its root has expired"));
    }
    tracing::debug!(path, root = %root.subject, "the root is Vault's");
    Ok((root, between.iter().map(|pem| tidy(pem)).collect()))
}

async fn generate_root(
    vault: &Vault,
    place: &VaultPlace,
    domain: &TrustDomain,
    config: &CaConfig,
    now: SystemTime,
) -> Result<(String, Vec<String>), CaError> {
    let path = place.root_pki_path.as_str();
    let what = format!("{path}: a root is to be made; POST {path}/root/generate/internal");
    let name = root_name(x509::unix(now), domain.as_str())?;
    let (name, uri) = (&x509::truncated(&name), &authority_uri(domain.as_str()));
    let (kind, bits) = config.key_type.kind_and_bits();
    let made = vault.ask(&what, |client| async move {
        let mut options = GenerateRootRequest::builder();
        options
            .common_name(name)
            .exclude_cn_from_sans(true)
            .uri_sans(uri)
            .key_type(kind)
            .key_bits(bits)
            .ttl(format!("{}s", config.root_ttl_seconds));
        ca::generate(&*client, path, "internal", Some(&mut options)).await
    });
    let made = made.await?;
    let made = made.ok_or_else(|| CaError::state(path, "Vault made a root and did not show it"))?;
    Ok((made.issuer_id, vec![made.certificate]))
}

async fn with_intermediate(
    vault: &Vault,
    state: &CaState,
    above: Vec<String>,
    sealing: &SealingKey,
) -> Result<CaState, CaError> {
    let place = place(&state.config)?;
    let root = state
        .active_root()
        .ok_or_else(|| CaError::state("roots", "none is active"))?;
    let intermediate = match place.leaf_signing {
        LeafSigning::Cluster => ours(vault, state, place, root, above, sealing).await?,
        LeafSigning::Vault => theirs(vault, state, place, root, above).await?,
    };
    Ok(CaState {
        intermediate: Some(intermediate),
        ..state.clone()
    })
}

/// An intermediate whose key is made here, and sealed.
async fn ours(
    vault: &Vault,
    state: &CaState,
    place: &VaultPlace,
    root: &RootEntry,
    above: Vec<String>,
    sealing: &SealingKey,
) -> Result<IntermediateEntry, CaError> {
    let key = CaKey::generate(state.config.key_type)?;
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .and_then(|csr| csr.pem())
        .map_err(|error| CaError::make("a request for the intermediate", error))?;
    let signed = sign(vault, state, place, root, &csr).await?;
    let seen = x509::read("the intermediate", &signed)?;
    if seen.public_key != key.subject_public_key_info() {
        let reason = "Vault signed another key than the one that it was given";
        return Err(CaError::state("intermediate", reason));
    }
    let mut entry = entry(&signed, root, above)?;
    entry.key = Some(sealing.seal(INTERMEDIATE_KEY, &entry.id, &key.to_pkcs8()?)?);
    Ok(entry)
}

/// An intermediate whose key is made by Vault, and never leaves it.
async fn theirs(
    vault: &Vault,
    state: &CaState,
    place: &VaultPlace,
    root: &RootEntry,
    above: Vec<String>,
) -> Result<IntermediateEntry, CaError> {
    let path = place.intermediate_pki_path.as_str();
    if matches!(find(vault, path).await?, Found::NoMount) {
        mount(vault, path, state.config.intermediate_ttl_seconds).await?;
    }
    let what = format!("POST {path}/issuers/generate/intermediate/internal");
    let name = &intermediate_name(&state.dc, &state.trust_domain);
    let (kind, bits) = state.config.key_type.kind_and_bits();
    let csr = vault.ask(&what, |client| async move {
        let mut options = GenerateIntermediateCSRRequest::builder();
        options
            .exclude_cn_from_sans(true)
            .key_type(kind)
            .key_bits(bits);
        issuer::int::generate(&*client, path, "internal", name, Some(&mut options)).await
    });
    let signed = sign(vault, state, place, root, &csr.await?.csr).await?;
    let mut entry = entry(&signed, root, above)?;

    let what = format!("POST {path}/intermediate/set-signed");
    let pem = &entry.pem;
    let imported = vault.ask(&what, |client| async move {
        ca::int::set_signed(&*client, path, pem).await
    });
    let imported = imported.await?.imported_issuers.unwrap_or_default();
    let Ok([id]) = <[String; 1]>::try_from(imported) else {
        return Err(CaError::state(
            path,
            "Vault did not take the intermediate as one issuer",
        ));
    };
    let role = format!("meshctl-{}", id.split('-').next().unwrap_or(&id));
    set_role(vault, path, &role, &id, &state.trust_domain).await?;
    entry.vault = Some(VaultRole {
        mount: path.to_owned(),
        role,
    });
    Ok(entry)
}

async fn set_role(
    vault: &Vault,
    path: &str,
    name: &str,
    issuer: &str,
    domain: &str,
) -> Result<(), CaError> {
    let what = format!("POST {path}/roles/{name}");
    let set = vault.ask(&what, |client| async move {
        let mut options = SetRoleRequest::builder();
        options
            .issuer_ref(issuer)
            // DNS names: an ingress gateway's hosts, which the mesh's own rows say. URI names have
            // a list of their own.
            .allow_any_name(true)
            .allow_localhost(false)
            .allow_ip_sans(false)
            .enforce_hostnames(false)
            .require_cn(false)
            .use_csr_common_name(false)
            .use_csr_sans(false)
            .allowed_uri_sans(vec![format!("spiffe://{domain}/*")])
            .key_type("any")
            .key_usage(vec!["DigitalSignature".to_owned()])
            .server_flag(true)
            .client_flag(true)
            .code_signing_flag(false)
            .email_protection_flag(false)
            .basic_constraints_valid_for_non_ca(true)
            .not_before_duration(BACKDATE)
            .max_ttl(ROLE_MAX_TTL)
            .generate_lease(false)
            .no_store(true);
        role::set(&*client, path, name, Some(&mut options)).await
    });
    Ok(set.await?)
}

/// The root signs a request for an intermediate.
async fn sign(
    vault: &Vault,
    state: &CaState,
    place: &VaultPlace,
    root: &RootEntry,
    csr: &str,
) -> Result<CertificateDer<'static>, CaError> {
    let path = place.root_pki_path.as_str();
    let issuer_id = root.issuer.as_deref().unwrap_or("default");
    let what = format!("POST {path}/issuer/{issuer_id}/sign-intermediate");
    let name = &intermediate_name(&state.dc, &state.trust_domain);
    let uri = &authority_uri(&state.trust_domain);
    let ttl = &format!("{}s", state.config.intermediate_ttl_seconds);
    let signed = vault.ask(&what, |client| async move {
        let mut options = SignIntermediateIssuerRequest::builder();
        options
            .exclude_cn_from_sans(true)
            .uri_sans(uri)
            .max_path_length(0)
            .use_csr_values(false)
            .ttl(ttl);
        issuer::sign_intermediate(
            &*client,
            path,
            csr,
            name,
            Some(issuer_id),
            Some(&mut options),
        )
        .await
    });
    let signed = signed.await?;
    x509::certificate_der("the intermediate that Vault signed", &signed.certificate)
}

/// The entry of a signed intermediate, without a key and a role.
fn entry(
    signed: &CertificateDer<'_>,
    root: &RootEntry,
    above: Vec<String>,
) -> Result<IntermediateEntry, CaError> {
    let seen = x509::read("the intermediate", signed)?;
    if !seen.is_ca {
        let reason = "what Vault signed is not the certificate of a CA";
        return Err(CaError::state("intermediate", reason));
    }
    Ok(IntermediateEntry {
        id: seen.fingerprint,
        root: root.id.clone(),
        pem: x509::certificate_pem(signed),
        above,
        key: None,
        vault: None,
        not_before: seen.not_before,
        not_after: seen.not_after,
    })
}

/// A PEM text as all others here: with a newline at its end.
fn tidy(pem: &str) -> String {
    format!("{}\n", pem.trim())
}
