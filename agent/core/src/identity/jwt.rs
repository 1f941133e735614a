//! Nomad's workload identities: signed JSON (RFC 7515, RFC 7519), read strictly.
//!
//! The algorithm is the key's, and never what the token says alone: RS256 with 2048 bits or more, or
//! EdDSA with Ed25519, which are all that Nomad has ever made. `none` and everything with a shared
//! key is refused by name.

use aws_lc_rs::signature::{
    ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::workload::Workload;

/// The longest token that is read, in bytes.
const MAX_TOKEN: usize = 16 * 1024;
/// The longest of the names in it, in bytes.
const MAX_NAME: usize = 512;
/// How far two machines' clocks may be apart, in seconds.
const SKEW: i64 = 60;
/// The length of an allocation's id, a UUID with its hyphens.
const ALLOCATION: usize = 36;

/// A public key of Nomad's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// RS256.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// EdDSA.
    Ed25519(Vec<u8>),
}

/// A token whose signature is not verified yet: all that may be read of it is which key to use.
#[derive(Debug)]
pub(super) struct Signed<'a> {
    header: Header,
    /// Header and claims, as they are signed.
    said: &'a str,
    claims: Vec<u8>,
    signature: Vec<u8>,
}

/// An unknown key of it is ignored, as RFC 7515 (4) has it, but for `crit`.
#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: String,
    #[serde(default)]
    crit: Option<serde_json::Value>,
}

/// What a verified token says.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    #[serde(default)]
    sub: String,
    #[serde(default)]
    aud: Audience,
    exp: Option<i64>,
    nbf: Option<i64>,
    iat: Option<i64>,
    nomad_namespace: Option<String>,
    nomad_job_id: Option<String>,
    nomad_allocation_id: Option<String>,
    nomad_service: Option<String>,
    nomad_task: Option<String>,
}

/// One, or a list.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

/// Takes a token apart.
pub(super) fn parse(token: &str) -> Result<Signed<'_>, String> {
    if token.len() > MAX_TOKEN {
        return Err(format!("longer than {MAX_TOKEN} bytes"));
    }
    let form = "not a JWT: three parts in base64url, with `.` between them";
    let (said, signature) = token.rsplit_once('.').ok_or(form)?;
    let (header, claims) = said.split_once('.').ok_or(form)?;
    let part = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| form.to_owned());
    let header: Header = serde_json::from_slice(&part(header)?)
        .map_err(|error| format!("its header cannot be read: {error}"))?;
    if header.crit.is_some() {
        return Err("its header has `crit`, of which nothing is known here".to_owned());
    }
    if !matches!(header.alg.as_str(), "RS256" | "EdDSA") {
        let alg: String = header.alg.chars().take(16).collect();
        return Err(format!(
            "signed with {alg:?}; only RS256 and EdDSA are taken"
        ));
    }
    Ok(Signed {
        header,
        said,
        claims: part(claims)?,
        signature: part(signature)?,
    })
}

impl Signed<'_> {
    /// The id of the key that signed it, as it says.
    pub(super) fn kid(&self) -> &str {
        &self.header.kid
    }

    /// What it says, if that key signed it.
    pub(super) fn verify(&self, key: &Key) -> Result<Claims, String> {
        let said = self.said.as_bytes();
        let good = match (key, self.header.alg.as_str()) {
            (Key::Rsa { n, e }, "RS256") => RsaPublicKeyComponents { n, e }
                .verify(&RSA_PKCS1_2048_8192_SHA256, said, &self.signature)
                .is_ok(),
            (Key::Ed25519(key), "EdDSA") => UnparsedPublicKey::new(&ED25519, key)
                .verify(said, &self.signature)
                .is_ok(),
            _ => return Err("the algorithm is not that of its key".to_owned()),
        };
        if !good {
            return Err("the signature is not that of Nomad's key".to_owned());
        }
        serde_json::from_slice(&self.claims)
            .map_err(|error| format!("its claims cannot be read: {error}"))
    }
}

impl Claims {
    /// Whose it is, if it is for us, now. `now` is in seconds since 1970.
    pub(super) fn workload(self, audience: &[String], now: i64) -> Result<Workload, String> {
        let is_ours = match &self.aud {
            Audience::One(one) => audience.contains(one),
            Audience::Several(several) => several.iter().any(|one| audience.contains(one)),
        };
        if !is_ours {
            let audience = audience.join(" or ");
            return Err(format!(
                "not for {audience}; set `aud` in the identity to that, or `audience` in the \
                 agent's `nomad` block to what it is"
            ));
        }
        if self.exp.is_some_and(|exp| now >= exp.saturating_add(SKEW)) {
            return Err("it has expired".to_owned());
        }
        let early = |at: Option<i64>| at.is_some_and(|at| at > now.saturating_add(SKEW));
        if early(self.nbf) || early(self.iat) {
            return Err(
                "it is not valid yet; compare the clocks of this node and Nomad's".to_owned(),
            );
        }
        if self.sub.starts_with("node:") {
            return Err(
                "it is a node's; only a service or task of an allocation logs in".to_owned(),
            );
        }
        let needed = |name: &str, value: Option<String>| {
            let value = value.filter(|it| is_name(it));
            value.ok_or_else(|| format!("{name} is missing, or is not a name"))
        };
        let allocation = needed("nomad_allocation_id", self.nomad_allocation_id)?;
        let digits = |c: char| c.is_ascii_hexdigit() || c == '-';
        if allocation.len() != ALLOCATION || !allocation.chars().all(digits) {
            return Err("nomad_allocation_id is not an allocation's id".to_owned());
        }
        let optional = |name: &str, value: Option<String>| match value {
            Some(value) if !value.is_empty() => needed(name, Some(value)).map(Some),
            _ => Ok(None),
        };
        let workload = Workload {
            allocation,
            namespace: needed("nomad_namespace", self.nomad_namespace)?,
            job: needed("nomad_job_id", self.nomad_job_id)?,
            service: optional("nomad_service", self.nomad_service)?,
            task: optional("nomad_task", self.nomad_task)?,
        };
        match (&workload.service, &workload.task) {
            (None, None) => Err("it is neither a service's nor a task's".to_owned()),
            _ => Ok(workload),
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && !text.chars().any(char::is_control)
}

/// Reads any token, and what would be its claims; for fuzzing.
pub(crate) fn read_any(data: &[u8]) {
    if let Ok(claims) = serde_json::from_slice::<Claims>(data) {
        let _ = claims.workload(&["consul.io".to_owned()], 0);
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(signed) = parse(text) {
        let verified = signed.verify(&Key::Ed25519(vec![7; 32]));
        assert!(verified.is_err(), "nobody has signed it");
    }
}

#[cfg(test)]
mod tests;
