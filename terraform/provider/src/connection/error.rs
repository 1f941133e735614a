//! Why the servers gave no answer, or one that says no.

use mesh_tfprotocol::{Diagnostic, Path};
use serde::Deserialize;
use serde_json::{Map, Value as Json};

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The provider's block.
    #[error("{field} {reason}")]
    Settings { field: &'static str, reason: String },
    /// It has values that are known only after something else was made.
    #[error("the provider's configuration is not known yet")]
    Unknown,
    /// No server answered.
    #[error("no server can be reached at {address}: {reason}")]
    Unreachable {
        address: String,
        reason: String,
        /// Whether it may be otherwise in a moment.
        passes: bool,
    },
    /// Something answered that is none of ours, or is too old.
    #[error("{address} answered what a meshctl server does not: {reason}")]
    Odd { address: String, reason: String },
    /// The server says no.
    #[error("{0}")]
    Api(ApiError),
    /// The user has interrupted it.
    #[error("it was interrupted")]
    Interrupted,
}

/// An answer that is an error.
#[derive(Debug, Default, Deserialize, thiserror::Error)]
#[serde(default)]
#[error("{message}")]
pub(crate) struct ApiError {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) request_id: String,
    #[serde(flatten)]
    pub(crate) details: Map<String, Json>,
}

impl ClientError {
    pub(super) fn unreachable(address: &str, error: &reqwest::Error) -> Self {
        let explained = mesh_tls::explain(error);
        let reason = match (error.is_timeout(), explained == error.to_string()) {
            (true, _) => "no answer in time".to_owned(),
            (false, false) => explained,
            (false, true) => innermost(error),
        };
        let lower = reason.to_ascii_lowercase();
        // A server that ends in the middle of a handshake is no lack of trust.
        let mistrust = ["alert", "certificate", "trust domain"];
        Self::Unreachable {
            address: address.to_owned(),
            passes: !mistrust.iter().any(|word| lower.contains(word)),
            reason,
        }
    }

    /// Whether it may be otherwise in a moment.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Unreachable { passes, .. } => *passes,
            Self::Api(error) => matches!(
                error.code.as_str(),
                "no_leader"
                    | "not_ready"
                    | "behind"
                    | "overloaded"
                    | "too_many_requests"
                    | "unknown_outcome"
                    | "timeout"
            ),
            _ => false,
        }
    }

    /// The code of an answer that says no.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Api(error) => &error.code,
            _ => "",
        }
    }

    /// For the user: what is wrong, and what to do.
    pub(crate) fn diagnostic(&self) -> Diagnostic {
        match self {
            Self::Settings { field, reason } => Diagnostic::error(
                format!("The provider's `{field}` is wrong"),
                format!("`{field}` {reason}."),
            )
            .at(Path::of(field)),
            Self::Unknown => Diagnostic::error(
                "The provider's configuration is not known yet",
                "It depends on what this apply makes. Make that first, with `-target`, or in a \
                 configuration of its own.",
            ),
            Self::Unreachable { passes: true, .. } => Diagnostic::error(
                "No server can be reached",
                format!(
                    "{self}. Does it run there? `address` of the provider, or MESH_HTTP_ADDR or \
                     MESHCTL_HTTP_ADDR, gives another one; a server with TLS is at https://, with \
                     `ca_file`."
                ),
            ),
            Self::Unreachable { .. } => Diagnostic::error(
                "The server and this provider do not trust each other",
                format!(
                    "{self}. `ca_file` of the provider (or MESH_CACERT or MESHCTL_CACERT) names the \
                     cluster CA that is trusted; `client_cert` and `client_key` (their variables end \
                     in _CLIENT_CERT and _CLIENT_KEY) are your own certificate, of role cli."
                ),
            ),
            Self::Odd { .. } => Diagnostic::error(
                "That is no meshctl server, or one that is too old",
                format!(
                    "{self}. `address` must be that of the servers' HTTP API, port 8700; `meshctl \
                     status` tells the server's version."
                ),
            ),
            Self::Interrupted => {
                Diagnostic::error("Interrupted", "The next apply goes on from here.")
            }
            Self::Api(error) => error.diagnostic(),
        }
    }
}

impl ApiError {
    fn diagnostic(&self) -> Diagnostic {
        let advice = match self.code.as_str() {
            "forbidden" => {
                " `client_cert` and `client_key` of the provider give a certificate of role cli; \
                 `meshctl tls cert create -cli` makes one."
            }
            "no_such_route" | "invalid_json" => {
                " Is the server older than this provider? `meshctl status` tells its version."
            }
            "no_leader" | "not_ready" | "behind" | "overloaded" | "too_many_requests" => {
                " Nothing was changed; `meshctl status` says how the cluster is."
            }
            "unknown_outcome" | "timeout" => " It may have been done or not; plan again.",
            "level" => " Every server must run a version that has this.",
            _ => "",
        };
        let request = match self.request_id.as_str() {
            "" => String::new(),
            id => format!(" (request {id})"),
        };
        let stop = if self.message.ends_with('.') { "" } else { "." };
        Diagnostic::error(
            format!("The server refuses it ({})", self.code),
            format!("{}{stop}{advice}{request}", self.message),
        )
    }
}

impl From<ClientError> for mesh_tfprotocol::Diagnostics {
    fn from(error: ClientError) -> Self {
        error.diagnostic().into()
    }
}

fn innermost(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
