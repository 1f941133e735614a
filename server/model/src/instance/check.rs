//! `check` blocks.

use super::host_port;
use crate::fields::Fields;
use crate::{CheckDefinition, CheckKind, Duration, Status};

/// How often, and how long at most, when a check does not say (Consul's).
const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(10);

/// Most checks of one instance or sidecar.
const MOST: usize = 64;

const TYPES: [&str; 5] = ["http", "tcp", "grpc", "ttl", "alias"];

/// What checks are of: an instance, or its sidecar.
pub(super) struct Of<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    /// Where it is asked when a check does not say.
    pub(super) host: &'a str,
    pub(super) port: u16,
    /// A port of 0 is one that the agent picks later.
    pub(super) port_is_picked: bool,
}

/// The `check` blocks of a block. The id of the only one is `service:<id>`, of
/// several `service:<id>:<number>`, as Consul's are.
pub(super) fn checks(fields: &mut Fields<'_>, of: &Of<'_>) -> Vec<CheckDefinition> {
    let blocks = fields.bare_blocks("check");
    if blocks.len() > MOST {
        let message = format!("{} checks; at most {MOST} are run", blocks.len());
        fields.wrong(fields.at(), "check", message);
        return Vec::new();
    }
    let single = blocks.len() == 1;
    let mut out: Vec<CheckDefinition> = Vec::new();
    for (index, block) in blocks.into_iter().enumerate() {
        let id = check_id(of.id, (!single).then_some(index + 1));
        let at = block.at();
        let Some(check) = check(block, of, id) else {
            continue;
        };
        if out.iter().any(|other| other.id == check.id) {
            fields.wrong(at, "check", format!("the id `{}` stands twice", check.id));
        }
        out.push(check);
    }
    out
}

/// The checks that a sidecar gets when none is written: it is as its instance
/// is, and its port is open. `tcp` is off with `disable_default_tcp_check`.
pub fn sidecar_checks(
    instance: &str,
    sidecar: &str,
    host: &str,
    port: u16,
    tcp: bool,
) -> Vec<CheckDefinition> {
    let alias = (
        format!("Connect Sidecar Aliasing {instance}"),
        CheckKind::Alias {
            instance: instance.to_owned(),
        },
    );
    let listening = (
        "Connect Sidecar Listening".to_owned(),
        CheckKind::Tcp {
            address: host_port(host, port),
        },
    );
    let wanted = std::iter::once(alias).chain(tcp.then_some(listening));
    wanted
        .enumerate()
        .map(|(index, (name, kind))| CheckDefinition {
            id: check_id(sidecar, tcp.then_some(index + 1)),
            name,
            kind,
            interval: INTERVAL,
            timeout: TIMEOUT,
            initial: None,
            success_before_passing: 0,
            failures_before_warning: 0,
            failures_before_critical: 0,
        })
        .collect()
}

fn check_id(of: &str, number: Option<usize>) -> String {
    match number {
        Some(number) => format!("service:{of}:{number}"),
        None => format!("service:{of}"),
    }
}

fn check(mut fields: Fields<'_>, of: &Of<'_>, id: String) -> Option<CheckDefinition> {
    let kind = fields.word("type", &TYPES, |text| {
        TYPES.into_iter().find(|known| *known == text)
    });
    let kind = fields.required("type", kind, "type = \"http\"");
    let given = super::id(&mut fields);
    let name = fields.string("name");
    let kind = match kind {
        Some("http") => http(&mut fields, of),
        Some("tcp") => tcp(&mut fields, of),
        Some("grpc") => grpc(&mut fields, of),
        Some("ttl") => {
            let ttl = fields.duration("ttl");
            let ttl = fields.required("ttl", ttl, "ttl = \"30s\"");
            ttl.map(|ttl| CheckKind::Ttl { ttl })
        }
        Some("alias") => {
            let instance = fields.string("alias_service");
            let hint = "alias_service = \"the other's id\"";
            let instance = fields.required("alias_service", instance, hint);
            instance.map(|instance| CheckKind::Alias { instance })
        }
        _ => return None, // said already; which keys it may have is not known
    };
    let check = CheckDefinition {
        id: given.unwrap_or(id),
        name: name.unwrap_or_else(|| format!("Service '{}' check", of.name)),
        interval: time(&mut fields, "interval", Duration::from_secs(1)).unwrap_or(INTERVAL),
        timeout: time(&mut fields, "timeout", Duration::from_millis(1)).unwrap_or(TIMEOUT),
        initial: fields.word(
            "initial_status",
            &["passing", "warning", "critical"],
            Status::parse,
        ),
        success_before_passing: fields.u32("success_before_passing", 0).unwrap_or_default(),
        failures_before_warning: fields.u32("failures_before_warning", 0).unwrap_or_default(),
        failures_before_critical: fields
            .u32("failures_before_critical", 0)
            .unwrap_or_default(),
        kind: kind.unwrap_or(CheckKind::Ttl { ttl: INTERVAL }),
    };
    fields.finish();
    Some(check)
}

