//! The command line, as Nomad writes it.
//!
//! `connect envoy` and Consul's flags, with one dash or two. What changes
//! nothing here (certificates for a TLS that the agent does not speak on
//! loopback, a namespace) is read and left.

use std::fmt;

use mesh_model::GatewayKind;

use crate::Fault;

/// Where the agent answers when nothing else is said.
const HTTP_ADDR: &str = "127.0.0.1:8500";

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `consul version`
    Version,
    /// `consul connect envoy … -bootstrap`
    Bootstrap(Arguments),
}

/// What a bootstrap is asked with.
#[derive(Clone, PartialEq, Eq)]
pub struct Arguments {
    /// The sidecar's or gateway's id.
    pub proxy_id: String,
    /// The kind of gateway; none for a sidecar.
    pub gateway: Option<GatewayKind>,
    /// Where the agent's API is: `host:port`, `http://…`, `https://…` or
    /// `unix://path`.
    pub http_addr: String,
    /// Where the sidecar finds the agent: `host:port` or `unix://path`; the path
    /// may be relative to the task's root.
    pub grpc_addr: Option<String>,
    /// Where its admin listener binds.
    pub admin_bind: Option<String>,
    /// Where it says that it is ready.
    pub ready_bind: Option<String>,
    /// A token. It is shown to the agent, and never printed.
    pub token: Option<String>,
}

impl fmt::Debug for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arguments")
            .field("proxy_id", &self.proxy_id)
            .field("http_addr", &self.http_addr)
            .finish_non_exhaustive()
    }
}

/// Flags of Consul's that change nothing here, and whether a value follows.
const IGNORED: [(&str, bool); 10] = [
    ("grpc-ca-file", true),
    ("ca-file", true),
    ("ca-path", true),
    ("client-cert", true),
    ("client-key", true),
    ("tls-server-name", true),
    ("namespace", true),
    ("partition", true),
    ("envoy-version", true),
    ("no-central-config", false),
];

impl Arguments {
    /// Reads what follows the program's name.
    ///
    /// # Errors
    /// When it is not a command that Nomad runs.
    pub fn parse(arguments: &[String]) -> Result<Command, Fault> {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["version" | "-version" | "--version", ..] => Ok(Command::Version),
            ["connect", "envoy", rest @ ..] => Self::envoy(rest).map(Command::Bootstrap),
            [] => Err(Fault::Usage("no command".to_owned())),
            [first, ..] => Err(Fault::Usage(format!("`consul {first}` is not known"))),
        }
    }

    fn envoy(words: &[&str]) -> Result<Self, Fault> {
        let (mut proxy_id, mut http_addr, mut bootstrap) = (None, None, false);
        let mut gateway = None;
        let (mut grpc_addr, mut admin_bind, mut ready_bind, mut token) = (None, None, None, None);
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
            let name = name.ok_or_else(|| Fault::Usage(format!("`{word}` is not a flag")))?;
            let (name, inline) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (name, None),
            };
            let mut value = || {
                let given = inline.or_else(|| rest.next().copied());
                let given = given.map(str::to_owned);
                given.ok_or_else(|| Fault::Usage(format!("-{name} needs a value")))
            };
            match name {
                "bootstrap" => bootstrap = inline != Some("false"),
                "proxy-id" => proxy_id = Some(value()?),
                "gateway" => {
                    let kind = value()?;
                    let known = GatewayKind::parse(&kind);
                    gateway = Some(known.ok_or_else(|| {
                        Fault::Usage(format!("a gateway of kind `{kind}` is not supported yet"))
                    })?);
                }
                "http-addr" => http_addr = Some(value()?),
                "grpc-addr" => grpc_addr = Some(value()?),
                "admin-bind" => admin_bind = Some(value()?),
                "address" => ready_bind = Some(value()?),
                "token" => token = Some(value()?),
                other => match IGNORED.iter().find(|(known, _)| *known == other) {
                    Some((_, true)) => drop(value()?),
                    Some((_, false)) => {}
                    None => return Err(Fault::Usage(format!("-{other} is not known"))),
                },
            }
        }
        if !bootstrap {
            return Err(Fault::Usage(
                "without -bootstrap, Envoy would be started; use mesh-proxy".to_owned(),
            ));
        }
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        // Nomad's word for none: a gateway in the host's network whose service has no port's label.
        let bound = |text| filled(text).filter(|text| !text.ends_with(":0"));
        Ok(Self {
            proxy_id: filled(proxy_id)
                .ok_or_else(|| Fault::Usage("-proxy-id is missing".to_owned()))?,
            gateway,
            http_addr: filled(http_addr).unwrap_or_else(|| HTTP_ADDR.to_owned()),
            grpc_addr: filled(grpc_addr),
            admin_bind: bound(admin_bind),
            ready_bind: bound(ready_bind),
            token: filled(token),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(line: &str) -> Result<Command, Fault> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Arguments::parse(&words)
    }

    #[test]
    fn takes_nomads_line() {
        let line = "connect envoy -grpc-addr unix://alloc/tmp/consul_grpc.sock \
             -http-addr 127.0.0.1:8500 -admin-bind 127.0.0.2:19001 -address 127.0.0.1:19101 \
             -proxy-id _nomad-task-6f-group-api-count-api-9001-sidecar-proxy -bootstrap \
             -token 3b9c -namespace default -gateway ingress -ca-file /a -client-key /b";
        let Command::Bootstrap(read) = parse(line).unwrap() else {
            panic!("not a bootstrap")
        };
        assert_eq!(
            read,
            Arguments {
                proxy_id: "_nomad-task-6f-group-api-count-api-9001-sidecar-proxy".to_owned(),
                gateway: Some(GatewayKind::Ingress),
                http_addr: "127.0.0.1:8500".to_owned(),
                grpc_addr: Some("unix://alloc/tmp/consul_grpc.sock".to_owned()),
                admin_bind: Some("127.0.0.2:19001".to_owned()),
                ready_bind: Some("127.0.0.1:19101".to_owned()),
                token: Some("3b9c".to_owned()),
            }
        );
        assert!(!format!("{read:?}").contains("3b9c"));
    }

    #[test]
    fn port_0_is_nowhere() {
        let line = "connect envoy -grpc-addr 127.0.0.1:8502 -http-addr localhost:8500 \
             -admin-bind 127.0.0.2:0 -address 127.0.0.1:0 -proxy-id _nomad-task-6f -bootstrap \
             -gateway ingress";
        let Command::Bootstrap(read) = parse(line).unwrap() else {
            panic!("not a bootstrap")
        };
        assert_eq!((read.admin_bind, read.ready_bind), (None, None));
    }

    #[test]
    fn says_what_it_is_not() {
        for (line, part) in [
            ("", "no command"),
            ("kv get x", "`consul kv` is not known"),
            ("connect envoy -proxy-id a", "without -bootstrap"),
            ("connect envoy -bootstrap", "-proxy-id is missing"),
            (
                "connect envoy -bootstrap -proxy-id",
                "-proxy-id needs a value",
            ),
            (
                "connect envoy -bootstrap -sidecar a",
                "-sidecar is not known",
            ),
            (
                "connect envoy -bootstrap -proxy-id a -gateway mesh",
                "a gateway of kind `mesh` is not supported yet",
            ),
            ("connect envoy web", "`web` is not a flag"),
        ] {
            let fault = parse(line).unwrap_err();
            assert!(fault.to_string().contains(part), "{line}: {fault}");
            assert_eq!(fault.exit_code(), 2);
        }
        assert_eq!(parse("version").unwrap(), Command::Version);
    }
}
