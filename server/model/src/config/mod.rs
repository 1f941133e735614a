//! The configuration files of a server and of an agent.
//!
//! Several files are one configuration: they are read in the order given, and
//! a later one wins key by key, also within a block; a list is replaced as a
//! whole. A key that is not known is an error with a hint, since one that is
//! quietly ignored is found on the day on which it mattered.

mod agent;
mod aws;
mod nomad;
mod server;
mod vault;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use agent::{AgentConfig, AgentLimits, Attestation, DnsConfig};
pub use aws::{AwsConfig, is_pca_arn};
pub use nomad::NomadConfig;
pub use server::{
    CaConfig, CaImport, CaKeyType, CaProvider, SealingConfig, ServerConfig, ServerLimits,
    TransitConfig, check_leaf_ttl,
};
pub use vault::{LeafSigning, VaultAuth, VaultConfig, is_vault_mount};

use crate::Diagnostics;
use crate::diagnostic::Context;
use crate::fields::{Fields, Style};
use crate::tree;

/// The port of the servers' HTTP API.
pub const HTTP_PORT: u16 = 8700;

/// The port on which servers speak with each other and with agents.
pub const GRPC_PORT: u16 = 8701;

/// The files of a part's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The cluster CA's certificates, PEM.
    pub ca_file: PathBuf,
    /// This part's certificate and those between it and the CA, PEM.
    pub cert_file: PathBuf,
    /// Its private key, PEM.
    pub key_file: PathBuf,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// All there is.
    Trace,
    /// For those who look for a fault.
    Debug,
    /// What an operator wants to know.
    #[default]
    Info,
    /// What may become a fault.
    Warn,
    /// Faults.
    Error,
}

