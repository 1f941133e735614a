//! What is asked of AWS Private CA, and what is thought of its refusals.
//!
//! Four questions, behind a trait: so that what is made of the answers is compiled and tested in
//! every build, and only who asks them ([`sdk`](super::sdk)) is behind the cargo feature.

use async_trait::async_trait;

use crate::authority::AuthorityError;
use crate::state::AWS_PCA;
use crate::vault::line;

/// AWS Private CA, as it is asked. `arn`: the CA's.
#[async_trait]
pub(crate) trait Pca: Send + Sync {
    /// DescribeCertificateAuthority.
    async fn describe(&self, arn: &str) -> Result<Described, Trouble>;

    /// GetCertificateAuthorityCertificate: the CA's certificate and what is above it, PEM.
    async fn chain(&self, arn: &str) -> Result<String, Trouble>;

    /// IssueCertificate; the certificate's ARN. Nothing is signed yet.
    async fn issue(&self, arn: &str, wish: &Wish) -> Result<String, Trouble>;

    /// GetCertificate, PEM; `None`: it is not signed yet.
    async fn certificate(&self, arn: &str, certificate: &str) -> Result<Option<String>, Trouble>;
}

/// A CA, as AWS describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    /// `ACTIVE`, `DISABLED`, `EXPIRED`, …
    pub(crate) status: String,
    /// What its key signs with, such as `SHA256WITHECDSA`.
    pub(crate) signing_algorithm: String,
}

/// A wish for an intermediate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The request, PEM.
    pub(crate) csr: String,
    /// What the CA's key signs with.
    pub(crate) signing_algorithm: String,
    /// Valid to, in seconds since 1970.
    pub(crate) not_after: u64,
    /// The same for the same wish: asked again, AWS does not sign, and charge, twice. At most 36
    /// characters.
    pub(crate) token: String,
}

/// Why AWS did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It may, later.
    Unavailable(String),
    /// It was asked too often.
    Limited(String),
    /// Not until somebody changes something.
    Denied(String),
    /// The CA is not active: disabled, expired, deleted, without a certificate.
    Unusable(String),
}

impl From<Trouble> for AuthorityError {
    fn from(trouble: Trouble) -> Self {
        let (provider, retry_after) = (AWS_PCA, None);
        match trouble {
            Trouble::Unavailable(reason) | Trouble::Unusable(reason) => Self::Unavailable {
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

/// What AWS said when it did not do what it was asked.
#[cfg_attr(not(feature = "aws"), allow(dead_code))]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Said<'a> {
    /// The status of its answer.
    pub(crate) status: u16,
    /// Its name for what is wrong, such as `AccessDeniedException`.
    pub(crate) code: Option<&'a str>,
    /// Its words.
    pub(crate) message: Option<&'a str>,
    /// By which its support finds the request.
    pub(crate) request_id: Option<&'a str>,
}

/// What is to be thought of it. `what` is what was asked.
#[cfg_attr(not(feature = "aws"), allow(dead_code))]
pub(crate) fn trouble(what: &str, said: Said<'_>) -> Trouble {
    let code = said.code.unwrap_or("no code");
    let message = line(said.message.unwrap_or("it says no more"));
    let request = said.request_id.map(|id| format!(" (request {id})"));
    let reason = format!(
        "{what}: {} {code}: {message}{}",
        said.status,
        request.unwrap_or_default()
    );
    match code {
        "ThrottlingException"
        | "Throttling"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "LimitExceededException" => Trouble::Limited(reason),
        "InvalidStateException" => Trouble::Unusable(reason),
        _ if said.status == 429 => Trouble::Limited(reason),
        _ if said.status >= 500 => Trouble::Unavailable(reason),
        _ => Trouble::Denied(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aws_speaks_for_itself_and_names_the_request() {
        let said = Said {
            status: 400,
            code: Some("AccessDeniedException"),
            message: Some("User: arn:aws:iam::1:user/m\n is not authorized to perform: x"),
            request_id: Some("7a62c49f"),
        };
        let expected = "IssueCertificate: 400 AccessDeniedException: User: arn:aws:iam::1:user/m is \
                        not authorized to perform: x (request 7a62c49f)";
        let told = trouble("IssueCertificate", said);
        assert_eq!(told, Trouble::Denied(expected.to_owned()));
    }

    #[test]
    fn what_may_pass_is_told_from_what_will_not() {
        for (status, code, temporary) in [
            (400, "ThrottlingException", true),
            (400, "LimitExceededException", true),
            (400, "InvalidStateException", true),
            (429, "", true),
            (500, "InternalFailure", true),
            (503, "ServiceUnavailable", true),
            (400, "AccessDeniedException", false),
            (400, "UnrecognizedClientException", false),
            (400, "ResourceNotFoundException", false),
            (400, "ValidationException", false),
        ] {
            let told = trouble(
                "x",
                Said {
                    status,
                    code: Some(code),
                    ..Said::default()
                },
            );
            let error = AuthorityError::from(told);
            assert_eq!(error.is_temporary(), temporary, "{status} {code}");
        }
    }
}
