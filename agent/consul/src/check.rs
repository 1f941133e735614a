//! Checks: Consul's definitions and updates in.

use mesh_model::{CheckDefinition, CheckKind, Duration, Status};
use serde_json::Value;

use crate::fields::Fields;
use crate::{ConsulError, MAX_ID};

/// No check runs more often (Consul's `MinInterval`).
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// What a check may take at most when it does not say (Consul's default).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// A check that is added to an instance by itself: the body of `/v1/agent/check/register`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The instance that it belongs to.
    pub instance: String,
    /// The check.
    pub check: CheckDefinition,
}

/// An update of a TTL check: the body of `/v1/agent/check/update/:id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// What the check is now.
    pub status: Status,
    /// What it says of itself.
    pub output: String,
}

/// Reads the body of `PUT /v1/agent/check/register`.
///
/// # Errors
/// When a field is missing or wrong. A check that belongs to no instance is not taken: nothing
/// in the mesh would depend on it.
pub fn parse(body: &Value) -> Result<Registered, ConsulError> {
    let fields = Fields::root(body)?;
    let instance = fields.text("ServiceID")?.ok_or_else(|| {
        fields.error(
            "ServiceID",
            "missing; a check belongs to an instance, so write its id",
        )
    })?;
    let name = fields.text("Name")?;
    let id = fields.text("ID")?.or(fields.text("CheckID")?);
    let Some(id) = id.or_else(|| name.clone()) else {
        return Err(fields.error("Name", "missing; write the check's name"));
    };
    let check = definition(&fields, id, &name.unwrap_or_default())?
        .ok_or_else(|| fields.error("Name", NO_KIND))?;
    Ok(Registered { instance, check })
}

/// Reads the body of `PUT /v1/agent/check/update/:id`.
///
/// # Errors
/// When the status is not one of Consul's.
pub fn parse_update(body: &Value) -> Result<Update, ConsulError> {
    let fields = Fields::root(body)?;
    Ok(Update {
        status: status(&fields)?.ok_or_else(|| fields.error("Status", STATUSES))?,
        output: fields.text("Output")?.unwrap_or_default(),
    })
}

/// The checks of an instance or sidecar (`Check` and `Checks`), with ids as Consul gives them:
/// `service:<id>`, or `service:<id>:1`, `:2` … when there are several.
pub(crate) fn of_service(
    fields: &Fields<'_>,
    owner: &str,
    service: &str,
) -> Result<Vec<CheckDefinition>, ConsulError> {
    let mut all = fields.objects("Checks")?;
    all.extend(fields.object("Check")?);
    // An empty object is none: Nomad's forms have them.
    let mut found = Vec::new();
    for fields in &all {
        let id = fields.text("CheckID")?.or(fields.text("ID")?);
        let name = fields
            .text("Name")?
            .unwrap_or_else(|| format!("Service '{service}' check"));
        if let Some(check) = definition(fields, id.clone().unwrap_or_default(), &name)? {
            found.push(check);
        } else if id.is_some() {
            return Err(fields.error("Name", NO_KIND));
        }
    }
    let several = found.len() > 1;
    for (index, check) in found.iter_mut().enumerate() {
        if check.id.is_empty() {
            check.id = format!("service:{owner}");
            if several {
                check.id.push_str(&format!(":{}", index + 1));
            }
        }
    }
    Ok(found)
}

/// `None` when the object says nothing that is done.
fn definition(
    fields: &Fields<'_>,
    id: String,
    name: &str,
) -> Result<Option<CheckDefinition>, ConsulError> {
    if id.len() > MAX_ID || id.chars().any(char::is_control) {
        return Err(fields.error("CheckID", "too long, or with a control character in it"));
    }
    let Some(kind) = kind(fields)? else {
        return Ok(None);
    };
    let interval = fields.duration("Interval")?;
    let runs = !matches!(kind, CheckKind::Ttl { .. } | CheckKind::Alias { .. });
    if runs && interval.is_none() {
        return Err(fields.error("Interval", "missing; write how often, such as \"10s\""));
    }
    let interval = interval.unwrap_or(DEFAULT_TIMEOUT).max(MIN_INTERVAL);
    let timeout = fields.duration("Timeout")?;
    Ok(Some(CheckDefinition {
        id,
        name: name.to_owned(),
        kind,
        interval,
        timeout: timeout.unwrap_or_else(|| interval.min(DEFAULT_TIMEOUT)),
        initial: status(fields)?,
        success_before_passing: fields.count("SuccessBeforePassing")?,
        failures_before_warning: fields.count("FailuresBeforeWarning")?,
        failures_before_critical: fields.count("FailuresBeforeCritical")?,
    }))
}

