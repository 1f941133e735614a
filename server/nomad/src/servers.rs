//! Where the servers are: those that the configuration names, and those that Nomad knows.

use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use mesh_model::config::NomadConfig;
use serde::Deserialize;

use crate::client::{Nomad, NomadError};

/// How many of Nomad's are taken. A cluster has nine servers at most; more only stand in a list
/// while old ones go.
const MAX_FOUND: usize = 64;

/// The servers of the mesh.
#[derive(Debug)]
pub struct Servers {
    fixed: Vec<String>,
    asked: Option<Asked>,
}

/// A service of Nomad's, each instance of which is a server.
#[derive(Debug)]
struct Asked {
    nomad: Nomad,
    path: String,
    known: Mutex<Known>,
    /// Where what Nomad said last outlives this process.
    kept: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Known {
    servers: Vec<String>,
    /// What was logged last, so that it is said once.
    said: String,
}

impl Servers {
    /// Those of the configuration (`host:port`), and where `nomad` names a service, its instances.
    ///
    /// # Errors
    /// When a file that `nomad` names cannot be read.
    pub fn new(fixed: Vec<String>, nomad: &NomadConfig) -> Result<Self, NomadError> {
        let asked = nomad.service.as_ref().map(|service| {
            let (ca_file, token_file) = (nomad.ca_file.as_deref(), nomad.token_file.as_deref());
            let mut path = format!("/v1/service/{service}");
            if let Some(namespace) = &nomad.namespace {
                path.push_str("?namespace=");
                path.push_str(namespace);
            }
            Ok(Asked {
                nomad: Nomad::new(&nomad.address, ca_file, token_file)?,
                path,
                known: Mutex::default(),
                kept: None,
            })
        });
        Ok(Self {
            fixed,
            asked: asked.transpose()?,
        })
    }

    /// Those of the configuration only.
    pub fn fixed(fixed: Vec<String>) -> Self {
        Self { fixed, asked: None }
    }

    /// Keeps what Nomad says in this file, and begins with what stands there: so who starts while
    /// Nomad does not answer finds the servers all the same. A file that cannot be read or written is
    /// as none, and logged: it is a help only.
    #[must_use]
    pub fn kept_in(mut self, path: PathBuf) -> Self {
        if let Some(asked) = &mut self.asked {
            let known = asked.known.get_mut();
            known.unwrap_or_else(PoisonError::into_inner).servers = read(&path);
            asked.kept = Some(path);
        }
        self
    }

    /// Whether there is nobody to ask, now or later.
    pub fn is_empty(&self) -> bool {
        self.fixed.is_empty() && self.asked.is_none()
    }

    /// All of them as of now, each once. Where Nomad does not answer, those that it said last.
    pub async fn now(&self) -> Vec<String> {
        let mut all = self.fixed.clone();
        if let Some(asked) = &self.asked {
            all.extend(asked.now().await);
        }
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|one| seen.insert(one.clone()));
        all
    }
}

impl Asked {
    async fn now(&self) -> Vec<String> {
        let answer = match self.nomad.get(&self.path).await {
            Ok(body) => parse(&body).map_err(|reason| NomadError::Asked {
                url: self.nomad.url(&self.path),
                reason,
            }),
            Err(error) => Err(error),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let said = match answer {
            Ok(servers) => {
                // An empty list is not kept: it is that of a cluster that has yet to begin, or that
                // is away, and who starts then is served better by where it was.
                if let Some(path) = &self.kept
                    && servers != known.servers
                    && !servers.is_empty()
                    && let Err(error) = write(path, &servers)
                {
                    tracing::warn!(path = %path.display(), %error, "where the servers are cannot be kept");
                }
                known.servers = servers;
                String::new()
            }
            Err(error) => error.to_string(),
        };
        if said != known.said {
            match said.is_empty() {
                true => tracing::info!("Nomad says again where the servers are"),
                false => {
                    tracing::warn!(reason = said, "Nomad does not say where the servers are")
                }
            }
            known.said = said;
        }
        known.servers.clone()
    }
}

fn read(path: &Path) -> Vec<String> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "where the servers were cannot be read");
            Vec::new()
        }),
        Err(_) => Vec::new(), // nothing was kept yet
    }
}

/// As a whole or not at all.
fn write(path: &Path, servers: &[String]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec(servers)?)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// An instance, as Nomad's `/v1/service/NAME` has it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Registration {
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: u16,
}

