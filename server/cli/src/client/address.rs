//! Which server, and with which certificates: flags first, then variables.

use std::path::PathBuf;

use mesh_tls::{ClusterFiles, ClusterTls};
use reqwest::Url;
use rustls::{ClientConfig, RootCertStore};

use crate::args::Connection;
use crate::console::Console;
use crate::error::CliError;

const DEFAULT: &str = "http://127.0.0.1:8700";

/// Where a server is, and how it is spoken with.
pub(super) struct Address {
    pub(super) url: Url,
    pub(super) tls: ClientConfig,
}

pub(super) fn resolve(connection: &Connection, console: &Console<'_>) -> Result<Address, CliError> {
    let file = |flag: &Option<PathBuf>, name: &str| {
        flag.clone()
            .or_else(|| console.var(name).map(PathBuf::from))
    };
    let ca = file(&connection.ca_file, "MESHCTL_CACERT");
    let cert = file(&connection.client_cert, "MESHCTL_CLIENT_CERT");
    let key = file(&connection.client_key, "MESHCTL_CLIENT_KEY");
    let given = connection.http_addr.clone();
    let given = given.or_else(|| console.var("MESHCTL_HTTP_ADDR"));
    let url = url(given.as_deref().unwrap_or(DEFAULT), ca.is_some())?;
    let tls = match url.scheme() {
        "https" => https(ca, cert, key)?,
        _ => plain()?,
    };
    Ok(Address { url, tls })
}

/// `host:port` alone is HTTPS where a CA is given, else HTTP.
fn url(text: &str, tls: bool) -> Result<Url, CliError> {
    let full = match (text.contains("://"), tls) {
        (true, _) => text.to_owned(),
        (false, true) => format!("https://{text}"),
        (false, false) => format!("http://{text}"),
    };
    let wrong = |reason: &str| {
        CliError::refused(
            format!("the server's address `{text}` {reason}"),
            "Write one such as http://127.0.0.1:8700 with -http-addr or MESHCTL_HTTP_ADDR.",
        )
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

fn https(
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<ClientConfig, CliError> {
    let Some(ca) = ca else {
        return Err(CliError::refused(
            "no cluster CA is given, so no server can be trusted over TLS",
            "-ca-file or MESHCTL_CACERT names its file, cluster-ca.pem.",
        ));
    };
    let said = |error| CliError::refused(error, "");
    let tls = match (cert, key) {
        (Some(cert_file), Some(key_file)) => ClusterTls::from_files(ClusterFiles {
            ca_file: ca,
            cert_file,
            key_file,
        }),
        (None, None) => {
            let pem = std::fs::read(&ca).map_err(CliError::file(&ca))?;
            ClusterTls::trusting(&ca.display().to_string(), &pem)
        }
        _ => {
            return Err(CliError::refused(
                "a certificate and its key belong together, and only one of them is given",
                "Give both -client-cert and -client-key, or neither.",
            ));
        }
    };
    Ok(tls.map_err(said)?.https_config())
}

/// For a server without TLS: trusts nobody, since it is never used.
fn plain() -> Result<ClientConfig, CliError> {
    let builder = ClientConfig::builder_with_provider(mesh_tls::provider());
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|error| CliError::refused(error, ""))?;
    Ok(builder
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_read() {
        for (text, tls, wanted) in [
            ("http://127.0.0.1:8700", false, "http://127.0.0.1:8700/"),
            ("10.0.0.1:8700", false, "http://10.0.0.1:8700/"),
            ("10.0.0.1:8700", true, "https://10.0.0.1:8700/"),
            ("localhost:8700", true, "https://localhost:8700/"),
            ("https://mesh.internal", true, "https://mesh.internal/"),
        ] {
            assert_eq!(url(text, tls).unwrap().as_str(), wanted);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (text, tls) in [
            ("", false),
            ("http://", false),
            ("ftp://a", false),
            ("http://u:p@a", false),
            ("http://a?x=1", false),
            ("http://a", true),
            ("a b", false),
        ] {
            let error = url(text, tls).unwrap_err().report();
            assert!(error.contains("MESHCTL_HTTP_ADDR"), "{error}");
        }
    }
}
