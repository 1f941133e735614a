//! A server's HTTP API, as far as it is needed here.

use std::sync::Arc;
use std::time::Duration;

use mesh_tls::{ClusterTls, Role};
use reqwest::{Client, Method};
use serde::Deserialize;

use crate::certs;
use crate::describe::ServersTls;
use crate::error::ProvisionError;

/// How long a server may take; one that is slower does not answer.
const LIMIT: Duration = Duration::from_secs(5);
/// How long a change of the membership may take.
const CHANGE: Duration = Duration::from_secs(35);
/// Who this is, in a certificate that is made for one run.
const OWN_NAME: &str = "provision";

/// How servers know who asks.
#[derive(Clone, Debug)]
pub struct MeshAccess(Arc<ClusterTls>);

impl MeshAccess {
    /// With an operator's certificate.
    pub fn new(tls: Arc<ClusterTls>) -> Self {
        Self(tls)
    }

    /// With one that the cluster CA makes for this run, where its key is given.
    ///
    /// # Errors
    /// When the CA cannot be read.
    pub fn issued(tls: &ServersTls) -> Result<Option<Self>, ProvisionError> {
        let ServersTls::Issued { ca, key: Some(key) } = tls else {
            return Ok(None);
        };
        let own = certs::issue(ca, key, Role::Cli, OWN_NAME)?;
        let read = ClusterTls::from_pem(
            ca.as_bytes(),
            own.certificate.as_bytes(),
            own.key.expose().as_bytes(),
        );
        let read = read.map_err(|error| ProvisionError::invalid("tls", error.to_string()))?;
        Ok(Some(Self(Arc::new(read))))
    }

    pub(crate) fn client(&self) -> Result<Mesh, ProvisionError> {
        let built = Client::builder()
            .tls_backend_preconfigured(self.0.https_config())
            .no_proxy()
            .connect_timeout(LIMIT)
            .build();
        let built = built.map_err(|error| ProvisionError::invalid("tls", error.to_string()))?;
        Ok(Mesh(built))
    }
}

/// Servers that can be asked.
#[derive(Clone, Debug)]
pub(crate) struct Mesh(Client);

/// What a server says of itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) server: Peer,
    pub(crate) cluster: Option<ClusterName>,
    pub(crate) state: String,
    pub(crate) index: u64,
    #[serde(skip)]
    pub(crate) is_ready: bool,
    #[serde(skip)]
    pub(crate) reason: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ClusterName {
    pub(crate) id: String,
    pub(crate) trust_domain: String,
}

/// A member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Peer {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) voter: bool,
    pub(crate) leader: bool,
}

#[derive(Deserialize)]
struct Ready {
    ready: bool,
    #[serde(default)]
    reason: String,
}

impl Mesh {
    async fn ask<T: for<'a> Deserialize<'a>>(
        &self,
        method: Method,
        address: &str,
        path: &str,
        limit: Duration,
    ) -> Result<(u16, T), ProvisionError> {
        let wrong = |reason: String| ProvisionError::Mesh {
            address: address.to_owned(),
            reason,
        };
        let url = format!("https://{address}{path}");
        let sent = self.0.request(method, url).timeout(limit).send().await;
        let failed = |error: reqwest::Error| {
            let text = error.without_url().to_string();
            wrong(text.chars().take(400).collect())
        };
        let answer = sent.map_err(failed)?;
        let status = answer.status().as_u16();
        let body = answer.bytes().await.map_err(failed)?;
        let read = serde_json::from_slice(&body);
        let said = || {
            String::from_utf8_lossy(&body)
                .chars()
                .take(400)
                .collect::<String>()
        };
        read.map(|read| (status, read))
            .map_err(|_| wrong(format!("answers with status {status}: {}", said())))
    }

    /// How a server is; an error where it does not answer, or not to us.
    pub(crate) async fn status(&self, address: &str) -> Result<Status, ProvisionError> {
        let (code, mut status): (u16, Status) =
            self.ask(Method::GET, address, "/v1/status", LIMIT).await?;
        if code != 200 {
            return Err(ProvisionError::Mesh {
                address: address.to_owned(),
                reason: format!(
                    "answers with status {code}; is the certificate an operator's of this cluster?"
                ),
            });
        }
        let (code, ready): (u16, Ready) = self
            .ask(Method::GET, address, "/v1/status/ready", LIMIT)
            .await?;
        status.is_ready = code == 200 && ready.ready;
        status.reason = ready.reason;
        Ok(status)
    }

    /// The members, as this server has them.
    pub(crate) async fn peers(&self, address: &str) -> Result<Vec<Peer>, ProvisionError> {
        let path = "/v1/operator/raft/peers";
        let (_, peers) = self.ask(Method::GET, address, path, LIMIT).await?;
        Ok(peers)
    }

    /// Takes a member out; `false`: nobody knows whether it is. A leader that takes itself out, or falls
    /// meanwhile, cannot say: the next look at the members does.
    pub(crate) async fn remove(&self, address: &str, id: &str) -> Result<bool, ProvisionError> {
        let path = format!("/v1/operator/raft/peers/{id}");
        let asked = self.ask(Method::DELETE, address, &path, CHANGE).await;
        let (code, said): (u16, serde_json::Value) = match asked {
            Err(ProvisionError::Mesh { .. }) => return Ok(false),
            answered => answered?,
        };
        match code {
            200 | 404 => Ok(true),
            503 | 504 => Ok(false),
            _ => Err(ProvisionError::Mesh {
                address: address.to_owned(),
                reason: format!("does not take server {id} out: {said}"),
            }),
        }
    }
}