impl LogLevel {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// Reads what [`Self::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Trace,
            Self::Debug,
            Self::Info,
            Self::Warn,
            Self::Error,
        ]
        .into_iter()
        .find(|level| level.as_str() == text)
    }
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// Reads `text` or `json`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// A configuration that is read key by key over what it has so far.
trait Readable {
    /// Takes what stands in one file.
    fn read(&mut self, fields: &mut Fields<'_>);

    /// What is wrong with the whole, after the last file.
    fn check(&self) -> Vec<(&'static str, String)>;
}

/// Reads the files, as (name, text), one over the other.
fn load<T: Readable>(mut config: T, files: &[(&str, &str)]) -> Result<T, Diagnostics> {
    let mut wrong = Diagnostics::default();
    for (file, text) in files {
        let context = Context::new(file, text);
        let items = tree::read(&context);
        let mut fields = Fields::new(&context, Style::Hcl, "", 0, &items);
        config.read(&mut fields);
        fields.finish();
        if let Err(more) = context.finish(()) {
            wrong.extend(more);
        }
    }
    if wrong.is_empty() {
        wrong = check_whole(&config, files);
    }
    match wrong.is_empty() {
        true => Ok(config),
        false => Err(wrong),
    }
}

/// The whole's mistakes, each at its key in the last file that has it.
fn check_whole<T: Readable>(config: &T, files: &[(&str, &str)]) -> Diagnostics {
    let mut wrong = Diagnostics::default();
    for (key, message) in config.check() {
        let has =
            |(_, text): &&(&str, &str)| text.lines().any(|line| line.trim_start().starts_with(key));
        let (file, text) = match files.iter().rev().find(has).or(files.last()) {
            Some((file, text)) => (*file, *text),
            None => ("configuration", ""),
        };
        let context = Context::new(file, text);
        let items = tree::read(&context);
        let at = items.iter().find(|item| item.name == key);
        context.report(at.map_or(0, |item| item.at), message, None);
        if let Err(more) = context.finish(()) {
            wrong.extend(more);
        }
    }
    wrong
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

/// The same for a value that may be none.
fn some<T>(target: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *target = value;
    }
}

fn path(fields: &mut Fields<'_>, key: &'static str) -> Option<PathBuf> {
    fields.parsed(key, |text| match text.is_empty() || text.contains('\0') {
        true => Err("must be a path"),
        false => Ok(PathBuf::from(text)),
    })
}

/// The `tls` block: all three files, or none.
fn tls(target: &mut Option<TlsFiles>, fields: &mut Fields<'_>) {
    let Some(mut inner) = fields.block("tls") else {
        return;
    };
    let before = target.take();
    let mut file = |key: &'static str, before: Option<PathBuf>| {
        let value = path(&mut inner, key);
        match value.or(before) {
            Some(path) => Some(path),
            None => inner.required(key, None, &format!("{key} = \"/etc/meshctl/…\"")),
        }
    };
    let ca_file = file("ca_file", before.as_ref().map(|tls| tls.ca_file.clone()));
    let cert_file = file(
        "cert_file",
        before.as_ref().map(|tls| tls.cert_file.clone()),
    );
    let key_file = file("key_file", before.map(|tls| tls.key_file));
    inner.finish();
    if let (Some(ca_file), Some(cert_file), Some(key_file)) = (ca_file, cert_file, key_file) {
        *target = Some(TlsFiles {
            ca_file,
            cert_file,
            key_file,
        });
    }
}

/// `log_level` and `log_format`.
fn log(level: &mut LogLevel, format: &mut LogFormat, fields: &mut Fields<'_>) {
    let levels = ["trace", "debug", "info", "warn", "error"];
    set(level, fields.word("log_level", &levels, LogLevel::parse));
    set(
        format,
        fields.word("log_format", &["text", "json"], LogFormat::parse),
    );
}

/// `host` or `host:port`, the default port added; what is wrong otherwise.
fn join_address(text: &str, port: u16) -> Result<String, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address.to_string());
    }
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Ok(SocketAddr::new(address, port).to_string());
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, digits)) => (host, digits.parse::<u16>().ok().filter(|port| *port > 0)),
        None => (text, Some(port)),
    };
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match port {
        Some(port) if !host.is_empty() && host.len() <= 253 && host.chars().all(fine) => {
            Ok(format!("{host}:{port}"))
        }
        _ => Err(format!(
            "`{}` is not an address; write one such as `10.0.0.1` or `server-1:{GRPC_PORT}`",
            text.chars().take(64).collect::<String>()
        )),
    }
}

/// A URL of another program's API; it holds no user and password.
fn url(text: &str) -> Result<String, &'static str> {
    let rest = text.strip_prefix("http://");
    let rest = rest.or_else(|| text.strip_prefix("https://"));
    let fine = |c: char| c.is_ascii_graphic() && c != '@';
    match rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(fine)) {
        true => Ok(text.to_owned()),
        false => Err("must be a URL such as `http://127.0.0.1:4646`, with no user in it"),
    }
}

/// A list of servers, each as `host:port`.
fn servers(target: &mut Vec<String>, fields: &mut Fields<'_>, key: &'static str) {
    if fields.where_is(key).is_some() {
        target.clear();
    }
    for (text, at) in fields.texts(key) {
        match join_address(text, GRPC_PORT) {
            Ok(address) => target.push(address),
            Err(error) => fields.wrong(at, key, error),
        }
    }
}

/// A name that becomes a part of identities or certificates.
fn name(fields: &mut Fields<'_>, key: &'static str) -> Option<String> {
    fields.parsed(key, |text| {
        crate::check_name(text).map(|()| text.to_owned())
    })
}

/// A node's name: a host name, with its dots.
fn node_name(fields: &mut Fields<'_>) -> Option<String> {
    fields.parsed("node_name", |text| {
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        match !text.is_empty() && text.len() <= 253 && text.chars().all(fine) {
            true => Ok(text.to_owned()),
            false => Err("must be 1 to 253 letters, digits, `-`, `_` and `.`"),
        }
    })
}

#[cfg(test)]
mod tests;