fn kind(fields: &Fields<'_>) -> Result<Option<CheckKind>, ConsulError> {
    for unknown in [
        "Args",
        "ScriptArgs",
        "DockerContainerID",
        "UDP",
        "H2PING",
        "OSService",
    ] {
        let set = match fields.value(unknown) {
            None => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(values)) => !values.is_empty(),
            Some(_) => true,
        };
        if set {
            return Err(fields.error(
                unknown,
                "this kind of check is not run here; use HTTP, TCP, GRPC, TTL or AliasService",
            ));
        }
    }
    let tls_skip_verify = fields.flag("TLSSkipVerify")?;
    let tls_server_name = fields.text("TLSServerName")?.unwrap_or_default();
    if let Some(url) = fields.text("HTTP")? {
        if !(url.starts_with("http://") || url.starts_with("https://")) {
            return Err(fields.error("HTTP", "not a URL that begins with http:// or https://"));
        }
        let mut headers = std::collections::BTreeMap::new();
        if let Some(given) = fields.object("Header")? {
            for name in given.names() {
                headers.insert(name.clone(), given.texts(&name)?);
            }
        }
        return Ok(Some(CheckKind::Http {
            url,
            method: fields.text("Method")?.unwrap_or_default(),
            headers,
            body: fields.text("Body")?.unwrap_or_default(),
            tls_server_name,
            tls_skip_verify,
        }));
    }
    if let Some(address) = fields.text("TCP")? {
        return Ok(Some(CheckKind::Tcp { address }));
    }
    if let Some(target) = fields.text("GRPC")? {
        let (address, service) = match target.split_once('/') {
            Some((address, service)) => (address.to_owned(), service.to_owned()),
            None => (target, String::new()),
        };
        return Ok(Some(CheckKind::Grpc {
            address,
            service,
            tls: fields.flag("GRPCUseTLS")?,
            tls_server_name,
            tls_skip_verify,
        }));
    }
    if let Some(ttl) = fields.duration("TTL")? {
        return Ok(Some(CheckKind::Ttl { ttl }));
    }
    if let Some(instance) = fields.text("AliasService")? {
        return Ok(Some(CheckKind::Alias { instance }));
    }
    Ok(None)
}

fn status(fields: &Fields<'_>) -> Result<Option<Status>, ConsulError> {
    match fields.text("Status")? {
        None => Ok(None),
        Some(text) => Status::parse(&text)
            .map(Some)
            .ok_or_else(|| fields.error("Status", STATUSES)),
    }
}

const STATUSES: &str = "write passing, warning or critical";
const NO_KIND: &str =
    "the check does not say what to do; write HTTP, TCP, GRPC, TTL or AliasService";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_check_of_every_kind() {
        let cases = [
            (
                json!({"HTTP": "http://10.0.0.5/h", "Interval": "5s", "Timeout": "3s",
                       "Header": {"X-A": ["1", "2"]}, "Method": "HEAD"}),
                "http",
            ),
            (json!({"TCP": "10.0.0.5:80", "Interval": "10s"}), "tcp"),
            (
                json!({"GRPC": "10.0.0.5:80/a.B", "Interval": "10s", "GRPCUseTLS": true}),
                "grpc",
            ),
            (json!({"TTL": "41s"}), "ttl"),
            (json!({"alias_service": "web-1"}), "alias"),
        ];
        for (mut body, kind) in cases {
            body["ServiceID"] = json!("web-1");
            body["ID"] = json!("_nomad-check-1");
            body["Name"] = json!("alive");
            let registered = parse(&body).unwrap();
            assert_eq!(crate::agent::check_type(&registered.check.kind), kind);
            assert_eq!(registered.instance, "web-1");
            assert_eq!(registered.check.id, "_nomad-check-1");
        }
    }

    #[test]
    fn defaults_of_time() {
        let of = |body: Value| {
            let fields = Fields::root(&body).unwrap();
            let check = definition(&fields, "a".into(), "a").unwrap().unwrap();
            (check.interval.to_string(), check.timeout.to_string())
        };
        let tcp = |interval: &str| of(json!({"TCP": "a:1", "Interval": interval}));
        assert_eq!(tcp("1m"), ("1m".into(), "10s".into()));
        assert_eq!(tcp("5s"), ("5s".into(), "5s".into()));
        assert_eq!(tcp("10ms"), ("1s".into(), "1s".into()));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            (json!({"Name": "a"}), "ServiceID: missing"),
            (
                json!({"ServiceID": "w", "TCP": "a:1", "Interval": "1s"}),
                "Name: missing",
            ),
            (
                json!({"ServiceID": "w", "Name": "a"}),
                "Name: the check does not say what to do",
            ),
            (
                json!({"ServiceID": "w", "Name": "a", "TCP": "a:1"}),
                "Interval: missing",
            ),
            (
                json!({"ServiceID": "w", "Name": "a", "Args": ["sh"]}),
                "Args: this kind of check is not run here",
            ),
            (
                json!({"ServiceID": "w", "Name": "a", "TTL": "1s", "Status": "ok"}),
                "Status: write passing",
            ),
            (
                json!({"ServiceID": "w", "Name": "a", "HTTP": "ftp://x"}),
                "HTTP: not a URL",
            ),
        ];
        for (body, start) in cases {
            let error = parse(&body).unwrap_err().to_string();
            assert!(error.starts_with(start), "{error}");
        }
        assert!(parse_update(&json!({"Output": "x"})).is_err());
        assert_eq!(
            parse_update(&json!({"Status": "warning", "Output": "x"})).unwrap(),
            Update {
                status: Status::Warning,
                output: "x".into()
            }
        );
    }
}
