//! A root that is not Vault's, or another one of its own, certified by a root that is.

use rustify::enums::RequestMethod;
use rustify::errors::ClientError as RestError;
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use vaultrs::api::{self, pki::responses::SignSelfIssuedResponse};

use super::Vault;
use crate::error::CaError;
use crate::x509;

/// `sign-self-issued` of one issuer: vaultrs knows only that of the default one, which asks for
/// the right of `sudo`.
#[derive(Debug, Serialize)]
struct SignSelfIssued<'a> {
    #[serde(skip)]
    mount: &'a str,
    #[serde(skip)]
    issuer: &'a str,
    certificate: &'a str,
}

impl rustify::Endpoint for SignSelfIssued<'_> {
    type Response = SignSelfIssuedResponse;
    const REQUEST_BODY_TYPE: rustify::enums::RequestType = rustify::enums::RequestType::JSON;
    const RESPONSE_BODY_TYPE: rustify::enums::ResponseType = rustify::enums::ResponseType::JSON;

    fn path(&self) -> String {
        format!("{}/issuer/{}/sign-self-issued", self.mount, self.issuer)
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::POST
    }

    fn body(&self) -> Result<Option<Vec<u8>>, RestError> {
        let body = serde_json::to_vec(self).map_err(|error| RestError::DataParseError {
            source: error.into(),
        })?;
        Ok(Some(body))
    }
}

impl Vault {
    /// The name and the key of a root (PEM) in a certificate of an issuer at a mount.
    pub(crate) async fn certify_root(
        &self,
        mount: &str,
        issuer: &str,
        root: &str,
    ) -> Result<CertificateDer<'static>, CaError> {
        let what = format!("POST {mount}/issuer/{issuer}/sign-self-issued");
        let signed = self.ask(&what, |client| async move {
            let wish = SignSelfIssued {
                mount,
                issuer,
                certificate: root,
            };
            api::exec_with_result(&*client, wish).await
        });
        x509::certificate_der("the cross-signature of Vault", &signed.await?.certificate)
    }
}
