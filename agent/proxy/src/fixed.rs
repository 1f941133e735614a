//! `-static FILE`: a config and certificates from files, without an agent.
//!
//! For tests and benchmarks, and for a host that no agent runs on. SIGHUP reads
//! the files again.

use std::path::Path;

use mesh_model::{Action, Duration, Key, LoadBalancer, Protocol, TlsPolicy};
use mesh_policy::PolicyForm;
use mesh_proto::config::{
    Bind, Cluster, Endpoint, Health, Inbound, Outbound, ProxyConfig, StaticFile,
};
use mesh_tls::pem::read_certificates;
use mesh_tls::{Credential, TlsError, Trust, TrustDomain};

/// Largest file that is read.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// Why a file cannot be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StaticError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Its path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is too large to be one.
    #[error("{path}: larger than 64 MiB; this is not a config")]
    TooLarge {
        /// Its path.
        path: String,
    },
    /// It is not what it should be.
    #[error("{path}: line {line}, column {column}: {reason}; `mesh-proxy -static-example` prints one that works", line = source.line(), column = source.column(), reason = source)]
    Json {
        /// Its path.
        path: String,
        /// Where and what.
        source: serde_json::Error,
    },
    /// The trust domain is none.
    #[error("{path}: trust_domain: {reason}")]
    Domain {
        /// Its path.
        path: String,
        /// Why.
        reason: String,
    },
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Reads the file.
pub(crate) fn read(path: &Path) -> Result<StaticFile, StaticError> {
    let shown = path.display().to_string();
    let failed = |source| StaticError::Read {
        path: shown.clone(),
        source,
    };
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_FILE {
        return Err(StaticError::TooLarge { path: shown });
    }
    let text = std::fs::read(path).map_err(failed)?;
    serde_json::from_slice(&text).map_err(|source| StaticError::Json {
        path: shown,
        source,
    })
}

/// The certificates that the file names.
pub(crate) fn certificates(
    path: &Path,
    file: &StaticFile,
) -> Result<(Credential, Trust), StaticError> {
    let domain: TrustDomain =
        file.config
            .trust_domain
            .parse()
            .map_err(|error: mesh_tls::IdError| StaticError::Domain {
                path: path.display().to_string(),
                reason: error.to_string(),
            })?;
    let roots = read_certificates(Path::new(&file.roots))?;
    let trust = Trust::new(domain, &file.roots, &roots)?;
    let credential = Credential::from_files(Path::new(&file.chain), Path::new(&file.key))?;
    Ok((credential, trust))
}

/// A file that shows every part.
pub(crate) fn example() -> StaticFile {
    let domain = "example.mesh";
    let identity = |name: &str| format!("spiffe://{domain}/ns/default/dc/dc1/svc/{name}");
    let backend = Key::of("backend");
    StaticFile {
        config: ProxyConfig {
            proxy: "frontend-sidecar-proxy".to_owned(),
            service: Key::of("frontend"),
            identity: identity("frontend"),
            trust_domain: domain.to_owned(),
            node: String::new(),
            tls: TlsPolicy::default().effective(),
            policy: PolicyForm::new(Action::Allow, []),
            policies: Vec::new(),
            inbound: Some(Inbound {
                address: "127.0.0.1".to_owned(),
                port: 21000,
                protocol: Protocol::Http,
                application: "127.0.0.1:8080".to_owned(),
                connect_timeout: Duration::from_secs(5),
            }),
            terminating: None,
            ingress: Vec::new(),
            dns_names: Vec::new(),
            transparent: None,
            outbound: vec![Outbound {
                service: backend.clone(),
                bind: Bind::Tcp {
                    address: "127.0.0.1".to_owned(),
                    port: 9001,
                },
                protocol: Protocol::Http,
                rules: Vec::new(),
                cluster: "backend.default".to_owned(),
                timeout: Duration::from_secs(15),
            }],
            expose: Vec::new(),
            clusters: [(
                "backend.default".to_owned(),
                Cluster {
                    service: backend,
                    subset: None,
                    sni: format!("backend.default.dc1.internal.{domain}"),
                    protocol: Protocol::Http,
                    load_balancer: LoadBalancer::LeastRequest,
                    connect_timeout: Duration::from_secs(5),
                    outlier_detection: None,
                    endpoints: vec![Endpoint {
                        id: "node-1/backend".to_owned(),
                        address: "127.0.0.1".to_owned(),
                        port: 21001,
                        identity: identity("backend"),
                        native: false,
                        weight: 1,
                        health: Health::Healthy,
                    }],
                },
            )]
            .into(),
        },
        chain: "chain.pem".to_owned(),
        key: "key.pem".to_owned(),
        roots: "roots.pem".to_owned(),
        admin: "127.0.0.1:19000".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_example_reads_back() {
        let text = serde_json::to_string_pretty(&example()).unwrap();
        insta::assert_snapshot!(text);
        let again: StaticFile = serde_json::from_str(&text).unwrap();
        assert_eq!(again, example());
    }

    #[test]
    fn errors_name_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let missing = read(&path).unwrap_err().to_string();
        assert!(missing.contains("config.json"), "{missing}");
        std::fs::write(&path, "{\n \"confg\": 1}").unwrap();
        let misspelt = read(&path).unwrap_err().to_string();
        assert!(
            misspelt.contains("line 2") && misspelt.contains("confg"),
            "{misspelt}"
        );
    }
}
