//! The connection: an HTTP client with the operator's certificates, and Vault's health by it.

use std::path::Path;
use std::sync::Arc;

use vaultrs::api::EndpointMiddleware;
use vaultrs::client::{VaultClient, VaultClientSettings};

use super::health::VaultState;
use super::{ANSWER, VaultOptions, words};

/// The longest certificate or key file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

pub(super) struct Connection {
    http: reqwest::Client,
    /// As it is asked: with the name that Vault's certificate must have.
    address: url::Url,
    /// As the operator wrote it.
    shown: String,
    namespace: Option<String>,
}

/// Finds the one name that requests are made with where another host is.
#[derive(Debug)]
struct Elsewhere(String);

impl reqwest::dns::Resolve for Elsewhere {
    fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let host = self.0.clone();
        Box::pin(async move {
            // The port is the address'.
            let found: Vec<_> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

impl Connection {
    pub(super) fn new(options: &VaultOptions) -> Result<Self, String> {
        let address = options.address.trim_end_matches('/');
        let mut address: url::Url = address
            .parse()
            .map_err(|error| format!("address {address}: {error}"))?;
        let shown = address.to_string();
        // Nothing that follows a redirect: it would be given the token.
        let mut builder = reqwest::Client::builder()
            .timeout(ANSWER)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tls_backend_rustls();
        match (&options.ca_file, address.scheme()) {
            (Some(file), _) => {
                let pem = read(file)?;
                let found = reqwest::Certificate::from_pem_bundle(&pem)
                    .map_err(|error| format!("ca_file {}: {error}", file.display()))?;
                if found.is_empty() {
                    return Err(format!("ca_file {}: has no certificate", file.display()));
                }
                builder = builder.tls_certs_only(found);
            }
            // A machine may have no CA certificates at all; plain HTTP needs none.
            (None, "http") => builder = builder.tls_certs_only([]),
            (None, _) => {}
        }
        if let Some((cert, key)) = &options.identity {
            let mut pem = read(cert)?;
            pem.push(b'\n');
            pem.extend(read(key)?);
            let identity = reqwest::Identity::from_pem(&pem);
            // What is wrong with a key is not told: the words could be of the key.
            let identity = identity.map_err(|_| {
                format!(
                    "cert_file {} and key_file {}: are not a certificate and its key in PEM",
                    cert.display(),
                    key.display()
                )
            })?;
            builder = builder.identity(identity);
        }
        if let Some(name) = &options.server_name {
            let host = match address.host() {
                Some(url::Host::Domain(host)) => host.to_owned(),
                Some(url::Host::Ipv4(address)) => address.to_string(),
                Some(url::Host::Ipv6(address)) => address.to_string(),
                None => return Err(format!("address {shown}: has no host")),
            };
            address
                .set_host(Some(name))
                .map_err(|error| format!("tls_server_name {name}: {error}"))?;
            builder = builder.dns_resolver(Arc::new(Elsewhere(host)));
        }
        let http = builder.build().map_err(|error| error.to_string())?;
        Ok(Self {
            http,
            address,
            shown,
            namespace: options.namespace.clone(),
        })
    }

    /// Where Vault is, as the operator wrote it.
    pub(super) fn address(&self) -> &str {
        &self.shown
    }

    /// A client with this token; it must be [`header`]-safe. Empty: none.
    pub(super) fn client(&self, token: &str) -> Arc<VaultClient> {
        Arc::new(VaultClient {
            http: rustify::clients::reqwest::Client::new(self.address.as_str(), self.http.clone()),
            middle: EndpointMiddleware {
                token: token.to_owned(),
                version: "v1".to_owned(),
                wrap: None,
                namespace: self.namespace.clone(),
            },
            settings: VaultClientSettings {
                address: self.address.clone(),
                ca_certs: Vec::new(),
                identity: None,
                timeout: Some(ANSWER),
                token: String::new(),
                verify: true,
                version: 1,
                wrapping: false,
                namespace: self.namespace.clone(),
                proxy: None,
            },
        })
    }

    /// How it does, and why not well. Asked of no namespace, and without a token.
    pub(super) async fn ask_health(&self) -> (VaultState, Option<String>) {
        let path = "v1/sys/health?standbyok=true&perfstandbyok=true";
        let url = match self.address.join(path) {
            Ok(url) => url,
            Err(error) => return (VaultState::Down, Some(error.to_string())),
        };
        let begin = tokio::time::Instant::now();
        let answer = match self.http.get(url).send().await {
            Ok(answer) => answer,
            Err(error) => {
                let mut last: &dyn std::error::Error = &error;
                while let Some(next) = last.source() {
                    last = next;
                }
                let why = match error.is_timeout() {
                    true => format!("no answer within {:.1} s", begin.elapsed().as_secs_f32()),
                    false => words::line(&last.to_string()),
                };
                return (VaultState::Down, Some(format!("sys/health: {why}")));
            }
        };
        match answer.status().as_u16() {
            200 | 429 | 472 | 473 => (VaultState::Ok, None),
            501 => (
                VaultState::Sealed,
                Some("Vault is not initialized".to_owned()),
            ),
            503 => (VaultState::Sealed, Some("Vault is sealed".to_owned())),
            code => (
                VaultState::Down,
                Some(format!("sys/health: answers {code}")),
            ),
        }
    }
}

/// Whether a text can stand in a header as it is: visible ASCII, as all tokens are.
pub(super) fn header(text: &str) -> bool {
    !text.is_empty() && text.len() <= 16 * 1024 && text.bytes().all(|b| b.is_ascii_graphic())
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let error = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(error)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(error)?;
    match bytes.len() as u64 > MAX_FILE {
        true => Err(format!(
            "{}: is longer than {MAX_FILE} bytes",
            path.display()
        )),
        false => Ok(bytes),
    }
}
