//! A server's configuration.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::{
    AwsConfig, GRPC_PORT, HTTP_PORT, LogFormat, LogLevel, NomadConfig, Readable, TlsFiles,
    VaultConfig, load, log, name, node_name, path, servers, set, some, tls,
};
use crate::fields::Fields;
use crate::{Action, Diagnostics, Duration};

/// Everything that `meshctl server` reads from its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// The name of this cluster of servers; stands in every identity. Default
    /// `dc1`.
    pub datacenter: String,
    /// This server's name. Default: the host's.
    pub node_name: Option<String>,
    /// Where log, state and snapshots stand. Default `/var/lib/meshctl`.
    pub data_dir: PathBuf,
    /// This server alone is the cluster. Default false.
    pub bootstrap: bool,
    /// So many servers make the cluster once they know each other; all of them
    /// have the same number. Default: none, it joins one that is there.
    pub bootstrap_expect: Option<u32>,
    /// Other servers, as `host:port` (8701 when none is written). Default: none.
    pub retry_join: Vec<String>,
    /// Where Nomad is, which may know other servers too.
    pub nomad: NomadConfig,
    /// The address that it listens on. Default `0.0.0.0`.
    pub bind_addr: IpAddr,
    /// The address at which servers and agents reach it. Default: the bind
    /// address, or where that is `0.0.0.0` the host's own.
    pub advertise_addr: Option<SocketAddr>,
    /// Where the HTTP API is. Default: port 8700 of the bind address with
    /// `tls`, of 127.0.0.1 without.
    pub http_addr: Option<SocketAddr>,
    /// Where servers and agents connect. Default: port 8701 of the bind address
    /// with `tls`, of 127.0.0.1 without.
    pub grpc_addr: Option<SocketAddr>,
    /// The key that seals private keys in the state. Default: none, which only
    /// `meshctl dev` takes.
    pub sealing_key_file: Option<PathBuf>,
    /// What else seals and opens them.
    pub sealing: SealingConfig,
    /// Its certificate. Default: none, which only loopback addresses take.
    pub tls: Option<TlsFiles>,
    /// The mesh's own CA.
    pub ca: CaConfig,
    /// What holds for a pair without an intention, when no `mesh` block says.
    /// Default deny.
    pub default_intention: Action,
    /// The trust domain of a new cluster. Default: made by it, `<id>.mesh`.
    pub trust_domain: Option<String>,
    /// Whether agents pass on the entries of gateways that Nomad's servers write
    /// at an agent's own door. Default no.
    pub agents_write_gateways: bool,
    /// After so long a silent node and its instances are forgotten. Default 72h.
    pub node_ttl: Duration,
    /// How much is logged. Default info.
    pub log_level: LogLevel,
    /// How it is logged. Default text.
    pub log_format: LogFormat,
    /// What it takes at most.
    pub limits: ServerLimits,
}

/// Who signs for the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaProvider {
    /// The servers themselves.
    #[default]
    BuiltIn,
    /// HashiCorp Vault, or what speaks as it does.
    Vault,
    /// The servers, below a CA in AWS Private CA.
    AwsPca,
}

impl CaProvider {
    const WORDS: [&str; 3] = ["built_in", "vault", "aws_pca"];

    /// Reads `built_in`, `vault` or `aws_pca`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "built_in" => Some(Self::BuiltIn),
            "vault" => Some(Self::Vault),
            "aws_pca" => Some(Self::AwsPca),
            _ => None,
        }
    }
}

/// The kind of a CA's keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaKeyType {
    /// `ec-p256`.
    #[default]
    EcP256,
    /// `ec-p384`.
    EcP384,
    /// `rsa-2048`.
    Rsa2048,
    /// `rsa-4096`.
    Rsa4096,
}

impl CaKeyType {
    const WORDS: [&str; 4] = ["ec-p256", "ec-p384", "rsa-2048", "rsa-4096"];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EcP256 => "ec-p256",
            Self::EcP384 => "ec-p384",
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa4096 => "rsa-4096",
        }
    }

    /// Reads what [`Self::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::EcP256, Self::EcP384, Self::Rsa2048, Self::Rsa4096]
            .into_iter()
            .find(|one| one.as_str() == text)
    }
}

