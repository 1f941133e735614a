//! One question at a time, with a limit to how long and how large the answer is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Certificate, Client, ClientBuilder, Identity, Method, redirect};
use thiserror::Error;

/// How long Nomad may take.
const LIMIT: Duration = Duration::from_secs(5);
/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// The same for an operator, who reads whole lists of nodes and waits for a plan.
const OPERATOR_LIMIT: Duration = Duration::from_secs(30);
/// The same for an operator, in bytes.
const OPERATOR_MAX_ANSWER: usize = 32 * 1024 * 1024;
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
    token: Token,
    max_answer: usize,
}

/// What proves who asks.
#[derive(Debug)]
enum Token {
    None,
    /// Read for each question.
    File(PathBuf),
    /// Never printed.
    Value(HeaderValue),
}

/// How an operator's program reaches Nomad, as Nomad's own does.
#[derive(Clone, Default)]
pub struct Access {
    /// A URL, or `unix:///path`.
    pub address: String,
    /// Whom to trust, PEM; no others count then.
    pub ca: Option<Vec<u8>>,
    /// A client's certificate and its key, PEM, one after the other.
    pub identity: Option<Vec<u8>>,
    /// A token of Nomad's.
    pub token: Option<String>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// What came of a call that Nomad answered, with whatever status.
#[derive(Debug)]
pub struct Answer {
    /// HTTP's status.
    pub status: u16,
    /// What it says.
    pub body: Vec<u8>,
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
        let (address, base, builder) = at(address, LIMIT);
        let builder = trust(builder, &base, ca_file)?;
        let client = builder.build();
        Ok(Self {
            client: client.map_err(|error| NomadError::Client(reason(&error)))?,
            address,
            base,
            token: token_file.map_or(Token::None, |path| Token::File(path.to_owned())),
            max_answer: MAX_ANSWER,
        })
    }

    /// As an operator reaches it: it may take longer, and say more.
    ///
    /// # Errors
    /// When a certificate or the token cannot be read.
    pub fn operator(access: &Access) -> Result<Self, NomadError> {
        let wrong = |what: &str| NomadError::Client(format!("{what} cannot be read"));
        let (address, base, mut builder) = at(&access.address, OPERATOR_LIMIT);
        builder = match &access.ca {
            Some(pem) => match Certificate::from_pem_bundle(pem) {
                Ok(found) if !found.is_empty() => builder.tls_certs_only(found),
                _ => return Err(wrong("the CA's certificate")),
            },
            None => trust(builder, &base, None)?,
        };
        if let Some(pem) = &access.identity {
            let identity = Identity::from_pem(pem);
            builder =
                builder.identity(identity.map_err(|_| wrong("the client's certificate or key"))?);
        }
        let token = match &access.token {
            None => Token::None,
            Some(token) => {
                let value = HeaderValue::from_str(token.trim());
                let mut value = value.map_err(|_| wrong("the token"))?;
                value.set_sensitive(true);
                Token::Value(value)
            }
        };
        let client = builder.build();
        Ok(Self {
            client: client.map_err(|error| NomadError::Client(reason(&error)))?,
            address,
            base,
            token,
            max_answer: OPERATOR_MAX_ANSWER,
        })
    }

    /// Asks for `path`, which begins with `/`, and takes whatever status comes.
    ///
    /// # Errors
    /// When nothing answers in time, or the answer is too large.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Answer, NomadError> {
        let asked = |reason: String| NomadError::Asked {
            url: self.url(path),
            reason,
        };
        let failed = |error: reqwest::Error| asked(reason(&error.without_url()));
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(token) = self.token()? {
            request = request.header(TOKEN, token);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let mut answer = request.send().await.map_err(failed)?;
        let status = answer.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > self.max_answer {
                let most = self.max_answer;
                return Err(asked(format!("answered with more than {most} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body })
    }

    /// What stands at `path`, which begins with `/` or is empty.
    ///
    /// # Errors
    /// When nothing answers in time, the answer is no success, or too large.
    pub async fn get(&self, path: &str) -> Result<Vec<u8>, NomadError> {
        let answer = self.call(Method::GET, path, None).await?;
        match reqwest::StatusCode::from_u16(answer.status) {
            Ok(status) if status.is_success() => Ok(answer.body),
            Ok(status) => Err(NomadError::Asked {
                url: self.url(path),
                reason: format!("answered with status {status}"),
            }),
            Err(_) => Err(NomadError::Asked {
                url: self.url(path),
                reason: format!("answered with status {}", answer.status),
            }),
        }
    }

    /// What is asked, for a message.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    fn token(&self) -> Result<Option<HeaderValue>, NomadError> {
        let path = match &self.token {
            Token::None => return Ok(None),
            Token::Value(value) => return Ok(Some(value.clone())),
            Token::File(path) => path,
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

/// The address as it is named, what is asked for there, and who asks.
fn at(address: &str, limit: Duration) -> (String, String, ClientBuilder) {
    let builder = Client::builder()
        .no_proxy()
        .timeout(limit)
        .redirect(redirect::Policy::none());
    let address = address.trim_end_matches('/').to_owned();
    match address.strip_prefix(UNIX) {
        Some(path) => {
            let builder = builder.unix_socket(path);
            (address, SOCKET_BASE.to_owned(), builder)
        }
        None => (address.clone(), address, builder),
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
    async fn an_operator_hears_every_status_and_sends_a_body() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let said = |headers: HeaderMap, body: String| async move {
            let token = headers.get("x-nomad-token").map(|it| it.to_str().unwrap());
            (StatusCode::CONFLICT, format!("{token:?} {body}"))
        };
        let router = Router::new().route("/v1/jobs", axum::routing::put(said));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let access = Access {
            address,
            token: Some("s3cret\n".to_owned()),
            ..Access::default()
        };
        let nomad = Nomad::operator(&access).unwrap();
        let answer = nomad.call(Method::PUT, "/v1/jobs", Some(b"{}".to_vec()));
        let answer = answer.await.unwrap();
        assert_eq!(answer.status, 409);
        assert_eq!(
            String::from_utf8(answer.body).unwrap(),
            "Some(\"s3cret\") {}"
        );
        assert!(!format!("{access:?} {nomad:?}").contains("s3cret"));
        let wrong = Access {
            ca: Some(b"no certificate".to_vec()),
            ..Access::default()
        };
        assert!(Nomad::operator(&wrong).is_err());
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
