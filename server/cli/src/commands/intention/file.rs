//! Files of `intention create -file`: our HCL, the API's JSON, and the JSON of
//! Consul's `intention create -file`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mesh_model::{Action, Entry, Intention, IntentionRule, Key};
use serde::Deserialize;
use serde_json::Value;

use crate::client::unrow;
use crate::commands::files::{self, Source};
use crate::console::Console;
use crate::error::CliError;

pub(super) fn read(
    names: &[String],
    console: &mut Console<'_>,
) -> Result<Vec<Intention>, CliError> {
    let paths: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
    let (json, hcl): (Vec<Source>, Vec<Source>) = files::sources(&paths, console)?
        .into_iter()
        .partition(|(_, text)| text.trim_start().starts_with(['{', '[']));
    let mut all = Vec::new();
    for (name, text) in &json {
        all.extend(from_json(name, text)?);
    }
    for entry in files::entries(&hcl).map_err(CliError::Invalid)? {
        match entry.value {
            Entry::Intention(intention) => all.push(intention),
            other => {
                let place = format!("{}:{}:{}", entry.file, entry.line, entry.column);
                return Err(CliError::refused(
                    format!("{place}: {} is not an intention", other.key()),
                    "`meshctl apply -f` and `meshctl config write` take all kinds.",
                ));
            }
        }
    }
    match all.is_empty() {
        true => Err(CliError::refused(
            "there is no intention in these files",
            "",
        )),
        false => Ok(all),
    }
}

/// One intention, or a list of them.
fn from_json(name: &str, text: &str) -> Result<Vec<Intention>, CliError> {
    let wrong = |error: String| CliError::refused(format!("{name}: {error}"), "");
    let value: Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let list = match value {
        Value::Array(list) => list,
        one => vec![one],
    };
    list.into_iter()
        .map(|one| match one.get("SourceName").is_some() {
            true => consul(one).map_err(&wrong),
            false => Intention::deserialize(unrow(&one)).map_err(|error| wrong(error.to_string())),
        })
        .collect()
}

/// Consul's form. What its servers add (ids, times, indexes) may stand there.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Consul {
    source_name: String,
    #[serde(default, rename = "SourceNS")]
    source_ns: String,
    destination_name: String,
    #[serde(default, rename = "DestinationNS")]
    destination_ns: String,
    #[serde(default)]
    action: String,
    #[serde(default)]
    permissions: Option<Vec<Value>>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    meta: Option<BTreeMap<String, String>>,
}

fn consul(value: Value) -> Result<Intention, String> {
    let form = Consul::deserialize(value).map_err(|error| error.to_string())?;
    if form.permissions.is_some_and(|all| !all.is_empty()) {
        return Err(
            "has permissions in Consul's form; write it as a service-intentions entry with \
             `meshctl config write`"
                .to_owned(),
        );
    }
    let action = Action::parse(&form.action)
        .ok_or_else(|| format!("Action: `{}` is neither allow nor deny", form.action))?;
    Ok(Intention {
        source: key(&form.source_ns, &form.source_name)?,
        destination: key(&form.destination_ns, &form.destination_name)?,
        rule: IntentionRule::Action(action),
        description: form.description,
        meta: form.meta.unwrap_or_default(),
    })
}

fn key(namespace: &str, name: &str) -> Result<Key, String> {
    let key = match namespace {
        "" => name.parse(),
        namespace => format!("{namespace}/{name}").parse(),
    };
    key.map_err(|error: mesh_model::NameError| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ours_and_consuls_json_are_read() {
        let ours = r#"[{"source":{"name":"web"},"destination":{"name":"db"},"action":"allow",
            "owner":"cli","create_index":3,"modify_index":3,"precedence":9}]"#;
        let theirs = r#"{"ID":"x","SourceNS":"default","SourceName":"web","DestinationName":"db",
            "Action":"allow","SourceType":"consul","Precedence":9}"#;
        assert_eq!(
            from_json("a", ours).unwrap(),
            from_json("b", theirs).unwrap()
        );
    }

    #[test]
    fn mistakes_name_the_file() {
        for text in [
            "{",
            "{}",
            "[1]",
            r#"{"SourceName":"a/b","DestinationName":"c","Action":"allow"}"#,
            r#"{"SourceName":"a","DestinationName":"c","Action":"perhaps"}"#,
            r#"{"SourceName":"a","DestinationName":"c","Permissions":[{}]}"#,
            r#"{"source":{"name":"a"},"destination":{"name":"b"},"action":"allow","jwt":1}"#,
        ] {
            // A namespace with a slash is none.
            let text = text.replace("a/b", "a/b/c");
            let error = from_json("x.json", &text).unwrap_err().report();
            assert!(error.starts_with("Error: x.json: "), "{error}");
        }
    }
}
