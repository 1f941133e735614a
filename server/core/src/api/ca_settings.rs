//! The CA's settings as the API has them, with names and units as in the configuration.

use bytes::Bytes;
use mesh_ca::{AwsPlace, CaConfig, Import, KeyType, LeafSigning, SealBy, VaultPlace};
use mesh_model::Duration;
use mesh_model::config::{check_leaf_ttl, is_pca_arn};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::{Zeroize as _, Zeroizing};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    provider: Provider,
    leaf_ttl: Option<Duration>,
    intermediate_ttl: Option<Duration>,
    root_ttl: Option<Duration>,
    #[serde(default)]
    key_type: KeyType,
    vault: Option<Place>,
    aws_pca: Option<AwsPlace>,
}

#[derive(Default, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Provider {
    #[default]
    BuiltIn,
    Vault,
    AwsPca,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    root_pki_path: String,
    intermediate_pki_path: String,
    #[serde(default)]
    leaf_signing: LeafSigning,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    certificates: String,
    key: String,
    root_key: Option<String>,
}

/// Reads a CA that is to be taken over, and wipes the body. What is wrong with JSON is told by its
/// place only: the words could be of a key.
pub(super) fn import(body: Bytes) -> Result<Import, String> {
    let given = serde_json::from_slice::<Given>(&body).map_err(|error| {
        let at = (error.line(), error.column());
        format!(
            "line {}, column {}: the body must be {{\"certificates\", \"key\", \"root_key\"}}, \
             PEM texts, of which the last may be left out",
            at.0, at.1
        )
    });
    if let Ok(mut body) = body.try_into_mut() {
        body.as_mut().zeroize();
    }
    let given = given?;
    let (key, root_key) = (
        Zeroizing::new(given.key),
        given.root_key.map(Zeroizing::new),
    );
    let root_key = root_key.as_ref().map(|key| key.as_bytes());
    Import::from_pem(given.certificates.as_bytes(), key.as_bytes(), root_key)
        .map_err(|error| error.to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct To {
    to: SealBy,
}

/// Reads what is to seal.
pub(super) fn sealing(body: &[u8]) -> Result<SealBy, String> {
    let to: To = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Ok(to.to)
}

/// Reads settings. `short`: leaves may live for seconds.
pub(super) fn read(bytes: &[u8], short: bool) -> Result<CaConfig, String> {
    let settings: Settings = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let usual = CaConfig::default();
    let seconds =
        |given: Option<Duration>, usual: u64| given.map_or(usual, |it| it.std().as_secs());
    let config = CaConfig {
        leaf_ttl_seconds: seconds(settings.leaf_ttl, usual.leaf_ttl_seconds),
        intermediate_ttl_seconds: seconds(
            settings.intermediate_ttl,
            usual.intermediate_ttl_seconds,
        ),
        root_ttl_seconds: seconds(settings.root_ttl, usual.root_ttl_seconds),
        key_type: settings.key_type,
        vault: match (&settings.provider, settings.vault) {
            (Provider::BuiltIn | Provider::AwsPca, _) => None,
            (Provider::Vault, Some(place)) => Some(VaultPlace {
                root_pki_path: mount("root_pki_path", place.root_pki_path)?,
                intermediate_pki_path: mount("intermediate_pki_path", place.intermediate_pki_path)?,
                leaf_signing: place.leaf_signing,
            }),
            (Provider::Vault, None) => {
                return Err("vault: is missing; it says where in Vault the CA is".to_owned());
            }
        },
        aws_pca: match (&settings.provider, settings.aws_pca) {
            (Provider::BuiltIn | Provider::Vault, _) => None,
            (Provider::AwsPca, Some(place)) if is_pca_arn(&place.existing_arn) => Some(place),
            (Provider::AwsPca, Some(_)) => {
                return Err("aws_pca: existing_arn: is not the ARN of a CA".to_owned());
            }
            (Provider::AwsPca, None) => {
                return Err("aws_pca: is missing; it says which CA in AWS it is".to_owned());
            }
        },
    };
    check_leaf_ttl(Duration::from_secs(config.leaf_ttl_seconds), short)?;
    let order = [
        config.leaf_ttl_seconds,
        config.intermediate_ttl_seconds,
        config.root_ttl_seconds.saturating_add(1),
    ];
    match order.is_sorted_by(|a, b| a < b) {
        true => Ok(config),
        false => Err(
            "leaf_ttl must be less than intermediate_ttl, and that no more than root_ttl"
                .to_owned(),
        ),
    }
}

fn mount(key: &str, text: String) -> Result<String, String> {
    match mesh_model::config::is_vault_mount(&text) {
        true => Ok(text),
        false => Err(format!("{key}: must be a path such as `pki_mesh`")),
    }
}

/// Writes them.
pub(super) fn json(config: &CaConfig) -> Value {
    let duration = |seconds: u64| json!(Duration::from_secs(seconds));
    json!({
        "provider": config.provider(),
        "leaf_ttl": duration(config.leaf_ttl_seconds),
        "intermediate_ttl": duration(config.intermediate_ttl_seconds),
        "root_ttl": duration(config.root_ttl_seconds),
        "key_type": config.key_type,
        "vault": config.vault,
        "aws_pca": config.aws_pca,
    })
}