/// The `ca` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaConfig {
    /// Who signs. Default `built_in`.
    pub provider: CaProvider,
    /// Where Vault is, and where in it the CA. Needed with `provider = "vault"`.
    pub vault: Option<VaultConfig>,
    /// What a new mesh takes over in place of a CA of its own. Default: nothing.
    pub import: Option<CaImport>,
    /// Which CA in AWS it is. Needed with `provider = "aws_pca"`.
    pub aws_pca: Option<AwsConfig>,
    /// How long a proxy's certificate is valid. Default 24h; 5m to 2160h.
    pub leaf_ttl: Duration,
    /// It may be shorter, down to a second. For tests. Default false.
    pub allow_short_ttl: bool,
    /// How long the intermediate that signs them is. Default 8760h.
    pub intermediate_ttl: Duration,
    /// How long the root is. Default 87600h.
    pub root_ttl: Duration,
    /// The kind of the keys of root and intermediate. Default `ec-p256`.
    pub key_type: CaKeyType,
    /// How many certificates are signed in a second at most, so that a
    /// rotation leaves room for all else. Default 200.
    pub sign_per_second: u32,
}

/// The `import` block of `ca`: the files of a CA that is there. Read only while the mesh has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaImport {
    /// The certificates, PEM: lowest first, the root last. Needed.
    pub cert_file: PathBuf,
    /// The private key of the first of them, PEM. Needed.
    pub key_file: PathBuf,
    /// The root's private key, PEM, where the root is not the first. Default: none; it stays
    /// elsewhere.
    pub root_key_file: Option<PathBuf>,
}

impl CaImport {
    fn read(&mut self, mut fields: Fields<'_>) {
        set(&mut self.cert_file, path(&mut fields, "cert_file"));
        set(&mut self.key_file, path(&mut fields, "key_file"));
        some(&mut self.root_key_file, path(&mut fields, "root_key_file"));
        fields.finish();
    }
}

impl Default for CaConfig {
    fn default() -> Self {
        Self {
            provider: CaProvider::default(),
            vault: None,
            import: None,
            aws_pca: None,
            leaf_ttl: Duration::from_secs(24 * 3600),
            allow_short_ttl: false,
            intermediate_ttl: Duration::from_secs(8760 * 3600),
            root_ttl: Duration::from_secs(87_600 * 3600),
            key_type: CaKeyType::default(),
            sign_per_second: 200,
        }
    }
}

/// The `sealing` block: keys beside `sealing_key_file`, and which one seals a new mesh's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealingConfig {
    /// Files of keys that open what is sealed with them, and seal nothing. Default: none.
    pub other_key_files: Vec<PathBuf>,
    /// A key of Vault's transit engine. Default: none.
    pub transit: Option<TransitConfig>,
    /// Whether `type` is `transit`: that key seals the CA of a new mesh. Default: `file`.
    pub transit_first: bool,
}

/// The `transit` block of `sealing`. How Vault is reached says the `vault` block of `ca`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransitConfig {
    /// Where the engine is mounted. Default `transit`.
    pub mount: String,
    /// The key. Default `meshctl`.
    pub key: String,
}

impl SealingConfig {
    fn read(&mut self, mut fields: Fields<'_>) {
        set(
            &mut self.transit_first,
            fields.word("type", &["file", "transit"], |text| match text {
                "file" => Some(false),
                "transit" => Some(true),
                _ => None,
            }),
        );
        let files = fields.strings("other_key_files");
        if !files.is_empty() {
            self.other_key_files = files.into_iter().map(PathBuf::from).collect();
        }
        if let Some(mut inner) = fields.block("transit") {
            let transit = self.transit.get_or_insert_with(|| TransitConfig {
                mount: "transit".to_owned(),
                key: "meshctl".to_owned(),
            });
            set(&mut transit.mount, inner.parsed("mount", vault_path));
            set(&mut transit.key, inner.parsed("key", vault_path));
            inner.finish();
        }
        fields.finish();
    }
}

fn vault_path(text: &str) -> Result<String, &'static str> {
    match super::is_vault_mount(text) {
        true => Ok(text.to_owned()),
        false => Err("must be a path such as `transit`, without a slash at its ends"),
    }
}

/// The `limits` block of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections to the HTTP API at once. Default 1024.
    pub http_connections: u32,
    /// Longest body of a request, in bytes. Default 4 MiB.
    pub http_body: u64,
    /// Agents that are connected at once. Default 10000.
    pub agents: u32,
    /// Instances that one agent may register. Default 4096.
    pub instances_per_agent: u32,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            http_connections: 1024,
            http_body: 4 * 1024 * 1024,
            agents: 10_000,
            instances_per_agent: 4096,
        }
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            datacenter: "dc1".to_owned(),
            node_name: None,
            data_dir: PathBuf::from("/var/lib/meshctl"),
            bootstrap: false,
            bootstrap_expect: None,
            retry_join: Vec::new(),
            nomad: NomadConfig::default(),
            bind_addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            advertise_addr: None,
            http_addr: None,
            grpc_addr: None,
            sealing_key_file: None,
            sealing: SealingConfig::default(),
            tls: None,
            ca: CaConfig::default(),
            default_intention: Action::Deny,
            trust_domain: None,
            agents_write_gateways: false,
            node_ttl: Duration::from_secs(72 * 3600),
            log_level: LogLevel::default(),
            log_format: LogFormat::default(),
            limits: ServerLimits::default(),
        }
    }
}

