//! What Vault says when it does not do what it was asked, on one line and in its own words.

use std::time::Duration;

use vaultrs::error::ClientError;

use crate::authority::AuthorityError;
use crate::state::VAULT;

/// The longest that an error of Vault's is told, in characters.
const LONGEST: usize = 600;

/// Why Vault did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It may, later.
    Unavailable(String),
    /// It was asked too often.
    Limited(String),
    /// Not until somebody changes something.
    Denied(String),
}

impl From<Trouble> for AuthorityError {
    fn from(trouble: Trouble) -> Self {
        let (provider, retry_after) = (VAULT, None);
        match trouble {
            Trouble::Unavailable(reason) => Self::Unavailable {
                provider,
                reason,
                retry_after,
            },
            Trouble::Limited(reason) => Self::RateLimited {
                provider,
                reason,
                retry_after,
            },
            Trouble::Denied(reason) => Self::Denied { provider, reason },
        }
    }
}

/// Whether it says no to us: to the token, or to what the token may do.
pub(super) fn is_forbidden(error: &ClientError) -> bool {
    status(error) == Some(403)
}

/// The status of an answer that is not one of success.
pub(super) fn status(error: &ClientError) -> Option<u16> {
    match error {
        ClientError::APIError { code, .. } => Some(*code),
        ClientError::RestClientError {
            source: rustify::errors::ClientError::ServerResponseError { code, .. },
        } => Some(*code),
        _ => None,
    }
}

/// What is to be thought of an error. `what` is what was asked.
pub(super) fn trouble(what: &str, error: &ClientError, took: Duration) -> Trouble {
    let said = said(error, took);
    match status(error) {
        Some(code) => {
            let reason = format!("{what}: {code}: {said}");
            match code {
                429 => Trouble::Limited(reason),
                // Not caught up yet, a standby, or its own fault.
                412 | 472 | 473 | 500.. => Trouble::Unavailable(reason),
                _ => Trouble::Denied(reason),
            }
        }
        None => Trouble::Unavailable(format!("{what}: {said}")),
    }
}

/// Vault's own words, or what kept us from hearing any.
fn said(error: &ClientError, took: Duration) -> String {
    let text = match error {
        ClientError::APIError { errors, .. } if !errors.is_empty() => errors.join("; "),
        ClientError::APIError { .. } => "it says no more".to_owned(),
        ClientError::RestClientError {
            source: rustify::errors::ClientError::ServerResponseError { content, .. },
        } => content.clone().unwrap_or_default(),
        ClientError::ResponseEmptyError | ClientError::ResponseDataEmptyError => {
            "its answer is empty".to_owned()
        }
        other => {
            // The chain ends with what happened; before that stand three words for "request".
            let mut last: &dyn std::error::Error = other;
            while let Some(next) = last.source() {
                last = next;
            }
            let last = last.to_string();
            match last.contains("timed out") {
                true => format!("no answer within {:.1} s", took.as_secs_f32()),
                false => last,
            }
        }
    };
    line(&text)
}

/// On one line, not without end, and without the counting of Go's errors.
pub(crate) fn line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    let text = text.strip_prefix("1 error occurred: * ").unwrap_or(&text);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16, said: &str) -> ClientError {
        ClientError::APIError {
            code,
            errors: vec![said.to_owned()],
        }
    }

    #[test]
    fn vault_speaks_for_itself() {
        let error = api(403, "1 error occurred:\n\t* permission denied\n\n");
        let told = trouble("POST pki_mesh/sign/leaf", &error, Duration::ZERO);
        let expected = "POST pki_mesh/sign/leaf: 403: permission denied";
        assert_eq!(told, Trouble::Denied(expected.to_owned()));
        assert_eq!(line(&"x".repeat(5000)).chars().count(), LONGEST + 1);
    }

    #[test]
    fn what_may_pass_is_told_from_what_will_not() {
        for (code, temporary) in [
            (400, false),
            (403, false),
            (404, false),
            (412, true),
            (429, true),
            (473, true),
            (500, true),
            (503, true),
        ] {
            let told = trouble("x", &api(code, "y"), Duration::ZERO);
            let error = AuthorityError::from(told);
            assert_eq!(error.is_temporary(), temporary, "{code}");
        }
        let empty = trouble("x", &ClientError::ResponseEmptyError, Duration::ZERO);
        assert!(matches!(empty, Trouble::Unavailable(_)));
    }
}
