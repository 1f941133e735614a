//! The `nomad` block: where Nomad is, and what it is asked for.

use std::path::PathBuf;

use super::{name, path, set, some, url};
use crate::fields::Fields;

/// The `nomad` block of a server or an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NomadConfig {
    /// Nomad's agent on this node: a URL, or `unix:///path`, a task's own socket.
    /// Default `http://127.0.0.1:4646`.
    pub address: String,
    /// CA certificates for `https`, PEM; no others count then. Default: the
    /// system's.
    pub ca_file: Option<PathBuf>,
    /// A file with a token for Nomad, read again for each question. Default: none.
    pub token_file: Option<PathBuf>,
    /// The service of Nomad's whose instances are the servers. Default: Nomad is
    /// not asked for them.
    pub service: Option<String>,
    /// The Nomad namespace of that service. Default: Nomad's own default, or the
    /// token's.
    pub namespace: Option<String>,
    /// Where its keys are; of an agent only. Default: below `address`.
    pub jwks_url: Option<String>,
    /// Whom an identity must be meant for: one of these; of an agent only. Default
    /// `consul.io`.
    pub audience: Vec<String>,
}

impl Default for NomadConfig {
    fn default() -> Self {
        Self {
            address: "http://127.0.0.1:4646".to_owned(),
            ca_file: None,
            token_file: None,
            service: None,
            namespace: None,
            jwks_url: None,
            audience: vec!["consul.io".to_owned()],
        }
    }
}

impl NomadConfig {
    /// What servers and agents have in common.
    pub(super) fn read(&mut self, fields: &mut Fields<'_>) {
        set(&mut self.address, fields.parsed("address", address));
        some(&mut self.ca_file, path(fields, "ca_file"));
        some(&mut self.token_file, path(fields, "token_file"));
        some(&mut self.service, name(fields, "service"));
        some(&mut self.namespace, fields.parsed("namespace", namespace));
    }

    /// Whose workload identities an agent believes.
    pub(super) fn read_identity(&mut self, fields: &mut Fields<'_>) {
        some(&mut self.jwks_url, fields.parsed("jwks_url", url));
        let at = fields.where_is("audience");
        let audience = fields.strings("audience");
        if let Some(at) = at {
            if audience.iter().all(String::is_empty) {
                fields.wrong(at, "audience", "is empty; write `[\"consul.io\"]`");
            }
            self.audience = audience;
        }
    }
}

fn address(text: &str) -> Result<String, &'static str> {
    let socket = text.strip_prefix("unix://");
    match socket.is_some_and(|path| path.starts_with('/') && !path.contains('\0')) {
        true => Ok(text.to_owned()),
        false => url(text).map_err(|_| {
            "must be a URL such as `http://127.0.0.1:4646`, with no user in it, or `unix:///path`"
        }),
    }
}

/// A namespace of Nomad's.
fn namespace(text: &str) -> Result<String, &'static str> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-';
    match (1..=128).contains(&text.len()) && text.chars().all(fine) {
        true => Ok(text.to_owned()),
        false => Err("must be 1 to 128 letters, digits and `-`"),
    }
}