impl ServerConfig {
    /// Reads files, as (name, text), over the defaults; a later one wins.
    pub fn parse(files: &[(&str, &str)]) -> Result<Self, Diagnostics> {
        load(Self::default(), files)
    }

    /// Where the HTTP API is.
    pub fn http_address(&self) -> SocketAddr {
        self.http_addr.unwrap_or(self.otherwise(HTTP_PORT))
    }

    /// Where servers and agents connect.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_addr.unwrap_or(self.otherwise(GRPC_PORT))
    }

    fn otherwise(&self, port: u16) -> SocketAddr {
        let address = match &self.tls {
            Some(_) => self.bind_addr,
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        SocketAddr::new(address, port)
    }
}

impl Readable for ServerConfig {
    fn read(&mut self, fields: &mut Fields<'_>) {
        set(&mut self.datacenter, name(fields, "datacenter"));
        some(&mut self.node_name, node_name(fields));
        set(&mut self.data_dir, path(fields, "data_dir"));
        set(&mut self.bootstrap, fields.bool("bootstrap"));
        let expect = fields.whole("bootstrap_expect", 1, 9);
        some(
            &mut self.bootstrap_expect,
            expect.and_then(|count| u32::try_from(count).ok()),
        );
        servers(&mut self.retry_join, fields, "retry_join");
        if let Some(mut inner) = fields.block("nomad") {
            self.nomad.read(&mut inner);
            inner.finish();
        }
        set(
            &mut self.bind_addr,
            fields.parsed("bind_addr", |text| {
                text.parse::<IpAddr>()
                    .map_err(|_| format!("`{text}` is not an address; write one without a port"))
            }),
        );
        some(
            &mut self.advertise_addr,
            fields.address("advertise_addr", GRPC_PORT),
        );
        some(&mut self.http_addr, fields.address("http_addr", HTTP_PORT));
        some(&mut self.grpc_addr, fields.address("grpc_addr", GRPC_PORT));
        some(&mut self.sealing_key_file, path(fields, "sealing_key_file"));
        if let Some(inner) = fields.block("sealing") {
            self.sealing.read(inner);
        }
        tls(&mut self.tls, fields);
        if let Some(inner) = fields.block("ca") {
            self.ca.read(inner);
        }
        set(
            &mut self.agents_write_gateways,
            fields.bool("agents_write_gateways"),
        );
        set(
            &mut self.default_intention,
            fields.word("default_intention", &["allow", "deny"], Action::parse),
        );
        some(
            &mut self.trust_domain,
            fields.parsed("trust_domain", trust_domain),
        );
        set(&mut self.node_ttl, fields.duration("node_ttl"));
        log(&mut self.log_level, &mut self.log_format, fields);
        if let Some(inner) = fields.block("limits") {
            self.limits.read(inner);
        }
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        if self.bootstrap && self.bootstrap_expect.is_some_and(|count| count > 1) {
            let message = "bootstrap: this server alone cannot be the cluster when \
                           bootstrap_expect waits for others; keep one of the two";
            wrong.push(("bootstrap", message.to_owned()));
        }
        let knows_others = !self.retry_join.is_empty() || self.nomad.service.is_some();
        if self.bootstrap_expect.is_some_and(|count| count > 1) && !knows_others {
            let message = "bootstrap_expect: waits for servers that neither retry_join nor a \
                           service in `nomad` names";
            wrong.push(("bootstrap_expect", message.to_owned()));
        }
        let listeners = [
            ("http_addr", self.http_address()),
            ("grpc_addr", self.grpc_address()),
        ];
        for (key, address) in listeners {
            if self.tls.is_none() && !address.ip().is_loopback() {
                let message = format!(
                    "{key}: {address} is not loopback, and without a `tls` block only loopback \
                     is served"
                );
                wrong.push((key, message));
            }
        }
        if self.node_ttl < Duration::from_secs(60) {
            let message = format!("node_ttl: is {}; at least 1m is taken", self.node_ttl);
            wrong.push(("node_ttl", message));
        }
        let ca = &self.ca;
        if let Err(message) = check_leaf_ttl(ca.leaf_ttl, ca.allow_short_ttl) {
            wrong.push(("ca", format!("ca: {message}")));
        }
        if ca.leaf_ttl >= ca.intermediate_ttl || ca.intermediate_ttl > ca.root_ttl {
            let message = "ca: leaf_ttl must be less than intermediate_ttl, and that no more \
                           than root_ttl";
            wrong.push(("ca", message.to_owned()));
        }
        let vault = ca.vault.as_ref();
        if ca.provider == CaProvider::Vault && vault.is_none() {
            let message = "ca: provider is \"vault\", and there is no `vault` block that says where \
                           it is";
            wrong.push(("ca", message.to_owned()));
        }
        if self.sealing.transit_first && self.sealing.transit.is_none() {
            let message = "sealing: type is \"transit\", and there is no `transit` block that says \
                           which key";
            wrong.push(("sealing", message.to_owned()));
        }
        if self.sealing.transit.is_some() && ca.vault.is_none() {
            let message = "sealing: transit: `ca` has no `vault` block, which says how Vault is \
                           reached; it may stand there with provider = \"built_in\" too";
            wrong.push(("sealing", message.to_owned()));
        }
        if let Some(import) = &ca.import {
            if ca.provider != CaProvider::BuiltIn {
                let message = "ca: import: is for provider = \"built_in\"; where the CA is in Vault, \
                               Vault takes keys over by itself";
                wrong.push(("ca", message.to_owned()));
            }
            for (key, file) in [
                ("cert_file", &import.cert_file),
                ("key_file", &import.key_file),
            ] {
                if file.as_os_str().is_empty() {
                    wrong.push((
                        "ca",
                        format!("ca: import: {key} is missing; it names a PEM file"),
                    ));
                }
            }
        }
        if let Some(message) = vault.and_then(VaultConfig::check) {
            wrong.push(("ca", format!("ca: vault: {message}")));
        }
        let arn = ca.aws_pca.as_ref().map(|aws| aws.existing_arn.as_str());
        if ca.provider == CaProvider::AwsPca && arn.unwrap_or_default().is_empty() {
            let message = "ca: provider is \"aws_pca\", and there is no CA; write \
                           aws_pca { existing_arn = \"arn:aws:acm-pca:…\" }";
            wrong.push(("ca", message.to_owned()));
        }
        wrong
    }
}

