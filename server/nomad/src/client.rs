//! One question at a time, with a limit to how long and how large the answer is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Certificate, Client, ClientBuilder, redirect};
use thiserror::Error;

/// How long Nomad may take.
const LIMIT: Duration = Duration::from_secs(5);
/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// How an address that is a socket's begins.
const UNIX: &str = "unix://";
/// What is asked for over a socket, where the name means nothing.
const SOCKET_BASE: &str = "http://nomad";
/// Where a token of Nomad's is sent.
const TOKEN: HeaderName = HeaderName::from_static("x-nomad-token");

/// Why Nomad's word is not had.
#[derive(Debug, Error)]
pub enum NomadError {
    /// It cannot be asked, whatever it says: a file is missing, or wrong.
    #[error("nomad: {key} {}: {reason}", path.display())]
    File {
        /// The key that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No client can be made.
    #[error("nomad: {0}")]
    Client(String),
    /// It was asked, and this came of it.
    #[error("{url}: {reason}")]
    Asked {
        /// What was asked.
        url: String,
        /// What was wrong.
        reason: String,
    },
}

/// Nomad's API at one address.
#[derive(Debug)]
pub struct Nomad {
    address: String,
    base: String,
    client: Client,
    token_file: Option<PathBuf>,
}

impl Nomad {
    /// At `address`, an URL or `unix:///path`. With `ca_file` no other CA counts. The token, if a
    /// file is told, is read for each question, since Nomad renews it.
    ///
    /// # Errors
    /// When `ca_file` cannot be read.
    pub fn new(
        address: &str,
        ca_file: Option<&Path>,
        token_file: Option<&Path>,
    ) -> Result<Self, NomadError> {
        let builder = Client::builder()
            .no_proxy()
            .timeout(LIMIT)
            .redirect(redirect::Policy::none());
        let address = address.trim_end_matches('/').to_owned();
        let (base, builder) = match address.strip_prefix(UNIX) {
            Some(path) => (SOCKET_BASE.to_owned(), builder.unix_socket(path)),
            None => (address.clone(), builder),
        };
        let builder = trust(builder, &base, ca_file)?;
        let client = builder.build();
        Ok(Self {
            client: client.map_err(|error| NomadError::Client(reason(&error)))?,
            address,
            base,
            token_file: token_file.map(Path::to_owned),
        })
    }

    /// What stands at `path`, which begins with `/` or is empty.
    ///
    /// # Errors
    /// When nothing answers in time, the answer is no success, or too large.
    pub async fn get(&self, path: &str) -> Result<Vec<u8>, NomadError> {
        let asked = |reason: String| NomadError::Asked {
            url: self.url(path),
            reason,
        };
        let failed = |error: reqwest::Error| asked(reason(&error.without_url()));
        let mut request = self.client.get(format!("{}{path}", self.base));
        if let Some(token) = self.token()? {
            request = request.header(TOKEN, token);
        }
        let mut answer = request.send().await.map_err(failed)?;
        if !answer.status().is_success() {
            return Err(asked(format!("answered with status {}", answer.status())));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(asked(format!("answered with more than {MAX_ANSWER} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// What is asked, for a message.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    fn token(&self) -> Result<Option<HeaderValue>, NomadError> {
        let Some(path) = &self.token_file else {
            return Ok(None);
        };
        let wrong = |reason: String| NomadError::File {
            key: "token_file",
            path: path.clone(),
            reason,
        };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let value = HeaderValue::from_str(text.trim());
        let mut value = value.map_err(|_| wrong("is not a token".to_owned()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

fn trust(
    builder: ClientBuilder,
    base: &str,
    ca_file: Option<&Path>,
) -> Result<ClientBuilder, NomadError> {
    let Some(path) = ca_file else {
        // Where no certificate is looked at, a machine need not have any to trust.
        return Ok(match base.starts_with("http://") {
            true => builder.tls_certs_only([]),
            false => builder,
        });
    };
    let wrong = |reason: String| NomadError::File {
        key: "ca_file",
        path: path.to_owned(),
        reason,
    };
    let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&pem);
    let certificates = certificates.map_err(|error| wrong(error.to_string()))?;
    Ok(builder.tls_certs_only(certificates))
}

/// An error with all of its causes: reqwest's own text names only the first.
fn reason(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use axum::Router;
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::get;

    fn router() -> Router {
        let told = |headers: HeaderMap| async move {
            let token = headers.get("x-nomad-token").map(|it| it.to_str().unwrap());
            token.unwrap_or("none").to_owned()
        };
        Router::new()
            .route("/token", get(told))
            .route("/long", get(|| async { vec![b'x'; MAX_ANSWER + 1] }))
            .route("/no", get(|| async { StatusCode::FORBIDDEN }))
    }

    async fn text(nomad: &Nomad, path: &str) -> Result<String, String> {
        let body = nomad.get(path).await.map_err(|error| error.to_string())?;
        Ok(String::from_utf8(body).unwrap())
    }

    #[tokio::test]
    async fn over_tcp_without_a_token_and_within_limits() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router()).await });
        let nomad = Nomad::new(&address, None, None).unwrap();
        assert_eq!(text(&nomad, "/token").await.unwrap(), "none");
        let error = text(&nomad, "/no").await.unwrap_err();
        assert!(error.contains("/no: answered with status 403"), "{error}");
        let error = text(&nomad, "/long").await.unwrap_err();
        assert!(error.contains("more than"), "{error}");
    }

    #[tokio::test]
    async fn over_a_socket_with_the_token_as_it_stands_now() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("api.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move { axum::serve(listener, router()).await });
        let token = dir.path().join("token");
        let address = format!("unix://{}", socket.display());
        let nomad = Nomad::new(&address, None, Some(&token)).unwrap();
        let error = text(&nomad, "/token").await.unwrap_err();
        assert!(error.starts_with("nomad: token_file "), "{error}");
        for one in ["first", "second"] {
            std::fs::write(&token, format!("{one}\n")).unwrap();
            assert_eq!(text(&nomad, "/token").await.unwrap(), one);
        }
        drop(dir);
    }

    #[tokio::test]
    async fn what_is_not_there_is_named() {
        let nomad = Nomad::new("unix:///nowhere/api.sock", None, None).unwrap();
        let error = text(&nomad, "/v1").await.unwrap_err();
        assert!(
            error.starts_with("unix:///nowhere/api.sock/v1: "),
            "{error}"
        );
        let missing = Some(Path::new("/nowhere/ca.pem"));
        let error = Nomad::new("https://127.0.0.1:1", missing, None).unwrap_err();
        assert!(error.to_string().contains("ca_file /nowhere/ca.pem"));
    }
}
