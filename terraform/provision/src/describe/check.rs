//! Whether what is wanted can be: each mistake names its field.

use mesh_ca::SealingKey;
use mesh_ca::cluster::ClusterCa;
use mesh_model::config::{AgentConfig, ServerConfig};

use super::{Agents, Binary, DELIMITERS, Sealing, Servers, ServersTls};
use crate::error::ProvisionError;

const MAX_NAME: usize = 40;

impl Servers {
    /// Whether it can be.
    ///
    /// # Errors
    /// [`ProvisionError::Invalid`], which names the field.
    pub fn check(&self) -> Result<(), ProvisionError> {
        name("name", &self.name)?;
        if ![1, 3, 5].contains(&self.count) {
            return Err(ProvisionError::invalid(
                "server_count",
                format!(
                    "{} servers are not possible: 1, 3 or 5; an even number has no use",
                    self.count
                ),
            ));
        }
        common(&self.datacenters, &self.node_pool, &self.binary, &self.user)?;
        word("version", &self.version)?;
        if let Some(volume) = &self.machine.volume {
            word("volume", volume)?;
        }
        path("data_dir", &self.machine.data_dir)?;
        if self.http_port == self.grpc_port && self.http_port != 0 {
            return Err(ProvisionError::invalid(
                "grpc_port",
                "is the same as http_port",
            ));
        }
        if !self.machine.distinct && self.count > 1 && (self.http_port != 0 || self.grpc_port != 0)
        {
            return Err(ProvisionError::invalid(
                "distinct_hosts",
                "several servers on one machine need http_port = 0 and grpc_port = 0",
            ));
        }
        tls(&self.tls)?;
        match &self.sealing {
            Sealing::File(file) => path("sealing_key_file", file)?,
            Sealing::Key(Some(key)) => {
                let text = key.expose().as_bytes();
                // The error of the key's own reader says nothing of what stands in it.
                SealingKey::parse("sealing_key", text).map_err(|error| {
                    let todo = "`meshctl operator sealing-key create FILE` makes one";
                    ProvisionError::invalid("sealing_key", format!("{error}; {todo}"))
                })?;
            }
            Sealing::Key(None) | Sealing::Config => {}
        }
        for (token, value) in &self.tokens {
            name(&format!("tokens[\"{token}\"]"), token)?;
            if value
                .as_ref()
                .is_some_and(|value| value.expose().trim().is_empty())
            {
                return Err(ProvisionError::invalid(
                    format!("tokens[\"{token}\"]"),
                    "is empty",
                ));
            }
        }
        self.check_config()
    }

    fn check_config(&self) -> Result<(), ProvisionError> {
        config_text(&self.config)?;
        let read = ServerConfig::parse(&[("config", &self.config)]);
        let read = read.map_err(|error| ProvisionError::invalid("config", error))?;
        let defaults = ServerConfig::parse(&[("config", "")]);
        let defaults = defaults.map_err(|error| ProvisionError::invalid("config", error))?;
        let sealed = matches!(self.sealing, Sealing::Config);
        let taken = [
            (
                "bootstrap",
                read.bootstrap != defaults.bootstrap,
                "the first server begins the cluster by itself",
            ),
            (
                "bootstrap_expect",
                read.bootstrap_expect.is_some(),
                "the first server begins the cluster by itself",
            ),
            (
                "retry_join",
                !read.retry_join.is_empty(),
                "the servers find each other through Nomad",
            ),
            (
                "nomad",
                read.nomad != defaults.nomad,
                "the servers find each other through Nomad",
            ),
            (
                "node_name",
                read.node_name.is_some(),
                "a server's name is its job's",
            ),
            (
                "data_dir",
                read.data_dir != defaults.data_dir,
                "set `data_dir` beside `config`",
            ),
            ("tls", read.tls.is_some(), "set `tls` beside `config`"),
            (
                "bind_addr",
                read.bind_addr != defaults.bind_addr,
                "Nomad says where it listens",
            ),
            (
                "http_addr",
                read.http_addr.is_some(),
                "set `http_port` beside `config`",
            ),
            (
                "grpc_addr",
                read.grpc_addr.is_some(),
                "set `grpc_port` beside `config`",
            ),
            (
                "advertise_addr",
                read.advertise_addr.is_some(),
                "Nomad says where it is reached",
            ),
            (
                "sealing_key_file",
                read.sealing_key_file.is_some(),
                "set it beside `config`",
            ),
        ];
        refuse_taken(&taken)?;
        match sealed && read.sealing.transit.is_none() {
            true => Err(ProvisionError::invalid(
                "sealing_key",
                "private keys are kept only sealed: give `sealing_key` or `sealing_key_file`, or a \
                 `sealing` block with `transit` in `config`",
            )),
            false => Ok(()),
        }
    }
}

