//! `/v1/agent/connect/…`: what the mesh trusts, and whether a caller may come in.

use serde_json::{Value, json};

use crate::ConsulError;
use crate::fields::Fields;

/// What an application asks that checks its callers itself: the body of
/// `POST /v1/agent/connect/authorize`. The certificate's serial number is not asked for: nothing
/// is revoked by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The service that is called.
    pub target: String,
    /// The namespace of that; none: the default one.
    pub namespace: Option<String>,
    /// The URI in the caller's certificate, which the application has verified.
    pub client: String,
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
    fields.text("ClientCertSerial")?;
    Ok(Question {
        target,
        namespace: fields.text("Namespace")?,
        client,
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
