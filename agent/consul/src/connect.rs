//! `/v1/agent/connect/…`: what the mesh trusts, whether a caller may come in, and certificates of
//! native services.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::ConsulError;
use crate::fields::Fields;

/// What an application asks that checks its callers itself: the body of
/// `POST /v1/agent/connect/authorize`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The service that is called.
    pub target: String,
    /// The namespace of that; none: the default one.
    pub namespace: Option<String>,
    /// The URI in the caller's certificate, which the application has verified.
    pub client: String,
    /// Its serial number, with colons or without; none: only a service that is revoked as a whole is
    /// refused.
    pub serial: Option<String>,
}

/// Reads the body of `POST /v1/agent/connect/authorize`.
///
/// # Errors
/// When a field is missing or wrong.
pub fn question(body: &Value) -> Result<Question, ConsulError> {
    let fields = Fields::root(body)?;
    let target = fields
        .text("Target")?
        .ok_or_else(|| fields.error("Target", "missing; write the service that is called"))?;
    let client = fields.text("ClientCertURI")?.ok_or_else(|| {
        fields.error(
            "ClientCertURI",
            "missing; write the URI in the caller's certificate",
        )
    })?;
    Ok(Question {
        target,
        namespace: fields.text("Namespace")?,
        client,
        serial: fields.text("ClientCertSerial")?,
    })
}

/// The answer to it.
#[must_use]
pub fn authorized(yes: bool, reason: &str) -> Value {
    json!({ "Authorized": yes, "Reason": reason })
}

/// A root certificate that the mesh trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Its id.
    pub id: String,
    /// The certificate, PEM.
    pub pem: String,
    /// What is signed now leads to it.
    pub active: bool,
    /// When it begins and ends, as RFC 3339; none where that is not known.
    pub valid: Option<(String, String)>,
}

/// The answer of `GET /v1/agent/connect/ca/roots` and `GET /v1/connect/ca/roots`.
#[must_use]
pub fn roots(trust_domain: &str, roots: &[Root], index: u64) -> Value {
    let active = roots.iter().find(|root| root.active);
    let shown = roots.iter().map(|root| {
        let mut one = json!({
            "ID": root.id,
            "Name": format!("Root of {trust_domain}"),
            "ExternalTrustDomain": trust_domain.split('.').next().unwrap_or_default(),
            "RootCert": root.pem,
            "IntermediateCerts": [],
            "Active": root.active,
            "CreateIndex": index,
            "ModifyIndex": index,
        });
        if let Some((from, to)) = &root.valid {
            one["NotBefore"] = from.clone().into();
            one["NotAfter"] = to.clone().into();
        }
        one
    });
    json!({
        "ActiveRootID": active.map_or("", |root| root.id.as_str()),
        "TrustDomain": trust_domain,
        "Roots": shown.collect::<Vec<_>>(),
    })
}

/// A certificate of a native service, and its key.
#[derive(Clone, Copy)]
pub struct Certificate<'a> {
    /// Leaf first, then what stands between it and the root: DER.
    pub chain: &'a [&'a [u8]],
    /// The key, PEM.
    pub key: &'a str,
    /// The serial number, two hex digits a byte.
    pub serial: &'a str,
    /// The service's name.
    pub service: &'a str,
    /// Its SPIFFE ID.
    pub uri: &'a str,
    /// When it begins and ends, as RFC 3339.
    pub valid: (&'a str, &'a str),
    /// Another one has another index.
    pub index: u64,
}

/// The answer of `GET /v1/agent/connect/ca/leaf/:service`.
#[must_use]
pub fn leaf(certificate: &Certificate<'_>) -> Value {
    let chain = certificate.chain.iter().map(|der| pem(der));
    json!({
        "SerialNumber": with_colons(certificate.serial),
        "CertPEM": chain.collect::<String>(),
        "PrivateKeyPEM": certificate.key,
        "Service": certificate.service,
        "ServiceURI": certificate.uri,
        "ValidAfter": certificate.valid.0,
        "ValidBefore": certificate.valid.1,
        "CreateIndex": certificate.index,
        "ModifyIndex": certificate.index,
    })
}

fn with_colons(hex: &str) -> String {
    let mut out = String::with_capacity(hex.len() * 3 / 2);
    for (at, digit) in hex.chars().enumerate() {
        if at > 0 && at % 2 == 0 {
            out.push(':');
        }
        out.push(digit);
    }
    out
}

fn pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII: every place is one between characters.
        let (line, after) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}
