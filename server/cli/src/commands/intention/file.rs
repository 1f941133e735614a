//! Files of `intention create -file`: our HCL, the API's JSON, and the JSON of
//! Consul's `intention create -file`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mesh_model::{Action, DEFAULT_NAMESPACE, Entry, Intention, IntentionRule, Key, Located};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::client::unrow;
use crate::commands::files::{self, Source};
use crate::console::Console;
use crate::error::CliError;

/// The intentions of files, in their order; and the same as entries, with the
/// places where they are written.
pub(super) fn read(
    names: &[String],
    console: &mut Console<'_>,
) -> Result<(Vec<Intention>, Vec<Located<Entry>>), CliError> {
    let paths: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
    let sources = files::sources(&paths, console)?;
    let is_json = |text: &str| text.trim_start().starts_with(['{', '[']);
    // The HCL of all files is one set; what comes of it is in their order.
    let hcl: Vec<Source> = sources
        .iter()
        .filter(|(_, text)| !is_json(text))
        .cloned()
        .collect();
    let mut blocks = files::entries(&hcl)
        .map_err(CliError::Invalid)?
        .into_iter()
        .peekable();
    let (mut all, mut located) = (Vec::new(), Vec::new());
    for (name, text) in &sources {
        if is_json(text) {
            let read = from_json(name, text)?;
            located.extend(read.iter().map(|one| at_the_top(name, one)));
            all.extend(read);
        }
        while let Some(entry) = blocks.next_if(|entry| entry.file == *name) {
            located.push(entry.clone());
            match &entry.value {
                Entry::Intention(intention) => all.push(intention.clone()),
                other => {
                    return Err(CliError::refused(
                        format!("{}: {} is not an intention", entry.place(), other.key()),
                        "`meshctl apply -f` and `meshctl config write` take all kinds.",
                    ));
                }
            }
        }
    }
    match all.is_empty() {
        true => Err(CliError::refused(
            "there is no intention in these files",
            "",
        )),
        false => Ok((all, located)),
    }
}

/// JSON is read without places: all of a file stands at its top.
fn at_the_top(file: &str, intention: &Intention) -> Located<Entry> {
    Located {
        value: Entry::Intention(intention.clone()),
        file: file.to_owned(),
        line: 1,
        column: 1,
        parts: Vec::new(),
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
        .map(|one| match is_consul(&one) {
            true => consul(one).map_err(&wrong),
            false => Intention::deserialize(unrow(&one)).map_err(|error| wrong(error.to_string())),
        })
        .collect()
}

/// What Consul's servers add to an intention, and that says nothing of it.
const ADDED: [&str; 7] = [
    "ID",
    "Precedence",
    "CreatedAt",
    "UpdatedAt",
    "CreateIndex",
    "ModifyIndex",
    "Hash",
];

/// Whether it is of Consul's form. Names are compared as Go's JSON does, in
/// whatever case: one that is not known for Consul's would be read as ours.
fn is_consul(value: &Value) -> bool {
    let named = |name: &String| {
        ["SourceName", "DestinationName"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name))
    };
    value.as_object().is_some_and(|map| map.keys().any(named))
}

/// The fields of Consul's form, which are taken out one by one. What is left
/// is refused: of an intention that is half understood the other half may be
/// who is meant.
struct Fields(Map<String, Value>);

impl Fields {
    fn of(value: Value) -> Result<Self, String> {
        match value {
            Value::Object(map) => Ok(Self(map)),
            _ => Err("an intention must be an object".to_owned()),
        }
    }

    /// The field of that name; null is as if it were not there.
    fn take(&mut self, name: &str) -> Result<Option<Value>, String> {
        let written: Vec<String> = self
            .0
            .keys()
            .filter(|key| key.eq_ignore_ascii_case(name))
            .cloned()
            .collect();
        if written.len() > 1 {
            return Err(format!("{name}: is written twice; keep one of the two"));
        }
        let value = written.first().and_then(|name| self.0.remove(name));
        Ok(value.filter(|value| !value.is_null()))
    }

    fn text(&mut self, name: &str) -> Result<String, String> {
        match self.take(name)? {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(format!("{name}: must be a string")),
        }
    }

    /// Takes a field if it says what holds here anyhow.
    fn only(&mut self, name: &str, taken: &str) -> Result<(), String> {
        let text = self.text(name)?;
        match text.is_empty() || text == taken {
            true => Ok(()),
            false => Err(format!("{name}: `{text}` is not supported yet")),
        }
    }

    /// Refuses a field that we do not have, unless it is empty.
    fn later(&mut self, name: &str) -> Result<(), String> {
        match self.take(name)? {
            None => Ok(()),
            Some(Value::String(text)) if text.is_empty() => Ok(()),
            Some(_) => Err(format!("{name} is not supported yet")),
        }
    }

