//! The command line: Envoy's flags, since Nomad starts what it takes for Envoy,
//! and a few of ours.
//!
//! Read by hand: the flags are few, some are Envoy's with two dashes and some
//! ours with one, and this binary runs thousands of times.

use std::path::PathBuf;

use mesh_attach::AGENT_SOCKET;

/// How to use it.
pub const USAGE: &str = "\
mesh-proxy: the sidecar of the mesh

  mesh-proxy -c FILE              as Nomad starts it, with a bootstrap
  mesh-proxy -sidecar-for ID      beside the instance ID of this node's agent
  mesh-proxy -static FILE         without an agent, from a file
  mesh-proxy -static-example      prints such a file
  mesh-proxy -version

  -c, --config-path FILE          the bootstrap (`-` is standard input)
  -l, --log-level LEVEL           error, warn, info, debug, trace (info)
      --concurrency N             worker threads (1)
      --drain-time-s N            seconds to finish what runs, on SIGTERM (30)
  -agent-socket PATH              the agent's socket (/run/meshctl/agent.sock)
  -admin-bind HOST:PORT           the admin listener: /ready /metrics /config
                                  /drain (what the bootstrap says)
  -access-log on|off              a line of JSON for each request (on)
  -without-feature NAME           play a part that does not know it; for tests
";

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// What to run.
    pub mode: Mode,
    /// Which messages are logged.
    pub log_level: String,
    /// Worker threads.
    pub concurrency: usize,
    /// Seconds to finish what runs.
    pub drain_seconds: u64,
    /// The agent's socket.
    pub agent_socket: PathBuf,
    /// Where the admin listener binds, over what the bootstrap says.
    pub admin: Option<String>,
    /// Whether requests are logged.
    pub access_log: bool,
    /// Features that this process does as if it did not know.
    pub without_features: Vec<String>,
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With a bootstrap in a file; `-` is standard input.
    Bootstrap(PathBuf),
    /// Beside this instance of the node's agent.
    SidecarFor(String),
    /// From a file, without an agent.
    Static(PathBuf),
    /// Print such a file.
    StaticExample,
    /// Print the version.
    Version,
    /// Print the usage.
    Help,
}

/// A command line that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; `mesh-proxy -help` shows what there is")]
pub struct UsageError(String);

/// Envoy's flags that change nothing here, and whether a value follows them.
const IGNORED: [(&str, bool); 12] = [
    ("disable-hot-restart", false),
    ("base-id", true),
    ("restart-epoch", true),
    ("mode", true),
    ("service-cluster", true),
    ("service-node", true),
    ("service-zone", true),
    ("log-format", true),
    ("log-path", true),
    ("component-log-level", true),
    ("parent-shutdown-time-s", true),
    ("drain-strategy", true),
];

