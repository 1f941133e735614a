//! Functions: `spiffe_id` and `config`.

use std::collections::BTreeMap;

use mesh_model::Key;
use mesh_tfprotocol::{Function, FunctionError, Parameter, Resource, Signature, Type, Value};
use mesh_tls::{SpiffeId, TrustDomain};
use serde_json::{Value as Json, json};

use crate::entry::{Entry, Noun};
use crate::provider::Mesh;

/// `spiffe_id(trust_domain, datacenter, service)`.
pub(crate) struct SpiffeIdOf;

fn parameter(name: &str, description: &str) -> Parameter {
    Parameter {
        name: name.to_owned(),
        ty: Type::String,
        description: description.to_owned(),
    }
}

impl Function for SpiffeIdOf {
    fn signature(&self) -> Signature {
        Signature {
            summary: "The identity of a service".to_owned(),
            description:
                "The SPIFFE ID that the certificates of a service's sidecars have. The trust \
                          domain and the datacenter are in the `cluster` of the data source \
                          `mesh_status`: a function sees its arguments only."
                    .to_owned(),
            parameters: vec![
                parameter("trust_domain", "The mesh's trust domain."),
                parameter("datacenter", "The name of the server cluster."),
                parameter("service", "The service: `name`, or `namespace/name`."),
            ],
            returns: Type::String,
        }
    }

    fn call(&self, arguments: &[Value]) -> Result<Value, FunctionError> {
        let text = |at: usize| {
            arguments
                .get(at)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let wrong =
            |at, error: &dyn std::fmt::Display| FunctionError::argument(at, error.to_string());
        let domain: TrustDomain = text(0).parse().map_err(|error| wrong(0, &error))?;
        let key: Key = text(2).parse().map_err(|error| wrong(2, &error))?;
        key.check().map_err(|error| wrong(2, &error))?;
        let id = SpiffeId::new(&domain, &key.namespace, text(1), &key.name);
        Ok(id.map_err(|error| wrong(1, &error))?.as_str().into())
    }
}

/// `config(hcl)`.
pub(crate) struct Config {
    /// Names in a file are of the namespace `default`, whatever the provider's is.
    mesh: Mesh,
}

/// What a file may have, by the resource that it becomes.
const PARTS: [(&str, Noun); 4] = [
    ("defaults", Noun::Defaults),
    ("intentions", Noun::Intention),
    ("routes", Noun::Route),
    ("services", Noun::Service),
];

impl Config {
    pub(crate) fn new() -> Self {
        Self {
            mesh: Mesh::default(),
        }
    }

    /// A row's attributes, but those that only the servers give.
    fn ty(&self, noun: Noun) -> Type {
        match Entry::new(&self.mesh, noun).schema().ty() {
            Type::Object(mut all) => {
                all.remove("owner");
                Type::Object(all)
            }
            other => other,
        }
    }
}

impl Function for Config {
    fn signature(&self) -> Signature {
        Signature {
            summary: "A file of the mesh as objects".to_owned(),
            description: "Reads the blocks `mesh`, `service`, `route` and `intention` of a file of \
                          `meshctl apply`, with its rules and messages. The result has the maps \
                          `defaults`, `services`, `routes` and `intentions`, to be gone through with \
                          `for_each`. Their keys are those by which the resources are imported, and \
                          their objects have the resources' attributes."
                .to_owned(),
            parameters: vec![parameter("hcl", "The text, such as `file(\"mesh.hcl\")`.")],
            returns: Type::object(PARTS.map(|(part, noun)| (part, Type::map(self.ty(noun))))),
        }
    }

    fn call(&self, arguments: &[Value]) -> Result<Value, FunctionError> {
        let text = arguments
            .first()
            .and_then(Value::as_str)
            .unwrap_or_default();
        let wrong = |text: String| FunctionError::argument(0, text);
        let entries = mesh_model::hcl::parse_entries("hcl", text);
        let entries = entries.map_err(|error| wrong(error.to_string()))?;
        let mut all: BTreeMap<&str, BTreeMap<String, Value>> = BTreeMap::new();
        for located in entries {
            let json = json!(located.value);
            let (noun, row) = (json["kind"].as_str().unwrap_or_default(), &json["value"]);
            let part = PARTS.iter().find(|(_, known)| known.kind() == noun);
            let Some((part, noun)) = part else {
                let line = located.line;
                return Err(wrong(format!(
                    "line {line}: there is no resource for a {noun} yet"
                )));
            };
            let (id, value) = Entry::new(&self.mesh, *noun).written(row);
            all.entry(part).or_default().insert(id, value);
        }
        let part = |(part, _): &(&'static str, Noun)| {
            (*part, Value::Map(all.remove(part).unwrap_or_default()))
        };
        Ok(Value::object(PARTS.iter().map(part).collect::<Vec<_>>()))
    }
}

impl Entry {
    /// The id and the attributes of a row that nobody has written yet.
    fn written(&self, row: &Json) -> (String, Value) {
        let (id, mut value) = self.attributes_of(row);
        if let Value::Map(all) = &mut value {
            all.remove("owner");
        }
        (id, value)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_identity_is_spelt_out() {
        let call = |parts: [&str; 3]| SpiffeIdOf.call(&parts.map(Value::from));
        assert_eq!(
            call(["x.mesh", "dc1", "team/web"]).unwrap(),
            "spiffe://x.mesh/ns/team/dc/dc1/svc/web".into()
        );
        assert_eq!(call(["x.mesh", "dc1", "*"]).unwrap_err().argument, Some(2));
        assert_eq!(call(["", "dc1", "web"]).unwrap_err().argument, Some(0));
        assert_eq!(
            call(["x.mesh", "d c", "web"]).unwrap_err().argument,
            Some(1)
        );
    }

    #[test]
    fn a_file_becomes_objects_of_the_type_that_was_promised() {
        let text = r#"
            mesh { default_intention = "deny" }
            service "team/web" {
              protocol = "http"
              subset "v1" { meta = { version = "v1" } }
            }
            route "team/web" {
              rule "all" {
                match { path_prefix = "/" }
                to "v1" { weight = 100 }
              }
            }
            intention "*" "team/web" { action = "allow" }
        "#;
        let function = Config::new();
        let value = function.call(&[text.into()]).unwrap();
        assert!(mesh_tfprotocol::encode(&value, &function.signature().returns).is_ok());
        let web = value.get("services").get("team/web");
        assert_eq!(web.get("name"), &"web".into());
        assert_eq!(web.get("namespace"), &"team".into());
        assert_eq!(
            web.get("subsets").get("v1").get("meta").get("version"),
            &"v1".into()
        );
        let rule = &value.get("routes").get("team/web").get("rules").elements()[0];
        assert_eq!(
            rule.get("match").elements()[0].get("path_prefix"),
            &"/".into()
        );
        let one = value.get("intentions").get("*/team/web");
        assert_eq!(one.get("destination"), &"team/web".into());
        assert!(!value.get("defaults").get("mesh").is_null());
    }

    #[test]
    fn a_mistake_in_a_file_is_named_by_its_place() {
        let error = Config::new().call(&["\nservice \"web\" { protocl = \"http\" }".into()]);
        let error = error.unwrap_err();
        assert_eq!(error.argument, Some(0));
        assert!(error.text.starts_with("hcl:2:"), "{}", error.text);
        assert!(
            error.text.contains("did you mean `protocol`?"),
            "{}",
            error.text
        );
    }
}
