//! `/v1/acl/…`: what Nomad asks of ACLs with workload identity on.

use serde_json::{Value, json};

use crate::ConsulError;
use crate::fields::Fields;

/// The body of `POST /v1/acl/login`. Its token is not to be logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The auth method, which is said again and decides nothing.
    pub method: String,
    /// Nomad's JWT.
    pub bearer: String,
    /// What is shown of the login to people.
    pub description: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

/// The longest name of an auth method, and the longest description, in bytes.
const MAX_METHOD: usize = 256;
const MAX_DESCRIPTION: usize = 1024;

/// Reads the body of `POST /v1/acl/login`.
///
/// # Errors
/// When a field is missing or wrong.
pub fn login(body: &Value) -> Result<Login, ConsulError> {
    let fields = Fields::root(body)?;
    let bearer = fields
        .text("BearerToken")?
        .ok_or_else(|| fields.error("BearerToken", "missing; write the workload identity's JWT"))?;
    let method = fields.text("AuthMethod")?.unwrap_or_default();
    if method.len() > MAX_METHOD {
        return Err(fields.error("AuthMethod", "too long"));
    }
    let meta = fields.text_map("Meta")?;
    let mut description = "token created via login".to_owned();
    if !meta.is_empty() {
        description.push_str(&format!(": {}", json!(meta)));
    }
    if description.len() > MAX_DESCRIPTION {
        return Err(fields.error("Meta", "too long"));
    }
    Ok(Login {
        method,
        bearer,
        description,
    })
}

/// A token that was given to a workload.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    /// Names it, and is no secret.
    pub accessor: &'a str,
    /// The token itself.
    pub secret: &'a str,
    /// The auth method of its login.
    pub method: &'a str,
    /// For people.
    pub description: &'a str,
    /// When it was made, as RFC 3339.
    pub created: &'a str,
    /// The service that it is for; none: it is a task's.
    pub service: Option<&'a str>,
    /// The mesh's datacenter.
    pub datacenter: &'a str,
}

/// Consul's `ACLToken`: the answer to a login and of `GET /v1/acl/token/self`. Nothing is written
/// where Consul's default namespace is meant: a Nomad that is not Enterprise's expects none.
#[must_use]
pub fn token(token: &Token<'_>) -> Value {
    let services = token
        .service
        .map(|service| json!({"ServiceName": service, "Datacenters": [token.datacenter]}));
    json!({
        "AccessorID": token.accessor,
        "SecretID": token.secret,
        "Description": token.description,
        "ServiceIdentities": services.into_iter().collect::<Vec<_>>(),
        "Local": true,
        "AuthMethod": token.method,
        "CreateTime": token.created,
        "CreateIndex": 1,
        "ModifyIndex": 1,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_wrong_is_said() {
        for (body, start) in [
            (json!({}), "BearerToken: missing"),
            (json!({"BearerToken": 1}), "BearerToken: expected a string"),
            (
                json!({"BearerToken": "x", "AuthMethod": "m".repeat(300)}),
                "AuthMethod: too long",
            ),
            (
                json!({"BearerToken": "x", "Meta": {"a": "b".repeat(2000)}}),
                "Meta: too long",
            ),
        ] {
            let error = login(&body).unwrap_err().to_string();
            assert!(error.starts_with(start), "{error}");
        }
        let login = login(&json!({"BearerToken": "secret"})).unwrap();
        assert!(!format!("{login:?}").contains("secret"));
    }
}
