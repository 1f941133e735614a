//! Why a command failed, as the user reads it: what is wrong, then what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use mesh_model::Diagnostics;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The exit code of a command that failed.
pub(crate) const FAILED: u8 = 1;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The server's answer is an error.
    #[error("{0}")]
    Api(#[from] ApiError),
    /// No answer came.
    #[error("cannot reach the server at {address}: {reason}")]
    Unreachable { address: String, reason: String },
    /// An answer came that no server of ours gives.
    #[error("{address} answered what a meshctl server does not: {reason}")]
    Answer { address: String, reason: String },
    /// A file.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// Files with mistakes in them; with how many files were read.
    #[error("{}", count(.0.len(), "mistake", "mistakes"))]
    Invalid(Diagnostics),
    /// What was asked for makes no sense, or cannot be done; and what to do.
    #[error("{message}")]
    Refused { message: String, advice: String },
    /// The terminal or pipe that is written to.
    #[error("cannot write the answer: {0}")]
    Output(io::Error),
}

/// An answer that is an error: `docs/reference/api.md`, Errors.
#[derive(Debug, Default, Deserialize, thiserror::Error)]
#[serde(default)]
#[error("{message}")]
pub(crate) struct ApiError {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) request_id: String,
    #[serde(flatten)]
    pub(crate) details: Map<String, Value>,
    /// Whether it was asked for nothing but an answer.
    #[serde(skip)]
    pub(crate) is_read: bool,
}

impl CliError {
    pub(crate) fn refused(message: impl fmt::Display, advice: impl fmt::Display) -> Self {
        Self::Refused {
            message: message.to_string(),
            advice: advice.to_string(),
        }
    }

    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }

    /// The code of an error that came from the server.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Api(error) => Some(&error.code),
            _ => None,
        }
    }

    /// What to do about it.
    fn advice(&self) -> Option<String> {
        let text = match self {
            Self::Api(error) => return error.advice().map(str::to_owned),
            Self::Unreachable { address, reason } => {
                return Some(unreachable(address, reason));
            }
            Self::Answer { .. } => {
                "Is this the address of its HTTP API? -http-addr or MESHCTL_HTTP_ADDR gives \
                 another."
            }
            Self::Refused { advice, .. } => advice,
            Self::File { .. } | Self::Invalid(_) | Self::Output(_) => "",
        };
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// For the terminal, with a newline at the end.
    pub(crate) fn report(&self) -> String {
        let mut text = String::new();
        if let Self::Invalid(diagnostics) = self {
            text.push_str(&diagnostics.excerpts());
            text.push_str("\n\n");
        }
        text.push_str(&format!("Error: {self}\n"));
        for line in self.advice().iter().flat_map(|advice| advice.lines()) {
            text.push_str(&format!("  {line}\n"));
        }
        if let Self::Api(error) = self
            && !error.request_id.is_empty()
        {
            text.push_str(&format!("  (request {})\n", error.request_id));
        }
        text
    }
}

impl ApiError {
    fn advice(&self) -> Option<&'static str> {
        let busy = matches!(
            self.code.as_str(),
            "no_leader" | "not_ready" | "behind" | "overloaded" | "too_many_requests"
        );
        if busy && self.is_read {
            return Some(
                "Try again in a moment; `meshctl status` says how the cluster is. -stale, where a\n\
                 command takes it, answers with what this server has.",
            );
        }
        Some(match self.code.as_str() {
            "owned_by_another" => "-force takes it over.",
            _ if busy => {
                "Nothing was changed. Try again in a moment; `meshctl status` says how the \
                 cluster is."
            }
            "storage" => "See that server's disk and log; another server may still take it.",
            "forbidden" => {
                "Over TLS, -client-cert and -client-key give a certificate; `meshctl tls cert \
                 create -cli` makes one."
            }
            "unknown_outcome" => "It may have been written or not: look before you repeat it.",
            "no_such_route" => "Is the server older than this meshctl? `meshctl status` tells.",
            _ => return None,
        })
    }
}

fn unreachable(address: &str, reason: &str) -> String {
    let reason = reason.to_ascii_lowercase();
    let tls = ["alert", "certificate", "handshake", "tls"];
    match tls.iter().any(|word| reason.contains(word)) {
        true => "-ca-file (or MESHCTL_CACERT) names the cluster CA that is trusted; -client-cert \
                 and\n-client-key name your own certificate."
            .to_owned(),
        false => {
            let mut text = "Does it run there? -http-addr or MESHCTL_HTTP_ADDR gives another \
                            address."
                .to_owned();
            if address.starts_with("http:") {
                text.push_str("\nA server with TLS is reached at https://, with -ca-file.");
            }
            text
        }
    }
}

/// `1 mistake`, `2 mistakes`.
pub(crate) fn count(number: usize, one: &str, many: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {many}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_to_do_and_which_request_it_was() {
        let error = CliError::Api(ApiError {
            code: "owned_by_another".into(),
            message: "service web: belongs to terraform; change it there, or force".into(),
            request_id: "ab12".into(),
            ..ApiError::default()
        });
        assert_eq!(
            error.report(),
            "Error: service web: belongs to terraform; change it there, or force\n  -force takes \
             it over.\n  (request ab12)\n"
        );
    }

    #[test]
    fn a_read_is_not_spoken_of_as_a_write() {
        let mut error = ApiError {
            code: "no_leader".into(),
            message: "there is no leader".into(),
            ..ApiError::default()
        };
        let written = CliError::Api(ApiError {
            code: error.code.clone(),
            ..ApiError::default()
        });
        assert!(written.report().contains("Nothing was changed."));
        error.is_read = true;
        let text = CliError::Api(error).report();
        assert!(!text.contains("Nothing was changed."), "{text}");
        assert!(text.contains("-stale"), "{text}");
    }

    #[test]
    fn a_server_that_is_not_there_is_named_with_the_variable() {
        let error = CliError::Unreachable {
            address: "http://127.0.0.1:8700".into(),
            reason: "connection refused".into(),
        };
        let text = error.report();
        assert!(
            text.contains("http://127.0.0.1:8700: connection refused"),
            "{text}"
        );
        assert!(text.contains("MESHCTL_HTTP_ADDR"), "{text}");
    }
}