fn time(fields: &mut Fields<'_>, key: &'static str, least: Duration) -> Option<Duration> {
    let at = fields.where_is(key).unwrap_or(fields.at());
    let value = fields.duration(key)?;
    if value < least {
        fields.wrong(at, key, format!("is {value}; at least {least} is taken"));
    }
    Some(value)
}

/// `host:port` of the keys `address` and `port`, or of what the check is of.
fn target(fields: &mut Fields<'_>, of: &Of<'_>) -> String {
    let host = fields.parsed("address", super::host);
    let written = fields.where_is("port").is_some();
    let port = fields.port("port", 1);
    if !written && of.port == 0 && !of.port_is_picked {
        let hint = Some("add `port` to the check or to the instance".to_owned());
        fields.wrong_with(fields.at(), "", "has no port to ask", hint);
    }
    host_port(host.as_deref().unwrap_or(of.host), port.unwrap_or(of.port))
}

fn http(fields: &mut Fields<'_>, of: &Of<'_>) -> Option<CheckKind> {
    let url = match fields.where_is("url") {
        Some(_) => fields.parsed("url", |text| {
            let rest = ["http://", "https://"]
                .into_iter()
                .find_map(|scheme| text.strip_prefix(scheme));
            let fine = text.len() <= 2048 && !text.chars().any(|c| c.is_control() || c == ' ');
            match rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) && fine {
                true => Ok(text.to_owned()),
                false => Err("must be a URL such as `http://127.0.0.1:8080/healthz`"),
            }
        }),
        None => {
            let scheme = fields.word("protocol", &["http", "https"], |text| match text {
                "http" => Some("http"),
                "https" => Some("https"),
                _ => None,
            });
            let path = fields.parsed("path", |text| {
                let fine = |c: char| !c.is_control() && c != ' ' && c != '#';
                match text.starts_with('/') && text.len() <= 2048 && text.chars().all(fine) {
                    true => Ok(text.to_owned()),
                    false => Err("must begin with `/` and have no space"),
                }
            });
            let path = fields.required("path", path, "path = \"/healthz\"");
            let target = target(fields, of);
            path.map(|path| format!("{}://{target}{path}", scheme.unwrap_or("http")))
        }
    };
    let method = fields.parsed("method", |text| {
        crate::parse_methods(vec![text.to_owned()]).map(|all| all.concat())
    });
    Some(CheckKind::Http {
        method: method.unwrap_or_default(),
        headers: fields.lists("header"),
        body: fields.string("body").unwrap_or_default(),
        tls_server_name: fields.string("tls_server_name").unwrap_or_default(),
        tls_skip_verify: fields.bool("tls_skip_verify").unwrap_or_default(),
        url: url?,
    })
}

fn tcp(fields: &mut Fields<'_>, of: &Of<'_>) -> Option<CheckKind> {
    Some(CheckKind::Tcp {
        address: target(fields, of),
    })
}

fn grpc(fields: &mut Fields<'_>, of: &Of<'_>) -> Option<CheckKind> {
    Some(CheckKind::Grpc {
        address: target(fields, of),
        service: fields.string("grpc_service").unwrap_or_default(),
        tls: fields.bool("grpc_use_tls").unwrap_or_default(),
        tls_server_name: fields.string("tls_server_name").unwrap_or_default(),
        tls_skip_verify: fields.bool("tls_skip_verify").unwrap_or_default(),
    })
}
