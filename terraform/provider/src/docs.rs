//! The documentation, in the layout that Terraform's registry shows: made from the schemas, with
//! the examples of `examples/`, which a test runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use mesh_tfprotocol::{Attribute, Kind, Nesting, Plugin, Schema, Signature, Value};

/// Each page, by its path.
pub(crate) fn pages(plugin: &Plugin) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut index = page(
        "mesh Provider",
        &plugin.schema(),
        example("provider", "provider"),
    );
    let _ = write!(
        index,
        "\n## A token of Nomad's\n\nWith ACLs, Nomad wants a token: in `NOMAD_TOKEN`, or `token` in `nomad` \
         from an ephemeral variable, so that no plan has it. This policy is enough for `mesh_server` and \
         `mesh_agent`:\n\n```hcl\n{NOMAD_POLICY}```\n"
    );
    all.insert("index.md".to_owned(), index);
    for (name, schema) in plugin.resource_schemas() {
        let title = format!("{name} (Resource)");
        let mut text = page(&title, &schema, example("resources", name));
        if let Some(import) = example("imports", name) {
            let _ = write!(text, "\n## Import\n\n```terraform\n{import}```\n");
        }
        all.insert(format!("resources/{}.md", short(name)), text);
    }
    for (name, schema) in plugin.data_source_schemas() {
        let title = format!("{name} (Data Source)");
        let text = page(&title, &schema, example("data-sources", name));
        all.insert(format!("data-sources/{}.md", short(name)), text);
    }
    for (name, signature) in plugin.signatures() {
        let text = function(name, &signature, example("functions", name));
        all.insert(format!("functions/{name}.md"), text);
    }
    all
}

/// Writes each page below a folder.
pub(crate) fn write(plugin: &Plugin, folder: &Path) -> io::Result<()> {
    for (name, text) in pages(plugin) {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, text)?;
    }
    Ok(())
}

fn short(name: &str) -> &str {
    name.split_once('_').map_or(name, |(_, short)| short)
}

/// The examples are in the program, so that it makes its documentation wherever it is.
macro_rules! examples {
    ($($kind:literal / $name:literal),+ $(,)?) => {
        const EXAMPLES: &[(&str, &str, &str)] = &[
            $(($kind, $name, include_str!(concat!("../examples/", $kind, "/", $name, ".tf"))),)+
        ];
    };
}

examples! {
    "provider" / "provider",
    "resources" / "mesh_agent",
    "resources" / "mesh_ca",
    "resources" / "mesh_defaults",
    "resources" / "mesh_intention",
    "resources" / "mesh_route",
    "resources" / "mesh_server",
    "resources" / "mesh_service",
    "imports" / "mesh_agent",
    "imports" / "mesh_ca",
    "imports" / "mesh_defaults",
    "imports" / "mesh_intention",
    "imports" / "mesh_route",
    "imports" / "mesh_server",
    "imports" / "mesh_service",
    "data-sources" / "mesh_ca_roots",
    "data-sources" / "mesh_intention_check",
    "data-sources" / "mesh_service",
    "data-sources" / "mesh_services",
    "data-sources" / "mesh_status",
    "functions" / "config",
    "functions" / "spiffe_id",
}

/// A test gives exactly this to a Nomad.
const NOMAD_POLICY: &str = include_str!("../examples/provider/nomad-policy.hcl");

fn example(kind: &str, name: &str) -> Option<&'static str> {
    let mut all = EXAMPLES.iter();
    all.find(|(of, known, _)| *of == kind && *known == name)
        .map(|(_, _, text)| *text)
}

fn page(title: &str, schema: &Schema, example: Option<&str>) -> String {
    let mut out = head(title, &schema.description);
    if let Some(example) = example {
        let _ = write!(out, "\n## Example Usage\n\n```terraform\n{example}```\n");
    }
    out.push_str("\n## Schema\n");
    let mut nested = Vec::new();
    attributes(&schema.attributes, "", &mut nested, &mut out, "###");
    // What is in a nested attribute may be nested itself.
    let mut at = 0;
    while let Some((path, inner)) = nested.get(at).cloned() {
        let anchor = anchor(&path);
        let _ = write!(
            out,
            "\n<a id=\"{anchor}\"></a>\n### Nested Schema for `{path}`\n"
        );
        attributes(&inner, &path, &mut nested, &mut out, "");
        at += 1;
    }
    out
}

fn head(title: &str, description: &str) -> String {
    let name = title.split(' ').next().unwrap_or_default();
    format!(
        "---\npage_title: \"{title}\"\ndescription: |-\n  {description}\n---\n\n# {name}\n\n{description}\n"
    )
}