/// The addresses of an answer. What is no address is left out: it is a task's own to say, and the
/// others count nevertheless.
fn parse(body: &[u8]) -> Result<Vec<String>, String> {
    let all: Vec<Registration> = serde_json::from_slice(body)
        .map_err(|error| format!("answered with what is not a list of services: {error}"))?;
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let address = |one: &Registration| match one.address.parse::<IpAddr>() {
        _ if one.port == 0 => None,
        Ok(ip) => Some(SocketAddr::new(ip, one.port).to_string()),
        Err(_) if !one.address.is_empty() && one.address.chars().all(fine) => {
            Some(format!("{}:{}", one.address, one.port))
        }
        Err(_) => None,
    };
    Ok(all.iter().filter_map(address).take(MAX_FOUND).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use axum::Router;
    use axum::extract::{Query, State};
    use axum::routing::get;

    use super::*;

    #[test]
    fn addresses_of_all_forms_and_nothing_else() {
        let body = br#"[
            {"Address": "10.0.0.1", "Port": 8701, "ServiceName": "mesh-server", "Tags": []},
            {"Address": "fd00::1", "Port": 8701},
            {"Address": "host-1.example", "Port": 21000},
            {"Address": "a b", "Port": 1}, {"Address": "", "Port": 1}, {"Address": "10.0.0.2"}
        ]"#;
        assert_eq!(
            parse(body).unwrap(),
            ["10.0.0.1:8701", "[fd00::1]:8701", "host-1.example:21000"]
        );
        assert!(parse(b"[]").unwrap().is_empty());
        for wrong in [&b"{}"[..], b"[{\"Port\": 70000}]", b"x"] {
            assert!(parse(wrong).is_err());
        }
    }

    type Said = Arc<Mutex<&'static str>>;

    async fn nomad() -> (NomadConfig, Said) {
        let said = Said::default();
        let answer =
            |State(said): State<Said>,
             Query(query): Query<std::collections::BTreeMap<String, String>>| async move {
                assert_eq!(query.get("namespace").map(String::as_str), Some("infra"));
                (*said.lock().unwrap()).to_owned()
            };
        let router = Router::new().route("/v1/service/mesh-server", get(answer));
        let router = router.with_state(said.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let config = NomadConfig {
            address,
            service: Some("mesh-server".to_owned()),
            namespace: Some("infra".to_owned()),
            ..NomadConfig::default()
        };
        (config, said)
    }

    #[tokio::test]
    async fn they_are_asked_for_each_time_and_what_was_said_last_holds() {
        let (config, said) = nomad().await;
        let servers = Servers::new(vec!["10.0.0.1:8701".to_owned()], &config).unwrap();
        assert!(!servers.is_empty());
        *said.lock().unwrap() = r#"[{"Address": "10.0.0.2", "Port": 1}]"#;
        assert_eq!(servers.now().await, ["10.0.0.1:8701", "10.0.0.2:1"]);
        *said.lock().unwrap() =
            r#"[{"Address": "10.0.0.3", "Port": 1}, {"Address": "10.0.0.1", "Port": 8701}]"#;
        assert_eq!(servers.now().await, ["10.0.0.1:8701", "10.0.0.3:1"]);
        *said.lock().unwrap() = "not what is expected";
        assert_eq!(servers.now().await, ["10.0.0.1:8701", "10.0.0.3:1"]);
        *said.lock().unwrap() = "[]";
        assert_eq!(servers.now().await, ["10.0.0.1:8701"]);
    }

    #[tokio::test]
    async fn what_nomad_said_outlives_the_process() {
        let (mut config, said) = nomad().await;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("servers.json");
        let begin = |config: &NomadConfig| {
            let servers = Servers::new(Vec::new(), config).unwrap();
            servers.kept_in(file.clone())
        };
        *said.lock().unwrap() = r#"[{"Address": "10.0.0.2", "Port": 1}]"#;
        let servers = begin(&config);
        assert_eq!(servers.now().await, ["10.0.0.2:1"]);
        *said.lock().unwrap() = "[]";
        assert!(servers.now().await.is_empty());
        config.address = "http://127.0.0.1:1".to_owned();
        assert_eq!(begin(&config).now().await, ["10.0.0.2:1"]);
        std::fs::write(&file, "{").unwrap();
        assert!(begin(&config).now().await.is_empty());
    }

    #[tokio::test]
    async fn without_a_service_nobody_is_asked() {
        let config = NomadConfig {
            address: "http://127.0.0.1:1".to_owned(),
            ..NomadConfig::default()
        };
        let servers = Servers::new(Vec::new(), &config).unwrap();
        assert!(servers.is_empty());
        assert!(servers.now().await.is_empty());
    }
}