impl Arguments {
    /// Reads the arguments after the program's name.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, UsageError> {
        let mut read = Self {
            mode: Mode::Help,
            log_level: "info".to_owned(),
            concurrency: 1,
            drain_seconds: 30,
            agent_socket: PathBuf::from(AGENT_SOCKET),
            admin: None,
            access_log: true,
            without_features: Vec::new(),
        };
        let mut mode = None;
        let mut rest = arguments.into_iter();
        while let Some(argument) = rest.next() {
            let (name, inline) = split(&argument)?;
            let mut value = || {
                let given = inline.clone().or_else(|| rest.next());
                given.ok_or_else(|| UsageError(format!("{argument} needs a value")))
            };
            let chosen = match name.as_str() {
                "c" | "config-path" => Mode::Bootstrap(value()?.into()),
                "sidecar-for" => Mode::SidecarFor(value()?),
                "static" => Mode::Static(value()?.into()),
                "static-example" => Mode::StaticExample,
                "version" | "V" => Mode::Version,
                "help" | "h" => Mode::Help,
                other => {
                    read.option(other, &argument, &mut value)?;
                    continue;
                }
            };
            if let Some(before) = mode.replace(chosen.clone())
                && before != chosen
            {
                return Err(UsageError(format!(
                    "{argument} comes on top of another of -c, -sidecar-for and -static; keep one"
                )));
            }
        }
        read.mode = mode.ok_or_else(|| {
            UsageError("nothing to run: no -c, -sidecar-for or -static".to_owned())
        })?;
        Ok(read)
    }

    fn option(
        &mut self,
        name: &str,
        argument: &str,
        value: &mut dyn FnMut() -> Result<String, UsageError>,
    ) -> Result<(), UsageError> {
        match name {
            "l" | "log-level" => self.log_level = level(&value()?)?,
            "concurrency" => self.concurrency = number(argument, &value()?, 1, 64)? as usize,
            "drain-time-s" => self.drain_seconds = number(argument, &value()?, 0, 3600)?,
            "agent-socket" => self.agent_socket = value()?.into(),
            "admin-bind" => self.admin = Some(value()?),
            "access-log" => {
                self.access_log = match value()?.as_str() {
                    "on" => true,
                    "off" => false,
                    other => return Err(UsageError(format!("-access-log {other}: on or off"))),
                }
            }
            "without-feature" => self.without_features.push(value()?),
            other => match IGNORED.iter().find(|(known, _)| *known == other) {
                Some((_, true)) => drop(value()?),
                Some((_, false)) => {}
                None => return Err(UsageError(format!("{argument} is not known"))),
            },
        }
        Ok(())
    }
}

/// The name of a flag, with one dash or two, and what stands after its `=`.
fn split(argument: &str) -> Result<(String, Option<String>), UsageError> {
    let name = argument
        .strip_prefix("--")
        .or_else(|| argument.strip_prefix('-'))
        .filter(|name| !name.is_empty())
        .ok_or_else(|| UsageError(format!("`{argument}` is not a flag")))?;
    Ok(match name.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (name.to_owned(), None),
    })
}

fn number(argument: &str, text: &str, least: u64, most: u64) -> Result<u64, UsageError> {
    match text.parse() {
        // Envoy takes 0 for "as many as the host has cores", which no sidecar
        // should have.
        Ok(0) if least == 1 => Ok(1),
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(UsageError(format!(
            "{argument} {text}: write a number from {least} to {most}"
        ))),
    }
}

fn level(text: &str) -> Result<String, UsageError> {
    Ok(match text {
        "error" | "warn" | "info" | "debug" | "trace" => text,
        "warning" => "warn",
        "critical" | "off" => "error",
        _ => {
            return Err(UsageError(format!(
                "log level {text}: error, warn, info, debug or trace"
            )));
        }
    }
    .to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(line: &str) -> Result<Arguments, UsageError> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn takes_what_nomad_gives_envoy() {
        let read =
            parse("-c /secrets/envoy_bootstrap.json -l info --concurrency 1 --disable-hot-restart")
                .unwrap();
        assert_eq!(
            read.mode,
            Mode::Bootstrap("/secrets/envoy_bootstrap.json".into())
        );
        assert_eq!(read.concurrency, 1);
        assert_eq!(
            parse("--config-path=x --log-level warning --concurrency 0")
                .unwrap()
                .log_level,
            "warn"
        );
    }

    #[test]
    fn takes_ours_with_one_dash_or_two() {
        for line in ["-sidecar-for web", "--sidecar-for web", "-sidecar-for=web"] {
            assert_eq!(
                parse(line).unwrap().mode,
                Mode::SidecarFor("web".into()),
                "{line}"
            );
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (line, part) in [
            ("", "nothing to run"),
            ("-c", "-c needs a value"),
            ("-c a -static b", "keep one"),
            ("-c a --concurrency many", "a number from 1 to 64"),
            ("-c a -l loud", "log level loud"),
            ("-c a --frobnicate", "--frobnicate is not known"),
            ("web", "`web` is not a flag"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