impl Agents {
    /// Whether it can be.
    ///
    /// # Errors
    /// [`ProvisionError::Invalid`], which names the field.
    pub fn check(&self) -> Result<(), ProvisionError> {
        name("name", &self.name)?;
        name("servers", &self.servers)?;
        common(&self.datacenters, &self.node_pool, &self.binary, &self.user)?;
        word("version", &self.version)?;
        for (place, text) in [
            ("data_dir", &self.data_dir),
            ("socket", &self.socket),
            ("shim_dir", &self.shim_dir),
            ("cni_dir", &self.cni_dir),
        ] {
            path(place, text)?;
        }
        tls(&self.tls)?;
        config_text(&self.config)?;
        // An agent without servers is refused by its reader; these come from Nomad.
        let nomad = format!("nomad {{\n  service = \"{}\"\n}}\n", self.servers);
        let read = AgentConfig::parse(&[("config", &self.config), ("nomad", &nomad)]);
        let read = read.map_err(|error| ProvisionError::invalid("config", error))?;
        let taken = [
            (
                "node_name",
                read.node_name.is_some(),
                "it is the Nomad node's",
            ),
            ("tls", read.tls.is_some(), "set `tls` beside `config`"),
        ];
        refuse_taken(&taken)
    }
}

fn refuse_taken(taken: &[(&str, bool, &str)]) -> Result<(), ProvisionError> {
    match taken.iter().find(|(_, is_set, _)| *is_set) {
        Some((key, _, why)) => Err(ProvisionError::invalid(
            "config",
            format!("`{key}` cannot be set there: {why}"),
        )),
        None => Ok(()),
    }
}

fn config_text(text: &str) -> Result<(), ProvisionError> {
    match text.contains(DELIMITERS.0) || text.contains(DELIMITERS.1) {
        true => Err(ProvisionError::invalid(
            "config",
            "`<<<` and `>>>` cannot stand in it, since Nomad would fill something in",
        )),
        false => Ok(()),
    }
}

fn common(
    datacenters: &[String],
    node_pool: &str,
    binary: &Binary,
    user: &str,
) -> Result<(), ProvisionError> {
    if datacenters.is_empty() {
        return Err(ProvisionError::invalid(
            "datacenters",
            "is empty; [\"*\"] is all of them",
        ));
    }
    for one in datacenters {
        word("datacenters", &one.replace('*', "x"))?;
    }
    word("node_pool", node_pool)?;
    word("user", user)?;
    match binary {
        Binary::Path(file) => path("binary", file),
        Binary::Artifact { url, checksum } => {
            if !url.contains("://") || url.contains(['"', '\n', ' ']) {
                return Err(ProvisionError::invalid("artifact.source", "is no URL"));
            }
            match checksum.split_once(':') {
                Some(("sha256" | "sha512", digits))
                    if digits.len() >= 64 && digits.chars().all(|c| c.is_ascii_hexdigit()) =>
                {
                    Ok(())
                }
                _ => Err(ProvisionError::invalid(
                    "artifact.checksum",
                    "must be `sha256:` and 64 digits, or `sha512:` and 128: what the machines run is fixed by it",
                )),
            }
        }
    }
}

fn tls(tls: &ServersTls) -> Result<(), ProvisionError> {
    match tls {
        ServersTls::Files {
            ca,
            certificate,
            key,
        } => {
            path("tls.ca_file", ca)?;
            path("tls.cert_file", certificate)?;
            path("tls.key_file", key)
        }
        ServersTls::Issued { ca, key: Some(key) } => {
            let read = ClusterCa::from_pem(ca, key.expose());
            read.map(drop)
                .map_err(|error| ProvisionError::invalid("tls.ca_pem, tls.ca_key", error))
        }
        ServersTls::Issued { .. } => Ok(()),
    }
}

