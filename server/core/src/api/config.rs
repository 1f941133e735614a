//! `/v1/config`: Consul's config entries, a second door to the same rows.
//!
//! An entry is kept word for word. What it means depends on the other entries of its service, so
//! they are read with it, put together by [`mesh_model::consul::compile`], and written in one
//! transaction that holds only if those others are still as they were read.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::FutureExt;
use http::{Method, StatusCode};
use mesh_model::consul::{ConfigEntry as Understood, ConsulKind, compile, parse_config_entry};
use mesh_model::{Diagnostics, Entry, EntryKey, Key, Row};
use mesh_state::{Applied, ConfigEntry, ConfigKey, Op, Prefix, RowKey, State, TableName, WatchKey};
use mesh_tls::Role;
use serde_json::{Map, Value, json};

use super::args::Args;
use super::error::ApiError;
use super::route::{Access, Body, Call, Content, Reply, Route, Shape};
use super::rows;
use crate::core::Freshness;
use crate::listen::Caller;

const ONE: &str = "/v1/config/{kind}/{name}";
/// How often a write begins anew because another one came between.
const ATTEMPTS: usize = 5;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::act(
            Method::PUT,
            "/v1/config",
            "writeConfig",
            "Writes one of Consul's config entries, JSON or HCL",
            Shape::One("ConfigWritten"),
            |call| put(call).boxed(),
        )
        .access(Access::Gateways)
        .body(Body::Raw)
        .writes(),
        Route::read(
            "/v1/config",
            "listConfig",
            "Every config entry",
            Shape::List("ConfigRow"),
            |_| Ok(vec![WatchKey::Table(TableName::Config)]),
            list,
        ),
        Route::read(
            "/v1/config/{kind}",
            "listConfigOfKind",
            "The config entries of a kind",
            Shape::List("ConfigRow"),
            |args| {
                Ok(vec![WatchKey::Prefix(Prefix::ConfigEntries(
                    kind(args)?.to_string(),
                ))])
            },
            list,
        ),
        Route::read(
            ONE,
            "readConfig",
            "One config entry",
            Shape::One("ConfigRow"),
            |args| Ok(vec![WatchKey::Key(RowKey::Config(key(args)?))]),
            read,
        )
        .query("raw", "The text, word for word"),
        Route::act(
            Method::DELETE,
            ONE,
            "deleteConfig",
            "Deletes a config entry, and what it brought",
            Shape::One("ConfigWritten"),
            |call| delete(call).boxed(),
        )
        .writes(),
    ]
}

fn kind(args: &Args) -> Result<ConsulKind, ApiError> {
    let text = args.segment("kind");
    ConsulKind::parse(text).ok_or_else(|| {
        let known: Vec<&str> = ConsulKind::ALL.iter().map(|kind| kind.as_str()).collect();
        ApiError::request(format!(
            "kind `{text}` is not known; use {}",
            known.join(", ")
        ))
    })
}

fn key(args: &Args) -> Result<ConfigKey, ApiError> {
    Ok(ConfigKey {
        kind: kind(args)?.to_string(),
        key: args.pattern("name")?,
    })
}

fn row(row: &Row<ConfigEntry>) -> Map<String, Value> {
    let entry = &row.value;
    let mut fields = Map::new();
    fields.insert("kind".into(), entry.key.kind.clone().into());
    fields.insert("namespace".into(), entry.key.key.namespace.clone().into());
    fields.insert("name".into(), entry.key.key.name.clone().into());
    fields.insert("text".into(), entry.text.clone().into());
    fields.insert("rows".into(), json!(entry.rows));
    fields.insert("owner".into(), row.owner.clone().into());
    rows::stamp(&mut fields, row);
    fields
}

fn list(state: &State, args: &Args) -> Result<Content, ApiError> {
    let kind = match args.segment("kind") {
        "" => None,
        _ => Some(kind(args)?),
    };
    let rows = state.config_entries();
    let rows = rows.filter(|row| kind.is_none_or(|kind| row.value.key.kind == kind.as_str()));
    Ok(json!(rows.map(|one| row(one)).collect::<Vec<_>>()).into())
}

fn read(state: &State, args: &Args) -> Result<Content, ApiError> {
    let key = key(args)?;
    let found = state.config_entry(&key);
    let found = found.ok_or_else(|| ApiError::not_found(&key))?;
    match args.flag("raw")? {
        false => Ok(Value::Object(row(found)).into()),
        true => Ok(Content::Text {
            media: "text/plain; charset=utf-8",
            bytes: Bytes::from(found.value.text.clone()),
        }),
    }
}

async fn put(call: Call) -> Result<Reply, ApiError> {
    let text = std::str::from_utf8(&call.body);
    let text = text.map_err(|_| ApiError::request("the body is not UTF-8"))?;
    let entry = parse_config_entry("body", text).map_err(|wrong| malformed(&wrong))?;
    may_write(&call, entry.kind)?;
    let key = ConfigKey {
        kind: entry.kind.to_string(),
        key: entry.key(),
    };
    let cas = call.args.number("cas")?;
    let stored = ConfigEntry {
        key: key.clone(),
        text: text.to_owned(),
        rows: keys_of(std::slice::from_ref(&entry)),
    };
    let op = Op::PutConfig { entry: stored, cas };
    write(&call, &key, op, Some(entry)).await
}

