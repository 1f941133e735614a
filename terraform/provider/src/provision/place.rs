//! How the provider reaches Nomad, and proves to the mesh's servers who asks: its block first, then
//! the variables that `nomad` and `meshctl` read, and those of its own.

use std::sync::{Arc, PoisonError, RwLock};

use mesh_nomad::Access;
use mesh_provision::{Cluster, MeshAccess};
use mesh_tfprotocol::{Attribute, Diagnostic, Path, Value};
use mesh_tls::ClusterTls;

use crate::given::{described, environment, given, pair, pem};

const DEFAULT_ADDRESS: &str = "http://127.0.0.1:4646";

/// The attributes of the provider's `nomad`, each with the variable that is read where it is not
/// written.
const NOMAD: [(&str, &str, &str); 7] = [
    (
        "address",
        "NOMAD_ADDR",
        "The address of Nomad's API; `http://127.0.0.1:4646` when it is not written.",
    ),
    (
        "token",
        "NOMAD_TOKEN",
        "A token of Nomad's, where it has ACLs; the policy below is enough.",
    ),
    (
        "namespace",
        "NOMAD_NAMESPACE",
        "The namespace of the jobs; `default` when it is not written.",
    ),
    ("region", "NOMAD_REGION", "Nomad's region."),
    (
        "ca_file",
        "NOMAD_CACERT",
        "The CA of Nomad's API: a file, or the PEM text itself.",
    ),
    (
        "client_cert",
        "NOMAD_CLIENT_CERT",
        "A client's certificate: a file, or the PEM text itself.",
    ),
    (
        "client_key",
        "NOMAD_CLIENT_KEY",
        "Its key: a file, or the PEM text itself.",
    ),
];

/// What the resources that provision share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place(Arc<RwLock<Value>>);

impl Place {
    /// The attribute of the provider's block.
    pub(crate) fn attribute() -> Attribute {
        let one = |(name, variable, text): &(&str, &str, &str)| {
            let attribute = Attribute::string(*name).optional();
            let attribute = attribute.describe(described(text, variable));
            match *name {
                "token" | "client_key" => attribute.sensitive(),
                _ => attribute,
            }
        };
        Attribute::single("nomad", NOMAD.iter().map(one).collect())
            .optional()
            .describe("Nomad, for the resources that provision servers and agents.")
    }

    /// Takes the provider's block, of which some may not be known yet.
    pub(crate) fn configure(&self, config: &Value) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config.clone();
    }

    /// Nomad.
    pub(crate) fn nomad(&self) -> Result<Cluster, Diagnostic> {
        let config = self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let block = config.get("nomad");
        let text = |name: &str| {
            let variable = NOMAD.iter().find(|(own, ..)| *own == name);
            let variable = variable.map_or("", |(_, variable, _)| *variable);
            given(block, name, variable, environment)
        };
        let wrong = |name: &str, reason: &str| {
            let place = Path::of("nomad").attribute(name);
            let summary = format!("The provider's `nomad.{name}` is wrong");
            Diagnostic::error(summary, format!("`{name}` {reason}.")).at(place)
        };
        if NOMAD.iter().any(|(name, ..)| block.get(name).is_unknown()) {
            let detail = "It depends on what this apply makes. Make that first, with `-target`.";
            return Err(Diagnostic::error("Where Nomad is is not known yet", detail));
        }
        let pem = |name: &str, text: String| pem(&text).map_err(|reason| wrong(name, &reason));
        let ca = text("ca_file")
            .map(|text| pem("ca_file", text))
            .transpose()?;
        let identity = pair(text("client_cert"), text("client_key"))
            .map_err(|(name, reason)| wrong(name, reason))?
            .map(|(certificate, key)| {
                let both = [pem("client_cert", certificate)?, pem("client_key", key)?];
                Ok::<_, Diagnostic>(both.join(&b'\n'))
            })
            .transpose()?;
        let access = Access {
            address: text("address").unwrap_or_else(|| DEFAULT_ADDRESS.to_owned()),
            ca,
            identity,
            token: text("token"),
        };
        let namespace = text("namespace").unwrap_or_default();
        Cluster::new(&access, &namespace, text("region"))
            .map_err(|error| wrong("address", &error.to_string()))
    }

    /// The operator's certificate of the provider's block, if it has one.
    pub(crate) fn mesh(&self) -> Result<Option<MeshAccess>, Diagnostic> {
        let config = self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let read = |name: &str, variable: &str| -> Result<Option<Vec<u8>>, Diagnostic> {
            let read = given(&config, name, variable, environment).map(|text| pem(&text));
            read.transpose().map_err(|reason| {
                let summary = format!("The provider's `{name}` is wrong");
                Diagnostic::error(summary, format!("`{name}` {reason}.")).at(Path::of(name))
            })
        };
        let ca = read("ca_file", "MESHCTL_CACERT")?;
        let certificate = read("client_cert", "MESHCTL_CLIENT_CERT")?;
        let key = read("client_key", "MESHCTL_CLIENT_KEY")?;
        let (Some(ca), Some(certificate), Some(key)) = (ca, certificate, key) else {
            return Ok(None);
        };
        let tls = ClusterTls::from_pem(&ca, &certificate, &key).map_err(|error| {
            let summary = "The provider's certificate cannot be used";
            Diagnostic::error(summary, format!("{error}.")).at(Path::of("client_cert"))
        })?;
        Ok(Some(MeshAccess::new(Arc::new(tls))))
    }
}
