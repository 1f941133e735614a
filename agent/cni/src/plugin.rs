//! The protocol of CNI: what is asked, and what is answered.
//!
//! A command is in `CNI_COMMAND`, the rest in other variables and on standard
//! input; a result or an error goes to standard output. Nomad asks `ADD` up to
//! three times without a `DEL` between, `DEL` without `CNI_ARGS`, and `CHECK`
//! when its client starts again; before all that it runs the plugin with nothing
//! at all, to read a version.

use std::io::Read;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::args::{self, KEY};
use crate::config::Config;
use crate::fault::{Fault, quoted};
use crate::netns::Namespace;
use crate::rules::{self, Family};
use crate::tables::Tables;
use crate::{DNS_PORT, PLUGIN_VERSION};

/// How long the network config may be.
pub const MAX_STDIN_BYTES: u64 = 1024 * 1024;

/// The version of the protocol that answers without a config have.
const PROTOCOL: &str = "1.0.0";

/// The versions of the protocol that a network config may have. To this plugin
/// they are alike: it passes on a result that it does not read.
const PROTOCOLS: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];

/// What the program does in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// For standard output.
    pub stdout: String,
    /// A line for standard error, when anything was done.
    pub log: Option<String>,
    /// What to exit with: 0 or 1.
    pub code: u8,
}

/// The parts of a network config that this plugin reads.
#[derive(Debug, Deserialize)]
pub(crate) struct NetworkConfig {
    #[serde(default, rename = "cniVersion")]
    version: Option<String>,
    #[serde(default, rename = "prevResult")]
    previous: Option<Box<RawValue>>,
}

impl NetworkConfig {
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Fault> {
        serde_json::from_slice(text).map_err(|error| Fault::Decode(error.to_string()))
    }
}

/// Variables of the environment, by name.
type Env<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Does what the environment asks, with the network config at `stdin`. That is
/// read for `ADD` only.
#[must_use]
pub fn run(env: &Env<'_>, stdin: &mut dyn Read) -> Answer {
    // An empty variable is one that is not set, as to CNI's own library.
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    let Some(command) = env("CNI_COMMAND") else {
        return quiet(probe());
    };
    match command.as_str() {
        "VERSION" => quiet(format!(
            "{}\n",
            json!({"cniVersion": PROTOCOL, "supportedVersions": PROTOCOLS})
        )),
        "ADD" => add(&env, stdin),
        "CHECK" => match check(&env) {
            Ok(said) => done(String::new(), &what(&command, &env), &said),
            Err(fault) => refused(&fault, PROTOCOL, &what(&command, &env)),
        },
        // The rules end with the namespace. Before that an application may still
        // run, and it must not lose its sidecar first.
        "DEL" => done(
            String::new(),
            &what(&command, &env),
            "nothing to do, the rules end with the namespace",
        ),
        "GC" | "STATUS" => done(String::new(), &what(&command, &env), "nothing to do"),
        _ => {
            let fault = Fault::Environment(format!(
                "CNI_COMMAND is {}; consul-cni knows ADD, CHECK, DEL, GC, STATUS and VERSION",
                quoted(&command)
            ));
            refused(&fault, PROTOCOL, "a command")
        }
    }
}

/// What Nomad's probe reads: its first word that is a version counts.
fn probe() -> String {
    let meshctl = env!("CARGO_PKG_VERSION");
    format!("CNI consul-cni plugin v{PLUGIN_VERSION} (meshctl {meshctl})\n")
}

fn add(env: &Env<'_>, stdin: &mut dyn Read) -> Answer {
    let what = what("ADD", env);
    let network = match read(stdin) {
        Ok(network) => network,
        Err(fault) => return refused(&fault, PROTOCOL, &what),
    };
    // A config without a version is one of the first.
    let version = network.version.as_deref().unwrap_or("0.1.0");
    if !PROTOCOLS.contains(&version) {
        return refused(&Fault::Version(version.to_owned()), PROTOCOL, &what);
    }
    let Some(previous) = network.previous else {
        let fault = Fault::Network(
            "no prevResult; consul-cni must come after the plugin that makes the interface, in \
             a list of plugins"
                .to_owned(),
        );
        return refused(&fault, version, &what);
    };
    match intercept(env) {
        Ok(said) => done(format!("{}\n", previous.get()), &what, &said),
        Err(fault) => refused(&fault, version, &what),
    }
}

