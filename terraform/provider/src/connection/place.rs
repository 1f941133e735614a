//! Which servers, with which certificates, in whose name: the provider's block first, then variables
//! of its own, then those that meshctl reads.

use mesh_model::{DEFAULT_NAMESPACE, check_name};
use mesh_tfprotocol::Value;
use mesh_tls::ClusterTls;
use reqwest::Url;
use rustls::{ClientConfig, RootCertStore};

use super::ClientError;
use crate::given::{self, given, pair};

const DEFAULT_ADDRESS: &str = "http://127.0.0.1:8700";
const DEFAULT_OWNER: &str = "terraform";

/// The attributes that may also come from the environment, with the variable.
pub(crate) const VARIABLES: [(&str, &str); 4] = [
    ("address", "MESHCTL_HTTP_ADDR"),
    ("ca_file", "MESHCTL_CACERT"),
    ("client_cert", "MESHCTL_CLIENT_CERT"),
    ("client_key", "MESHCTL_CLIENT_KEY"),
];

/// The variable for the namespace, of which meshctl has none.
pub(crate) const NAMESPACE: &str = "MESH_NAMESPACE";

/// Where the servers are, and how they are spoken with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) servers: Vec<Url>,
    pub(crate) owner: String,
    /// Of names without one.
    pub(crate) namespace: String,
    ca: Option<Pem>,
    certificate: Option<(Pem, Pem)>,
}

/// A file, read, with what it is called in messages.
#[derive(Clone)]
struct Pem {
    name: String,
    text: Vec<u8>,
}

/// Never its content.
impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Settings {
    /// The settings of a provider's block, which must be known.
    pub(crate) fn read(
        config: &Value,
        var: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ClientError> {
        let given = |name: &'static str| {
            let variable = VARIABLES.iter().find(|(attribute, _)| *attribute == name);
            given(config, name, variable.map_or("", |one| one.1), &var)
        };
        let ca = given("ca_file")
            .map(|text| pem("ca_file", text))
            .transpose()?;
        let certificate = pair(given("client_cert"), given("client_key"))
            .map_err(|(field, reason)| wrong(field, reason))?
            .map(|(cert, key)| Ok((pem("client_cert", cert)?, pem("client_key", key)?)))
            .transpose()?;
        let address = given("address").unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
        let servers = address.split(',').map(|one| url(one.trim(), ca.is_some()));
        let servers = servers.collect::<Result<Vec<_>, _>>()?;
        if ca.is_none() && servers.iter().any(|url| url.scheme() == "https") {
            let reason = "is missing, so that no server can be trusted over TLS: it is the file of \
                          the cluster CA, cluster-ca.pem";
            return Err(wrong("ca_file", reason));
        }
        let owner = config.get("owner").as_str().unwrap_or(DEFAULT_OWNER);
        let namespace = read_namespace(config, &var)?;
        Ok(Self {
            servers,
            owner: owner.to_owned(),
            namespace,
            ca,
            certificate,
        })
    }

    pub(super) fn tls(&self) -> Result<ClientConfig, ClientError> {
        let Some(ca) = &self.ca else {
            return plain();
        };
        let (field, tls) = match &self.certificate {
            Some((cert, key)) => (
                "client_cert",
                ClusterTls::from_pem(&ca.text, &cert.text, &key.text),
            ),
            None => ("ca_file", ClusterTls::trusting(&ca.name, &ca.text)),
        };
        let tls = tls.map_err(|error| wrong(field, &format!("cannot be used: {error}")))?;
        Ok(tls.https_config())
    }
}

fn read_namespace(
    config: &Value,
    var: impl Fn(&str) -> Option<String>,
) -> Result<String, ClientError> {
    let Some(namespace) = given(config, "namespace", NAMESPACE, var) else {
        return Ok(DEFAULT_NAMESPACE.to_owned());
    };
    match check_name(&namespace) {
        Ok(()) => Ok(namespace),
        Err(error) => Err(wrong("namespace", &format!("is wrong: {error}"))),
    }
}

fn wrong(field: &'static str, reason: &str) -> ClientError {
    ClientError::Settings {
        field,
        reason: reason.to_owned(),
    }
}

fn pem(field: &'static str, text: String) -> Result<Pem, ClientError> {
    let read = given::pem(&text).map_err(|reason| wrong(field, &reason))?;
    let is_itself = read == text.as_bytes();
    Ok(Pem {
        name: if is_itself { field.to_owned() } else { text },
        text: read,
    })
}

/// `host:port` alone is HTTPS where a CA is given, else HTTP.
fn url(text: &str, tls: bool) -> Result<Url, ClientError> {
    let full = match (text.contains("://"), tls) {
        (true, _) => text.to_owned(),
        (false, true) => format!("https://{text}"),
        (false, false) => format!("http://{text}"),
    };
    let wrong = |reason: &str| {
        let more = "write one such as https://mesh.internal:8700";
        wrong("address", &format!("`{text}` {reason}; {more}"))
    };
    let url: Url = full.parse().map_err(|_| wrong("cannot be read"))?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err(wrong("is neither http:// nor https://"));
    }
    if url.query().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("has more in it than a server's address has"));
    }
    if url.scheme() == "http" && tls {
        return Err(wrong("is without TLS, and a cluster CA is given"));
    }
    Ok(url)
}

/// For servers without TLS: trusts nobody, since it is never used.
fn plain() -> Result<ClientConfig, ClientError> {
    let builder = ClientConfig::builder_with_provider(mesh_tls::provider());
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("address", &error.to_string()))?;
    Ok(builder
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}