fn attributes(
    all: &[Attribute],
    path: &str,
    nested: &mut Vec<(String, Vec<Attribute>)>,
    out: &mut String,
    heading: &str,
) {
    type Is = fn(&Attribute) -> bool;
    let groups: [(&str, Is); 3] = [
        ("Required", |one| one.required),
        ("Optional", |one| one.optional),
        ("Read-Only", |one| !one.required && !one.optional),
    ];
    for (title, is) in groups {
        let mut group: Vec<&Attribute> = all.iter().filter(|one| is(one)).collect();
        if group.is_empty() {
            continue;
        }
        group.sort_by(|a, b| a.name.cmp(&b.name));
        match heading {
            "" => drop(write!(out, "\n{title}:\n\n")),
            heading => drop(write!(out, "\n{heading} {title}\n\n")),
        }
        for one in group {
            line(one, path, nested, out);
        }
    }
}

fn line(one: &Attribute, path: &str, nested: &mut Vec<(String, Vec<Attribute>)>, out: &mut String) {
    let mut kind = vec![kind(one)];
    for (is, word) in [
        (one.sensitive, "Sensitive"),
        (one.write_only, "Write-only"),
        (one.deprecated.is_some(), "Deprecated"),
    ] {
        if is {
            kind.push(word.to_owned());
        }
    }
    let _ = write!(
        out,
        "- `{}` ({}) {}",
        one.name,
        kind.join(", "),
        one.description
    );
    if let Some(default) = one.default.as_ref().and_then(plain) {
        let _ = write!(out, " Defaults to `{default}`.");
    }
    if one.replaces {
        out.push_str(" A change of it makes the resource anew.");
    }
    if let Kind::Nested(_, inner) = &one.kind {
        let path = match path {
            "" => one.name.clone(),
            path => format!("{path}.{}", one.name),
        };
        let _ = write!(out, " (see [below](#{}))", anchor(&path));
        nested.push((path, inner.clone()));
    }
    out.push('\n');
}

fn anchor(path: &str) -> String {
    format!("nestedatt--{}", path.replace('.', "--"))
}

fn kind(one: &Attribute) -> String {
    match &one.kind {
        Kind::Nested(Nesting::Single, _) => "Attributes".to_owned(),
        Kind::Nested(Nesting::List, _) => "Attributes List".to_owned(),
        Kind::Nested(Nesting::Set, _) => "Attributes Set".to_owned(),
        Kind::Nested(Nesting::Map, _) => "Attributes Map".to_owned(),
        Kind::Type(ty) => {
            let text = ty.to_string();
            let mut chars = text.chars();
            match chars.next() {
                Some(first) => first.to_uppercase().chain(chars).collect(),
                None => text,
            }
        }
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn function(name: &str, signature: &Signature, example: Option<&str>) -> String {
    let mut out = head(&format!("{name} (Function)"), &signature.description);
    if let Some(example) = example {
        let _ = write!(out, "\n## Example Usage\n\n```terraform\n{example}```\n");
    }
    let parameters: Vec<String> = (signature.parameters.iter())
        .map(|one| format!("{} {}", one.name, one.ty))
        .collect();
    let _ = write!(
        out,
        "\n## Signature\n\n```text\n{name}({}) {}\n```\n\n## Arguments\n\n",
        parameters.join(", "),
        signature.returns
    );
    for (at, one) in signature.parameters.iter().enumerate() {
        let number = at + 1;
        let _ = writeln!(
            out,
            "{number}. `{}` ({}) {}",
            one.name, one.ty, one.description
        );
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;

    use super::*;

    /// `UPDATE_DOCS=1` writes the pages; otherwise they must be as they are made.
    #[test]
    fn the_documentation_is_what_the_schemas_say() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs");
        let plugin = crate::plugin();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            let _ = fs::remove_dir_all(&folder);
            write(&plugin, &folder).unwrap();
        }
        let made = pages(&plugin);
        for (name, text) in &made {
            let kept = fs::read_to_string(folder.join(name)).unwrap_or_default();
            assert_eq!(
                kept, *text,
                "docs/{name}: UPDATE_DOCS=1 cargo test writes it"
            );
        }
        let kept = |kind: &str| fs::read_dir(folder.join(kind)).map_or(0, Iterator::count);
        let kept = 1 + kept("resources") + kept("data-sources") + kept("functions");
        assert_eq!(kept, made.len(), "docs/ has a page of what is no more");
    }

    #[test]
    fn everything_has_an_example() {
        let plugin = crate::plugin();
        for name in plugin.resource_schemas().keys() {
            assert!(example("resources", name).is_some(), "{name}");
        }
        for name in plugin.data_source_schemas().keys() {
            assert!(example("data-sources", name).is_some(), "{name}");
        }
        for name in plugin.signatures().keys() {
            assert!(example("functions", name).is_some(), "{name}");
        }
    }
}
