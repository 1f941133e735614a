//! The shapes of the certificates that we make, and reading one for display.

use std::time::SystemTime;

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::error::CaError;

/// From when to when, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
}

impl Validity {
    /// From `backdate` before now to `ttl` after it, but not beyond `end`. All in seconds.
    pub(crate) fn new(now: u64, backdate: u64, ttl: u64, end: u64) -> Self {
        Self {
            not_before: now.saturating_sub(backdate),
            not_after: now.saturating_add(ttl).min(end),
        }
    }
}

/// The last second that X.509 can write (RFC 5280, section 4.1.2.5): 9999-12-31 23:59:59.
pub(crate) const END_OF_TIME: u64 = 253_402_300_799;

pub(crate) fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A root or an intermediate (`below`: 0) of a trust domain. `below` is how many CAs may stand
/// under it; `None`: as many as there are.
pub(crate) fn authority(
    common_name: &str,
    uri: Option<&str>,
    below: Option<u8>,
    validity: Validity,
) -> Result<CertificateParams, CaError> {
    let mut params = base(validity)?;
    params
        .distinguished_name
        .push(DnType::CommonName, truncated(common_name));
    params.is_ca = IsCa::Ca(match below {
        Some(below) => BasicConstraints::Constrained(below),
        None => BasicConstraints::Unconstrained,
    });
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    if let Some(uri) = uri {
        // X.509-SVID, section 4.1: a signing certificate names its trust domain, without a path.
        params.subject_alt_names = vec![uri_name(uri)?];
    }
    Ok(params)
}

/// A leaf: one URI name, perhaps DNS names, no subject (so that the names are critical: RFC 5280,
/// 4.2.1.6).
pub(crate) fn leaf(
    uri: &str,
    dns_names: &[String],
    validity: Validity,
) -> Result<CertificateParams, CaError> {
    let mut params = base(validity)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.subject_alt_names = vec![uri_name(uri)?];
    for name in dns_names {
        params.subject_alt_names.push(dns_name(name)?);
    }
    Ok(params)
}

/// What all have: a random serial, no name from a default, and the issuer's key id.
fn base(validity: Validity) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(serial()?);
    params.not_before = date(validity.not_before)?;
    params.not_after = date(validity.not_after)?;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// 128 bits, of which 126 are random: never negative, and always 16 bytes long.
fn serial() -> Result<SerialNumber, CaError> {
    let mut bytes: [u8; 16] = random("a serial number")?;
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

/// Random bytes for `what`.
fn random<const N: usize>(what: &'static str) -> Result<[u8; N], CaError> {
    let mut bytes = [0_u8; N];
    rand::fill(&mut bytes).map_err(|_| CaError::make(what, "no randomness"))?;
    Ok(bytes)
}

/// Random bytes in hex, to tell two of a kind apart.
pub(crate) fn random_hex<const N: usize>() -> Result<String, CaError> {
    random::<N>("a name").map(|bytes| hex(&bytes))
}

fn date(unix: u64) -> Result<OffsetDateTime, CaError> {
    i64::try_from(unix.min(END_OF_TIME))
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or_else(|| CaError::make("a certificate", "its time is out of range"))
}

pub(crate) fn uri_name(uri: &str) -> Result<SanType, CaError> {
    uri.try_into()
        .map(SanType::URI)
        .map_err(|e| CaError::make("a URI name", e))
}

fn dns_name(name: &str) -> Result<SanType, CaError> {
    name.try_into()
        .map(SanType::DnsName)
        .map_err(|e| CaError::make("a DNS name", e))
}

/// The longest common name (RFC 5280, appendix A: ub-common-name).
pub(crate) fn truncated(name: &str) -> String {
    name.chars().take(64).collect()
}

/// A certificate, as read for display.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) fingerprint: String,
    pub(crate) subject: String,
    pub(crate) key_type: String,
    pub(crate) public_key: Vec<u8>,
    pub(crate) serial: String,
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
    pub(crate) is_ca: bool,
    /// How many CAs may stand under it; `None`: that is not said.
    pub(crate) path_length: Option<u32>,
}

/// Reads a certificate. `what` names it in errors.
pub(crate) fn read(what: &str, der: &CertificateDer<'_>) -> Result<Seen, CaError> {
    let (_, cert) = x509_parser::parse_x509_certificate(der)
        .map_err(|_| CaError::input(what, "it is not an X.509 certificate"))?;
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let basic = cert.basic_constraints().ok().flatten();
    Ok(Seen {
        fingerprint: fingerprint(der),
        subject: cert.subject().to_string(),
        key_type: key_type(cert.public_key()),
        public_key: cert.public_key().raw.to_vec(),
        serial: hex(cert.raw_serial()),
        not_before: seconds(cert.validity().not_before),
        not_after: seconds(cert.validity().not_after),
        is_ca: cert.is_ca(),
        path_length: basic.and_then(|basic| basic.value.path_len_constraint),
    })
}

/// SHA-256 of a certificate's DER, in hex.
pub(crate) fn fingerprint(der: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, der).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn key_type(key: &x509_parser::x509::SubjectPublicKeyInfo<'_>) -> String {
    let kind = key.algorithm.algorithm.to_id_string();
    let curve = || {
        let oid = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
        Some(oid.to_id_string())
    };
    match kind.as_str() {
        "1.2.840.10045.2.1" => match curve().as_deref() {
            Some("1.2.840.10045.3.1.7") => "EC P-256".into(),
            Some("1.3.132.0.34") => "EC P-384".into(),
            Some("1.3.132.0.35") => "EC P-521".into(),
            Some(other) => format!("EC {other}"),
            None => "EC".into(),
        },
        "1.2.840.113549.1.1.1" => match key.parsed() {
            Ok(parsed) => format!("RSA {}", parsed.key_size()),
            Err(_) => "RSA".into(),
        },
        "1.3.101.112" => "Ed25519".into(),
        other => other.into(),
    }
}

/// The one certificate of a PEM text. `what` names it in errors.
pub(crate) fn certificate_der(what: &str, pem: &str) -> Result<CertificateDer<'static>, CaError> {
    let found =
        mesh_tls::pem::certificates(what, pem.as_bytes()).map_err(|e| CaError::input(what, e))?;
    match <[_; 1]>::try_from(found) {
        Ok([one]) => Ok(one),
        Err(many) => {
            let reason = format!("there are {} certificates; one is wanted", many.len());
            Err(CaError::input(what, reason))
        }
    }
}

/// A certificate as PEM text.
pub(crate) fn certificate_pem(der: &[u8]) -> String {
    pem("CERTIFICATE", der)
}

/// A certificate request as PEM text.
pub(crate) fn request_pem(der: &[u8]) -> String {
    pem("CERTIFICATE REQUEST", der)
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = String::with_capacity(body.len() + 100);
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}
