//! A CA and certificates as a sidecar has them: one SPIFFE ID each. The common
//! name stands in for it where a program cannot look at URI names.

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};

use crate::Failure;

/// The trust domain of all of them.
const DOMAIN: &str = "load.mesh";

/// Writes `roots.pem`, and for each name `NAME.pem` and `NAME.key` (and both in
/// one file, `NAME.both.pem`).
pub(crate) fn write(folder: &Path, names: &[String]) -> Result<Value, Failure> {
    fs::create_dir_all(folder)?;
    let mut root = params("load root");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root_key = KeyPair::generate()?;
    fs::write(folder.join("roots.pem"), root.self_signed(&root_key)?.pem())?;
    let issuer = Issuer::new(root, root_key);
    for name in names {
        let mut leaf = params(name);
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        leaf.subject_alt_names = vec![SanType::URI(identity(name).as_str().try_into()?)];
        let key = KeyPair::generate()?;
        let certificate = leaf.signed_by(&key, &issuer)?.pem();
        let key = key.serialize_pem();
        fs::write(folder.join(format!("{name}.pem")), &certificate)?;
        fs::write(folder.join(format!("{name}.key")), &key)?;
        fs::write(
            folder.join(format!("{name}.both.pem")),
            format!("{certificate}{key}"),
        )?;
    }
    let identities: Vec<_> = names.iter().map(|name| identity(name)).collect();
    Ok(json!({ "trust_domain": DOMAIN, "identities": identities }))
}

fn identity(name: &str) -> String {
    format!("spiffe://{DOMAIN}/ns/default/dc/dc1/svc/{name}")
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = std::time::SystemTime::now();
    params.not_before = (now - std::time::Duration::from_secs(3600)).into();
    params.not_after = (now + std::time::Duration::from_secs(7 * 86_400)).into();
    params
}
