//! By what each kind of row is found.

use mesh_model::{Key, check_name};
use mesh_tfprotocol::{Attribute, Diagnostic, Path, Planned, Value};

use crate::names::Names;
use crate::shape;

/// A kind of row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noun {
    Intention,
    Service,
    Route,
    /// The defaults of the mesh.
    Defaults,
}

impl Noun {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 4] = [Self::Intention, Self::Service, Self::Route, Self::Defaults];

    /// The resource's name.
    pub(crate) fn resource(self) -> &'static str {
        match self {
            Self::Intention => "mesh_intention",
            Self::Service => "mesh_service",
            Self::Route => "mesh_route",
            Self::Defaults => "mesh_defaults",
        }
    }

    /// Its name in the API's description.
    pub(super) fn object(self) -> &'static str {
        match self {
            Self::Intention => "Intention",
            Self::Service => "Service",
            Self::Route => "Route",
            Self::Defaults => "Mesh",
        }
    }

    /// Its name in errors and in Rust's model.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Intention => "intention",
            Self::Service => "service",
            Self::Route => "route",
            Self::Defaults => "mesh",
        }
    }

    pub(super) fn description(self) -> &'static str {
        match self {
            Self::Intention => {
                "Who may call whom: allow, deny, or ordered permissions for requests."
            }
            Self::Service => {
                "How a service is called: protocol, load balancing, timeouts, outlier detection and \
                 subsets."
            }
            Self::Route => {
                "Where requests to a service go: ordered rules with weights, timeouts and retries. \
                 The service must speak HTTP; refer to its resource, so that it is written first."
            }
            Self::Defaults => {
                "The defaults of the whole mesh. There is one of it; without this resource the \
                 servers' own defaults hold."
            }
        }
    }

    pub(super) fn has_namespace(self) -> bool {
        matches!(self, Self::Service | Self::Route)
    }

    pub(super) fn identity(self) -> &'static [&'static str] {
        match self {
            Self::Intention => &["source", "destination"],
            Self::Service | Self::Route => &["name", "namespace"],
            Self::Defaults => &[],
        }
    }

    /// The attributes of the key.
    pub(super) fn keys(self, names: &Names) -> Vec<Attribute> {
        let name = |value: &Value| match value.as_str().map(check_name) {
            Some(Err(error)) => Err(format!("is wrong: {error}")),
            _ => Ok(()),
        };
        match self {
            Self::Intention => [
                ("source", "Who calls"),
                ("destination", "Who is called"),
            ]
            .map(|(side, what)| {
                shape::key(side, names, false).required().replaces().describe(format!(
                    "{what}: `name`, `namespace/name`, `*` for every service of the namespace, or `*/*` for all."
                ))
            })
            .into(),
            Self::Service | Self::Route => vec![
                Attribute::string("name")
                    .required()
                    .replaces()
                    .check(name)
                    .describe("The service's name."),
                Attribute::string("namespace")
                    .optional()
                    .computed()
                    .stable()
                    .replaces()
                    .check(name)
                    .describe("Its namespace; that of the provider when it is not written."),
            ],
            Self::Defaults => Vec::new(),
        }
    }

    /// The key, where it is known.
    pub(super) fn key(self, value: &Value, names: &Names) -> Vec<String> {
        let key = |text: &Value| {
            let text = text.as_str().unwrap_or_default();
            names
                .key(text)
                .map_or(text.to_owned(), |key| key.to_string())
        };
        match self {
            Self::Intention => vec![key(value.get("source")), key(value.get("destination"))],
            Self::Service | Self::Route => {
                let namespace = match value.get("namespace").as_str() {
                    Some(namespace) => namespace.to_owned(),
                    None => names.namespace(),
                };
                let name = value.get("name").as_str().unwrap_or_default();
                vec![Key::new(namespace, name).to_string()]
            }
            Self::Defaults => Vec::new(),
        }
    }

    /// As errors name it: `intention web => db`.
    pub(super) fn title(self, value: &Value, names: &Names) -> String {
        match self.key(value, names).as_slice() {
            [] => self.kind().to_owned(),
            [one] => format!("{} {one}", self.kind()),
            [source, destination, ..] => format!("{} {source} => {destination}", self.kind()),
        }
    }

    /// By what it is imported: `web`, `frontend/user-service`.
    pub(super) fn id(self, value: &Value, names: &Names) -> String {
        match self {
            Self::Defaults => "mesh".to_owned(),
            _ => self.key(value, names).join("/"),
        }
    }

    /// Where it is in the API.
    pub(super) fn path(self, value: &Value, names: &Names) -> Vec<String> {
        let folder = match self {
            Self::Intention => "intentions",
            Self::Service => "services",
            Self::Route => "routes",
            Self::Defaults => "mesh",
        };
        let mut path = vec!["v1".to_owned(), folder.to_owned()];
        path.extend(self.key(value, names));
        path
    }

    /// Plans it in that namespace.
    pub(super) fn move_to(self, namespace: Value, prior: &Value, planned: &mut Planned) {
        let at = Path::of("namespace");
        if !prior.is_null() && *prior.get("namespace") != namespace {
            planned.replaces.push(at);
        }
        planned.state.set("namespace", namespace);
    }

    /// Sets the key that an import's id names.
    pub(super) fn import(
        self,
        id: &str,
        names: &Names,
        state: &mut Value,
    ) -> Result<(), Diagnostic> {
        let wrong = |why: String| {
            let example = match self {
                Self::Intention => {
                    "`frontend/user-service` (source, destination), or with namespaces \
                     `team/frontend/default/user-service`"
                }
                Self::Service | Self::Route => "`user-service`, or `team/user-service`",
                Self::Defaults => "`mesh`",
            };
            Diagnostic::error(
                "That id names nothing",
                format!("`{id}` {why}; write {example}."),
            )
        };
        let key = |text: &str| {
            names
                .key(text)
                .map_err(|error| wrong(format!("is wrong: {error}")))
        };
        match self {
            Self::Defaults if id == "mesh" => {}
            Self::Defaults => return Err(wrong("is not the mesh".to_owned())),
            Self::Service | Self::Route => {
                let key = key(id)?;
                key.check()
                    .map_err(|error| wrong(format!("is wrong: {error}")))?;
                state.set("name", key.name);
                state.set("namespace", key.namespace);
            }
            Self::Intention => {
                let parts: Vec<&str> = id.split('/').collect();
                let (source, destination) = match parts.as_slice() {
                    [source, destination] => (key(source)?, key(destination)?),
                    [a, source, b, destination] => (
                        key(&format!("{a}/{source}"))?,
                        key(&format!("{b}/{destination}"))?,
                    ),
                    _ => return Err(wrong(format!("has {} parts", parts.len()))),
                };
                state.set("source", names.written(&source));
                state.set("destination", names.written(&destination));
            }
        }
        Ok(())
    }
}
