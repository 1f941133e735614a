//! What our token must be allowed in Vault, and nothing more.

use crate::keyring::TransitPlace;
use crate::state::{LeafSigning, VaultPlace};

/// The rules for sealing with a key of the transit engine, to be added to a policy.
#[must_use]
pub fn transit_policy(place: &TransitPlace) -> String {
    let (mount, key) = (&place.mount, &place.key);
    let rules = [
        Rule::new(
            "the key that seals the CA's keys is wrapped, and opened",
            format!("{mount}/encrypt/{key}"),
            "update",
        ),
        Rule::new("", format!("{mount}/decrypt/{key}"), "update"),
    ];
    rules.iter().map(Rule::hcl).collect()
}

/// The policy for a CA at this place, as HCL for `vault policy write`. With `managed` the mounts
/// and the root may be made; without, they must be there, with a root.
#[must_use]
pub fn vault_policy(place: &VaultPlace, managed: bool) -> String {
    let root = &place.root_pki_path;
    let intermediate = &place.intermediate_pki_path;
    let in_vault = place.leaf_signing == LeafSigning::Vault;
    let mut rules = vec![
        Rule::new(
            "the token looks at itself, and lives on",
            "auth/token/lookup-self",
            "read",
        ),
        Rule::new("", "auth/token/renew-self", "update"),
        Rule::new(
            "the root is read, and signs our intermediate",
            format!("{root}/issuer/+/json"),
            "read",
        ),
        Rule::new("", format!("{root}/issuer/+/sign-intermediate"), "update"),
        Rule::new(
            "a new root is certified by the old one; it goes without, too",
            format!("{root}/issuer/+/sign-self-issued"),
            "update",
        ),
    ];
    if managed {
        rules.push(Rule::new(
            "the mount of the root is made, and the root",
            format!("sys/mounts/{root}"),
            "update",
        ));
        rules.push(Rule::new(
            "",
            format!("{root}/root/generate/internal"),
            "update",
        ));
    }
    if in_vault {
        if managed {
            rules.push(Rule::new(
                "the mount of the intermediate is made",
                format!("sys/mounts/{intermediate}"),
                "update",
            ));
        }
        rules.push(Rule::new(
            "the intermediate is made, and renewed",
            format!("{intermediate}/issuer/default/json"),
            "read",
        ));
        for end in [
            "issuers/generate/intermediate/internal",
            "intermediate/set-signed",
        ] {
            rules.push(Rule::new("", format!("{intermediate}/{end}"), "update"));
        }
        rules.push(Rule::new(
            "leaves are signed, by a role for each intermediate",
            format!("{intermediate}/roles/meshctl-*"),
            "create, update",
        ));
        rules.push(Rule::new(
            "",
            format!("{intermediate}/sign/meshctl-*"),
            "update",
        ));
    }
    let mut text = String::from("# What meshctl's servers do in Vault.\n");
    for rule in rules {
        text.push_str(&rule.hcl());
    }
    text
}

/// A path and what may be done there; one without words belongs to the one before it.
struct Rule {
    words: &'static str,
    path: String,
    capabilities: &'static str,
}

impl Rule {
    fn new(words: &'static str, path: impl Into<String>, capabilities: &'static str) -> Self {
        Self {
            words,
            path: path.into(),
            capabilities,
        }
    }

    fn hcl(&self) -> String {
        let words = match self.words {
            "" => String::new(),
            words => format!("\n# {words}\n"),
        };
        let quoted: Vec<String> = self
            .capabilities
            .split(", ")
            .map(|one| format!("\"{one}\""))
            .collect();
        format!(
            "{words}path \"{}\" {{\n  capabilities = [{}]\n}}\n",
            self.path,
            quoted.join(", ")
        )
    }
}