fn name(place: &str, text: &str) -> Result<(), ProvisionError> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match !text.is_empty() && text.len() <= MAX_NAME && text.chars().all(fine) {
        true => Ok(()),
        false => Err(ProvisionError::invalid(
            place,
            format!("`{text}` is no name: small letters, digits and `-`, {MAX_NAME} at most"),
        )),
    }
}

/// A text that stands in a job as it is: nothing in it means something to a shell or to Nomad.
fn word(place: &str, text: &str) -> Result<(), ProvisionError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-+:@[]".contains(c);
    match text.chars().all(fine) && text.len() <= 128 {
        true => Ok(()),
        false => Err(ProvisionError::invalid(
            place,
            format!("`{text}` has a character that cannot stand there"),
        )),
    }
}

fn path(place: &str, text: &str) -> Result<(), ProvisionError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-+@=/".contains(c);
    let is_whole =
        text.starts_with('/') && text.len() > 1 && !text.split('/').any(|part| part == "..");
    match is_whole && text.chars().all(fine) {
        true => Ok(()),
        false => Err(ProvisionError::invalid(
            place,
            format!("`{text}` is no path from the root, of letters, digits and `._-+@=/`"),
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::describe::samples;
    use crate::secret::Secret;

    fn refused(change: impl FnOnce(&mut Servers)) -> String {
        let mut servers = samples::servers();
        change(&mut servers);
        servers.check().unwrap_err().to_string()
    }

    #[test]
    fn what_can_be_is_taken() {
        samples::servers().check().unwrap();
        samples::agents().check().unwrap();
    }

    #[test]
    fn what_cannot_be_is_named() {
        let said = refused(|it| it.count = 2);
        assert!(said.starts_with("server_count: 2 servers"), "{said}");
        let said = refused(|it| it.name = "Mesh".to_owned());
        assert!(said.starts_with("name: `Mesh` is no name"), "{said}");
        let said = refused(|it| it.machine.data_dir = "/a'b".to_owned());
        assert!(said.starts_with("data_dir: "), "{said}");
        let said = refused(|it| it.machine.distinct = false);
        assert!(said.contains("http_port = 0"), "{said}");
        let said = refused(|it| it.config = "nonsense = 1".to_owned());
        assert!(
            said.starts_with("config: ") && said.contains("nonsense"),
            "{said}"
        );
        let said = refused(|it| {
            it.config = "bootstrap_expect = 3\nretry_join = [\"10.0.0.1\"]".to_owned()
        });
        assert!(
            said.contains("`bootstrap_expect` cannot be set there"),
            "{said}"
        );
        let said = refused(|it| it.config = "# <<< key \"x\" >>>".to_owned());
        assert!(said.starts_with("config: "), "{said}");
        let said = refused(|it| it.sealing = Sealing::Config);
        assert!(said.starts_with("sealing_key: "), "{said}");
        let said = refused(|it| {
            it.binary = Binary::Artifact {
                url: "https://a/b".to_owned(),
                checksum: "md5:1".to_owned(),
            }
        });
        assert!(said.starts_with("artifact.checksum"), "{said}");
    }

    #[test]
    fn what_is_wrong_with_a_secret_does_not_show_it() {
        let said =
            refused(|it| it.sealing = Sealing::Key(Some(Secret::new("not-a-sealing-key-at-all"))));
        assert!(
            said.contains("sealing-key create") && !said.contains("not-a-sealing"),
            "{said}"
        );
        let said = refused(|it| {
            let ServersTls::Issued { key, .. } = &mut it.tls else {
                return;
            };
            *key = Some(Secret::new(
                "-----BEGIN PRIVATE KEY-----\nc2VjcmV0c2VjcmV0\n-----END PRIVATE KEY-----\n",
            ));
        });
        assert!(
            said.starts_with("tls.ca_pem") && !said.contains("c2VjcmV0"),
            "{said}"
        );
    }
}