fn read(stdin: &mut dyn Read) -> Result<NetworkConfig, Fault> {
    let mut text = Vec::new();
    stdin
        .take(MAX_STDIN_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(|error| Fault::Input(error.to_string()))?;
    if u64::try_from(text.len()).is_ok_and(|length| length > MAX_STDIN_BYTES) {
        return Err(Fault::Input(format!("more than {MAX_STDIN_BYTES} bytes")));
    }
    NetworkConfig::parse(&text)
}

/// Puts the rules in place; what was done.
fn intercept(env: &Env<'_>) -> Result<String, Fault> {
    variable(env, "CNI_CONTAINERID")?;
    variable(env, "CNI_IFNAME")?;
    let netns = variable(env, "CNI_NETNS")?;
    let args = env("CNI_ARGS").unwrap_or_default();
    let Some(text) = args::iptables_config(&args)? else {
        return Err(Fault::Config(
            "not there; Nomad sets it for a job with `transparent_proxy`, other jobs need a \
             network whose list of plugins is without consul-cni"
                .to_owned(),
        ));
    };
    let config = Config::parse(text, &netns)?;
    let namespace = Namespace::open(&netns)?;
    let path = env("PATH");
    let v4 = Tables::find(Family::V4, path.as_deref())?;
    let v6 = Tables::find(Family::V6, path.as_deref());
    let skipped = namespace.within(|| {
        let now = v4.list()?;
        v4.load(&rules::restore(&config, Family::V4, &now))?;
        intercept_v6(&config, v6)
    })??;
    Ok(said(&config, skipped.as_ref()))
}

/// IPv6 goes by the same rules, where there is a table for them. Why there is
/// none, otherwise: the table of IPv4 has been read and written just before, so
/// that what fails here is the table itself.
fn intercept_v6(config: &Config, tables: Result<Tables, Fault>) -> Result<Option<Fault>, Fault> {
    let (tables, now) = match tables.and_then(|tables| Ok((tables.list()?, tables))) {
        Ok((now, tables)) => (tables, now),
        Err(busy @ Fault::Busy(_)) => return Err(busy),
        Err(fault) => return Ok(Some(fault)),
    };
    tables.load(&rules::restore(config, Family::V6, &now))?;
    Ok(None)
}

/// Whether the rules are there, as far as that can be seen. Only that: Nomad
/// asks when its client starts again, and tears down a live allocation's network
/// when this fails, so what another day's config would look like is no reason.
fn check(env: &Env<'_>) -> Result<String, Fault> {
    let args = env("CNI_ARGS").unwrap_or_default();
    let (Ok(Some(_)), Some(netns)) = (args::iptables_config(&args), env("CNI_NETNS")) else {
        return Ok(format!("succeeds, since {KEY} is not there"));
    };
    let namespace = Namespace::open(&netns)?;
    let tables = Tables::find(Family::V4, env("PATH").as_deref());
    let listed = namespace.within(|| tables.and_then(|tables| tables.list()))?;
    match listed.map(|now| rules::missing(&now)) {
        Ok(None) => Ok("the rules are there".to_owned()),
        Ok(Some(what)) => Err(Fault::Missing { netns, what }),
        Err(fault) => Ok(format!("succeeds, since the rules cannot be read: {fault}")),
    }
}

fn variable(env: &Env<'_>, name: &str) -> Result<String, Fault> {
    env(name).ok_or_else(|| {
        Fault::Environment(format!(
            "{name} is not set; consul-cni is run by Nomad, not by hand"
        ))
    })
}

/// The first words of a line of the log.
fn what(command: &str, env: &Env<'_>) -> String {
    let name = |name| quoted(&env(name).unwrap_or_default());
    format!(
        "{command} {} in {}",
        name("CNI_CONTAINERID"),
        name("CNI_NETNS")
    )
}

fn said(config: &Config, skipped: Option<&Fault>) -> String {
    let mut said = format!(
        "redirected: inbound to {}, outbound to {}, ",
        config.inbound, config.outbound
    );
    match config.dns {
        true => said.push_str(&format!("DNS to {DNS_PORT}")),
        false => said.push_str("no DNS"),
    }
    match skipped {
        None => said.push_str("; IPv4 and IPv6"),
        Some(fault) => said.push_str(&format!("; IPv4 only, IPv6 passes by the mesh: {fault}")),
    }
    for note in &config.notes {
        said.push_str("; ");
        said.push_str(note);
    }
    said
}

fn quiet(stdout: String) -> Answer {
    Answer {
        stdout,
        log: None,
        code: 0,
    }
}

fn done(stdout: String, what: &str, said: &str) -> Answer {
    Answer {
        stdout,
        log: Some(format!("{what}: {said}")),
        code: 0,
    }
}

fn refused(fault: &Fault, version: &str, what: &str) -> Answer {
    let error = json!({
        "cniVersion": version,
        "code": fault.code(),
        "msg": format!("consul-cni: {fault}"),
    });
    Answer {
        stdout: format!("{error}\n"),
        log: Some(format!("{what}: refused: {fault}")),
        code: 1,
    }
}

#[cfg(test)]
mod tests;