/// An agent passes on what Nomad's servers write at its own door: the entries of gateways, and those
/// only, where the servers are set up for it. It takes over nobody's.
fn may_write(call: &Call, kind: ConsulKind) -> Result<(), ApiError> {
    let Caller::Cluster(id) = &call.caller else {
        return Ok(());
    };
    if id.role() != Role::Agent {
        return Ok(());
    }
    let refused = |message: &str| ApiError::new(StatusCode::FORBIDDEN, "forbidden", message);
    if !kind.is_gateway() {
        return Err(refused(
            "an agent may write the entries of gateways only; use a certificate of the role cli or server",
        ));
    }
    if !call.core.options.agents_write_gateways {
        return Err(refused(
            "agents do not write gateways here; set consul.address of Nomad's servers to a mesh \
             server's HTTP API, or agents_write_gateways = true on the mesh's servers",
        ));
    }
    match call.args.flag("force")? {
        true => Err(refused("an agent takes over no entry of another owner")),
        false => Ok(()),
    }
}

async fn delete(call: Call) -> Result<Reply, ApiError> {
    let key = key(&call.args)?;
    let op = Op::DeleteConfig {
        key: key.clone(),
        cas: call.args.number("cas")?,
    };
    write(&call, &key, op, None).await
}

fn malformed(wrong: &Diagnostics) -> ApiError {
    let findings: Vec<Value> = wrong
        .iter()
        .map(|one| json!({"key": null, "message": one.to_string()}))
        .collect();
    let status = StatusCode::BAD_REQUEST;
    ApiError::new(status, "invalid", wrong).with("findings", findings.into())
}

fn keys_of(entries: &[Understood]) -> Vec<EntryKey> {
    compile(entries).iter().map(Entry::key).collect()
}

/// Writes `op` on `key` with every row that changes by it.
async fn write(
    call: &Call,
    key: &ConfigKey,
    op: Op,
    entry: Option<Understood>,
) -> Result<Reply, ApiError> {
    call.core.fresh(Freshness::Default).await?;
    let mut attempt = 0;
    let applied = loop {
        attempt += 1;
        let state = call.core.store.state();
        let ops = operations(&state, key, op.clone(), entry.as_ref())?;
        match rows::commit(call, ops).await {
            Err(error) if attempt < ATTEMPTS && came_between(&error, key) => {}
            result => break result?,
        }
    };
    Ok(reply(&applied, key))
}

/// Another entry of the service changed since it was read: nothing that the
/// caller asked about.
fn came_between(error: &ApiError, key: &ConfigKey) -> bool {
    let of = error.details.get("key").and_then(Value::as_str);
    error.code == "conflict"
        && of.is_some_and(|of| of.starts_with("config entry") && of != key.to_string())
}

fn operations(
    state: &State,
    key: &ConfigKey,
    op: Op,
    entry: Option<&Understood>,
) -> Result<Vec<Op>, ApiError> {
    let mut together = Vec::new();
    let mut ops = vec![op];
    let kinds = ConsulKind::ALL.iter().map(|kind| ConfigKey {
        kind: kind.to_string(),
        key: key.key.clone(),
    });
    for other in kinds.filter(|other| other != key) {
        let found = state.config_entry(&other);
        ops.push(Op::Require {
            key: RowKey::Config(other.clone()),
            cas: found.map_or(0, |row| row.modify_index),
        });
        let Some(row) = found else {
            continue;
        };
        let other = understood(row)?;
        if let Some(entry) = entry.filter(|it| it.kind.is_gateway())
            && other.kind.is_gateway()
        {
            let (kind, key) = (other.kind, &key.key);
            return Err(ApiError::request(format!(
                "{entry}: there is a {kind} of this name, and a gateway is one of the two; delete \
                 that one first: meshctl config delete -kind {kind} -name {key}"
            )));
        }
        together.push(other);
    }
    together.extend(entry.cloned());
    // Rows that this entry has, or had, a part in; the others stay as they are.
    let mut affected: BTreeSet<EntryKey> = BTreeSet::new();
    let old = state.config_entry(key).map(|row| row.value.rows.clone());
    affected.extend(old.unwrap_or_default());
    affected.extend(
        entry
            .map(|one| keys_of(std::slice::from_ref(one)))
            .unwrap_or_default(),
    );
    let entries = compile(&together);
    let changed = entries
        .into_iter()
        .filter(|one| affected.contains(&one.key()));
    ops.extend(changed.map(|entry| Op::Put { entry, cas: None }));
    Ok(ops)
}

fn understood(row: &Row<ConfigEntry>) -> Result<Understood, ApiError> {
    let name = row.value.key.to_string();
    parse_config_entry(&name, &row.value.text).map_err(|wrong| {
        ApiError::internal(format!("{name} is stored, but cannot be read: {wrong}"))
    })
}

fn reply(applied: &Applied, key: &ConfigKey) -> Reply {
    let Key { namespace, name } = &key.key;
    let mut answer = rows::written(applied, None);
    answer["kind"] = key.kind.clone().into();
    answer["namespace"] = namespace.clone().into();
    answer["name"] = name.clone().into();
    answer["results"] = rows::results(&applied.results).into();
    Reply::json(answer).at(rows::index(applied))
}