impl CaConfig {
    fn read(&mut self, mut fields: Fields<'_>) {
        set(
            &mut self.provider,
            fields.word("provider", &CaProvider::WORDS, CaProvider::parse),
        );
        if let Some(inner) = fields.block("vault") {
            self.vault.get_or_insert_default().read(inner);
        }
        if let Some(inner) = fields.block("import") {
            self.import.get_or_insert_default().read(inner);
        }
        if let Some(inner) = fields.block("aws_pca") {
            self.aws_pca.get_or_insert_default().read(inner);
        }
        set(&mut self.leaf_ttl, fields.duration("leaf_ttl"));
        set(&mut self.allow_short_ttl, fields.bool("allow_short_ttl"));
        set(
            &mut self.intermediate_ttl,
            fields.duration("intermediate_ttl"),
        );
        set(&mut self.root_ttl, fields.duration("root_ttl"));
        set(
            &mut self.key_type,
            fields.word("key_type", &CaKeyType::WORDS, CaKeyType::parse),
        );
        set(&mut self.sign_per_second, fields.u32("sign_per_second", 1));
        fields.finish();
    }
}

impl ServerLimits {
    fn read(&mut self, mut fields: Fields<'_>) {
        set(
            &mut self.http_connections,
            fields.u32("http_connections", 1),
        );
        set(
            &mut self.http_body,
            fields.whole("http_body", 1024, 1024 * 1024 * 1024),
        );
        set(&mut self.agents, fields.u32("agents", 1));
        set(
            &mut self.instances_per_agent,
            fields.u32("instances_per_agent", 1),
        );
        fields.finish();
    }
}

/// Whether a leaf may live so long: 5 minutes to 90 days; with `short` from a second.
pub fn check_leaf_ttl(ttl: Duration, short: bool) -> Result<(), String> {
    let (least, most) = (Duration::from_secs(300), Duration::from_secs(2160 * 3600));
    let shortest = if short { Duration::from_secs(1) } else { least };
    match ttl {
        ttl if ttl > most => Err(format!("leaf_ttl: is {ttl}; at most {most} is taken")),
        ttl if ttl < shortest && short => {
            Err(format!("leaf_ttl: is {ttl}; at least {shortest} is taken"))
        }
        ttl if ttl < shortest => Err(format!(
            "leaf_ttl: is {ttl}; at least {least} is taken, or for tests less with \
             allow_short_ttl = true"
        )),
        _ => Ok(()),
    }
}

/// A SPIFFE trust domain (SPIFFE-ID, 2.1): lower case letters, digits, `.`, `-`
/// and `_`, at most 255. It is a part of the SNI too, hence labels of 63.
fn trust_domain(text: &str) -> Result<String, &'static str> {
    let label = |label: &str| {
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        !label.is_empty() && label.len() <= 63 && label.chars().all(fine)
    };
    match text.len() <= 200 && text.split('.').all(label) {
        true => Ok(text.to_owned()),
        false => Err("must be a domain in lower case, such as `mesh.example.com`"),
    }
}