    /// A side: its name, and the namespace beside it.
    fn side(&mut self, side: &str) -> Result<Key, String> {
        let name = self.text(&format!("{side}Name"))?;
        let key = match self.text(&format!("{side}NS"))?.as_str() {
            "" => name.parse(),
            namespace => format!("{namespace}/{name}").parse(),
        };
        key.map_err(|error: mesh_model::NameError| format!("{side}Name: {error}"))
    }

    fn meta(&mut self) -> Result<BTreeMap<String, String>, String> {
        match self.take("Meta")? {
            None => Ok(BTreeMap::new()),
            Some(meta) => BTreeMap::deserialize(meta).map_err(|error| format!("Meta: {error}")),
        }
    }

    fn finish(self) -> Result<(), String> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("{name} is not known in an intention of Consul's")),
        }
    }
}

fn consul(value: Value) -> Result<Intention, String> {
    let mut fields = Fields::of(value)?;
    for name in ADDED {
        fields.take(name)?;
    }
    for name in ["SourcePeer", "SourceSamenessGroup", "JWT"] {
        fields.later(name)?;
    }
    fields.only("SourceType", "consul")?;
    fields.only("SourcePartition", DEFAULT_NAMESPACE)?;
    fields.only("DestinationPartition", DEFAULT_NAMESPACE)?;
    let permissions = fields.take("Permissions")?;
    if permissions.is_some_and(|all| all.as_array().is_none_or(|all| !all.is_empty())) {
        return Err(
            "has permissions in Consul's form; write it as a service-intentions entry with \
             `meshctl config write`"
                .to_owned(),
        );
    }
    let action = fields.text("Action")?;
    let action = Action::parse(&action)
        .ok_or_else(|| format!("Action: `{action}` is neither allow nor deny"))?;
    let intention = Intention {
        source: fields.side("Source")?,
        destination: fields.side("Destination")?,
        rule: IntentionRule::Action(action),
        description: fields.text("Description")?,
        meta: fields.meta()?,
    };
    fields.finish()?;
    Ok(intention)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ours_and_consuls_json_are_read() {
        let ours = r#"[{"source":{"name":"web"},"destination":{"name":"db"},"action":"allow",
            "owner":"cli","create_index":3,"modify_index":3,"precedence":9,
            "created_at":"2026-03-01T09:30:00.250Z","modified_at":"2026-03-02T00:00:00.000Z"}]"#;
        let theirs = r#"{"ID":"x","SourceNS":"default","SourceName":"web","DestinationName":"db",
            "Action":"allow","SourceType":"consul","Precedence":9}"#;
        assert_eq!(
            from_json("a", ours).unwrap(),
            from_json("b", theirs).unwrap()
        );
        // As Go reads it, and as Consul's API answers it.
        let answered = r#"[{"id":"x","sourcename":"web","SourcePartition":"default",
            "SourceNS":"","SourcePeer":"","destinationName":"db","destinationns":"default",
            "DestinationPartition":"","ACTION":"allow","Permissions":null,"Description":"",
            "SourceType":"consul","Meta":{},"Precedence":9,"CreatedAt":"2018-05-21T16:41:33Z",
            "UpdatedAt":"2018-05-21T16:41:33Z","CreateIndex":11,"ModifyIndex":12,"Hash":"xyz"}]"#;
        assert_eq!(
            from_json("a", ours).unwrap(),
            from_json("b", answered).unwrap()
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

    /// A half of an intention that is passed over may be who is meant.
    #[test]
    fn what_we_do_not_have_is_refused_by_name() {
        for (field, said) in [
            (
                r#""SourcePeer":"other-dc""#,
                "SourcePeer is not supported yet",
            ),
            (
                r#""sourcepeer":"other-dc""#,
                "SourcePeer is not supported yet",
            ),
            (
                r#""SourceSamenessGroup":"g""#,
                "SourceSamenessGroup is not supported yet",
            ),
            (r#""JWT":{}"#, "JWT is not supported yet"),
            (
                r#""SourcePartition":"p""#,
                "SourcePartition: `p` is not supported yet",
            ),
            (
                r#""DestinationPartition":"p""#,
                "DestinationPartition: `p` is not supported yet",
            ),
            (
                r#""SourceType":"external""#,
                "SourceType: `external` is not supported yet",
            ),
            (r#""SourceTag":"x""#, "SourceTag is not known"),
            (r#""sourceName":"api""#, "SourceName: is written twice"),
            (r#""SourceNS":7"#, "SourceNS: must be a string"),
            (r#""Permissions":{"a":1}"#, "has permissions"),
        ] {
            let text = format!(
                r#"[{{"SourceName":"web","DestinationName":"db","Action":"allow",{field}}}]"#
            );
            let error = from_json("x.json", &text).unwrap_err().report();
            let wanted = format!("Error: x.json: {said}");
            assert!(error.starts_with(&wanted), "{field}: {error}");
        }
    }
}
