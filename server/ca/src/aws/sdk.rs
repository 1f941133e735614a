//! AWS Private CA by AWS's own SDK.

use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_acmpca::Client;
use aws_sdk_acmpca::config::http::HttpResponse;
use aws_sdk_acmpca::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_acmpca::operation::RequestId;
use aws_sdk_acmpca::primitives::Blob;
use aws_sdk_acmpca::types::{Validity, ValidityPeriodType};
use tokio::sync::Mutex;

use super::AwsOptions;
use super::pca::{Described, Pca, Said, Trouble, Wish, trouble};
use crate::vault::line;

/// How long a connection, one attempt and all of them may take.
const LIMITS: [Duration; 3] = [
    Duration::from_secs(3),
    Duration::from_secs(8),
    Duration::from_secs(20),
];

/// See the module.
pub(super) struct Sdk {
    options: AwsOptions,
    /// For a region. Dropped when we are refused: files and roles are then read anew.
    client: Mutex<Option<(String, Client)>>,
}

impl Sdk {
    pub(super) fn new(options: AwsOptions) -> Self {
        Self {
            options,
            client: Mutex::new(None),
        }
    }

    async fn client(&self, arn: &str) -> Result<Client, Trouble> {
        let mut parts = arn.split(':').skip(3);
        let Some(region) = parts.next().filter(|region| !region.is_empty()) else {
            return Err(Trouble::Denied(format!("{arn}: names no region")));
        };
        let mut kept = self.client.lock().await;
        if let Some((of, client)) = &*kept
            && of == region
        {
            return Ok(client.clone());
        }
        let [connect, attempt, all] = LIMITS;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(connect)
            .operation_attempt_timeout(attempt)
            .operation_timeout(all);
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .region(Region::new(region.to_owned()))
            .timeout_config(timeouts.build())
            .retry_config(RetryConfig::standard());
        if let Some(endpoint) = &self.options.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        let client = Client::new(&loader.load().await);
        *kept = Some((region.to_owned(), client.clone()));
        Ok(client)
    }

    /// What is thought of an error.
    async fn trouble<E>(&self, what: &str, error: SdkError<E, HttpResponse>) -> Trouble
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let found = judge(what, &error);
        if matches!(found, Trouble::Denied(_) | Trouble::Unavailable(_)) {
            *self.client.lock().await = None;
        }
        found
    }
}

#[async_trait]
impl Pca for Sdk {
    async fn describe(&self, arn: &str) -> Result<Described, Trouble> {
        let what = format!("DescribeCertificateAuthority {arn}");
        let client = self.client(arn).await?;
        let ask = client.describe_certificate_authority();
        let answer = ask.certificate_authority_arn(arn).send().await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Err(self.trouble(&what, error).await),
        };
        let authority = answer
            .certificate_authority
            .unwrap_or_else(|| aws_sdk_acmpca::types::CertificateAuthority::builder().build());
        let config = authority.certificate_authority_configuration;
        Ok(Described {
            status: authority
                .status
                .map_or("UNKNOWN".to_owned(), |status| status.as_str().to_owned()),
            signing_algorithm: config.map_or(String::new(), |config| {
                config.signing_algorithm.as_str().to_owned()
            }),
        })
    }

    async fn chain(&self, arn: &str) -> Result<String, Trouble> {
        let what = format!("GetCertificateAuthorityCertificate {arn}");
        let client = self.client(arn).await?;
        let ask = client.get_certificate_authority_certificate();
        let answer = ask.certificate_authority_arn(arn).send().await;
        match answer {
            Ok(answer) => Ok(format!(
                "{}\n{}\n",
                answer.certificate().unwrap_or_default().trim(),
                answer.certificate_chain().unwrap_or_default().trim()
            )),
            Err(error) => Err(self.trouble(&what, error).await),
        }
    }

    async fn issue(&self, arn: &str, wish: &Wish) -> Result<String, Trouble> {
        let what = format!("IssueCertificate {arn}");
        let partition = arn.split(':').nth(1).unwrap_or("aws");
        let until = i64::try_from(wish.not_after).unwrap_or(i64::MAX);
        let validity = Validity::builder()
            .r#type(ValidityPeriodType::Absolute)
            .value(until)
            .build()
            .map_err(|error| Trouble::Denied(format!("{what}: {error}")))?;
        let answer = self
            .client(arn)
            .await?
            .issue_certificate()
            .certificate_authority_arn(arn)
            .template_arn(format!(
                "arn:{partition}:acm-pca:::template/SubordinateCACertificate_PathLen0/V1"
            ))
            .csr(Blob::new(wish.csr.as_bytes()))
            .signing_algorithm(wish.signing_algorithm.as_str().into())
            .validity(validity)
            .idempotency_token(&wish.token)
            .send()
            .await;
        match answer {
            Ok(answer) => answer.certificate_arn.ok_or_else(|| {
                Trouble::Unavailable(format!("{what}: the answer names no certificate"))
            }),
            Err(error) => Err(self.trouble(&what, error).await),
        }
    }

    async fn certificate(&self, arn: &str, certificate: &str) -> Result<Option<String>, Trouble> {
        let what = format!("GetCertificate {certificate}");
        let client = self.client(arn).await?;
        let ask = client.get_certificate().certificate_authority_arn(arn);
        match ask.certificate_arn(certificate).send().await {
            Ok(answer) => Ok(answer.certificate),
            Err(error) if error.code() == Some("RequestInProgressException") => Ok(None),
            Err(error) => Err(self.trouble(&what, error).await),
        }
    }
}

fn judge<E>(what: &str, error: &SdkError<E, HttpResponse>) -> Trouble
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    if let SdkError::ServiceError(service) = error {
        return trouble(
            what,
            Said {
                status: service.raw().status().as_u16(),
                code: service.err().code(),
                message: service.err().message(),
                request_id: error.request_id(),
            },
        );
    }
    // The chain ends with what happened.
    let mut last: &dyn std::error::Error = error;
    while let Some(next) = last.source() {
        last = next;
    }
    let reason = format!("{what}: {}", line(&last.to_string()));
    match error {
        // Such as no credentials anywhere in the chain.
        SdkError::ConstructionFailure(_) => Trouble::Denied(reason),
        SdkError::DispatchFailure(failure) if failure.is_other() => Trouble::Denied(reason),
        _ => Trouble::Unavailable(reason),
    }
}
