//! The `vault` block of a server's `ca` block: where in Vault the CA is, and how this server
//! reaches Vault and logs in.

use std::path::PathBuf;

use super::{path, set, some, url};
use crate::fields::Fields;

/// Who signs leaves where the CA is in Vault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LeafSigning {
    /// Vault, each of them.
    Vault,
    /// The servers, with an intermediate that Vault signed for them.
    #[default]
    Cluster,
}

impl LeafSigning {
    /// Reads `vault` or `cluster`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "vault" => Some(Self::Vault),
            "cluster" => Some(Self::Cluster),
            _ => None,
        }
    }
}

/// The `vault` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultConfig {
    /// Where Vault is: `https://vault.internal:8200`. Needed.
    pub address: String,
    /// A namespace of Vault Enterprise or OpenBao. Default: none.
    pub namespace: Option<String>,
    /// CA certificates for `https`, PEM; no others count then. Default: the system's.
    pub ca_file: Option<PathBuf>,
    /// The name that Vault's certificate must have, where it is reached by another. Default: the
    /// address'.
    pub tls_server_name: Option<String>,
    /// A client certificate, PEM, with `key_file`. Default: none.
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM.
    pub key_file: Option<PathBuf>,
    /// The PKI engine with the root. Default `pki_root`.
    pub root_pki_path: String,
    /// The PKI engine with our intermediate, where Vault signs leaves. Default `pki_mesh`.
    pub intermediate_pki_path: String,
    /// Who signs leaves. Default `cluster`.
    pub leaf_signing: LeafSigning,
    /// How this server logs in. Default: by the token in `VAULT_TOKEN`.
    pub auth: VaultAuth,
}

/// An `auth` block: how a server logs in to Vault. It names files, and has no secret in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VaultAuth {
    /// `auth "token"`.
    Token {
        /// A file with the token. Default: none, `VAULT_TOKEN` in the environment.
        token_file: Option<PathBuf>,
    },
    /// `auth "approle"`.
    AppRole {
        /// Where it is mounted. Default `approle`.
        mount: String,
        /// The role's id.
        role_id: String,
        /// A file with the secret id.
        secret_id_file: PathBuf,
    },
    /// `auth "jwt"`.
    Jwt {
        /// Where it is mounted. Default `jwt`.
        mount: String,
        /// The role. Default: the mount's.
        role: Option<String>,
        /// A file with the JWT.
        jwt_file: PathBuf,
    },
}

impl Default for VaultConfig {
    fn default() -> Self {
        Self {
            address: String::new(),
            namespace: None,
            ca_file: None,
            tls_server_name: None,
            cert_file: None,
            key_file: None,
            root_pki_path: "pki_root".to_owned(),
            intermediate_pki_path: "pki_mesh".to_owned(),
            leaf_signing: LeafSigning::default(),
            auth: VaultAuth::Token { token_file: None },
        }
    }
}

impl VaultConfig {
    pub(super) fn read(&mut self, mut fields: Fields<'_>) {
        set(&mut self.address, fields.parsed("address", url));
        some(&mut self.namespace, fields.parsed("namespace", mount));
        some(&mut self.ca_file, path(&mut fields, "ca_file"));
        some(
            &mut self.tls_server_name,
            fields.parsed("tls_server_name", host),
        );
        some(&mut self.cert_file, path(&mut fields, "cert_file"));
        some(&mut self.key_file, path(&mut fields, "key_file"));
        set(
            &mut self.root_pki_path,
            fields.parsed("root_pki_path", mount),
        );
        set(
            &mut self.intermediate_pki_path,
            fields.parsed("intermediate_pki_path", mount),
        );
        set(
            &mut self.leaf_signing,
            fields.word("leaf_signing", &["vault", "cluster"], LeafSigning::parse),
        );
        let blocks = fields.labelled("auth");
        if let Some((_, second)) = blocks.get(1) {
            let message = "is there twice; a server logs in one way";
            fields.wrong(second.at(), "auth", message);
        }
        if let Some((label, inner)) = blocks.into_iter().next() {
            let (name, at) = (label.text.as_str(), label.at);
            match auth(name, inner) {
                Ok(auth) => set(&mut self.auth, auth),
                Err(()) => fields.bad_word(at, "auth", name, &["token", "approle", "jwt"]),
            }
        }
        fields.finish();
    }

    /// What is wrong with the whole.
    pub(super) fn check(&self) -> Option<String> {
        if self.address.is_empty() {
            return Some("address is missing; write address = \"https://…:8200\"".to_owned());
        }
        if self.tls_server_name.is_some() && !self.address.starts_with("https:") {
            return Some("tls_server_name is for an address with https".to_owned());
        }
        if self.cert_file.is_some() != self.key_file.is_some() {
            return Some("cert_file and key_file go together".to_owned());
        }
        if self.root_pki_path == self.intermediate_pki_path {
            return Some(
                "root_pki_path and intermediate_pki_path are one; the intermediate needs a mount \
                 of its own"
                    .to_owned(),
            );
        }
        None
    }
}

/// What an `auth` block says; an error for one of an unknown name.
fn auth(name: &str, mut fields: Fields<'_>) -> Result<Option<VaultAuth>, ()> {
    let auth = match name {
        "token" => Some(VaultAuth::Token {
            token_file: path(&mut fields, "token_file"),
        }),
        "approle" => {
            let mount = fields.parsed("mount", mount);
            let role_id = fields.parsed("role_id", word);
            let role_id = fields.required("role_id", role_id, "role_id = \"…\"");
            let file = path(&mut fields, "secret_id_file");
            let example = "secret_id_file = \"/etc/meshctl/vault-secret-id\"";
            let file = fields.required("secret_id_file", file, example);
            role_id
                .zip(file)
                .map(|(role_id, secret_id_file)| VaultAuth::AppRole {
                    mount: mount.unwrap_or_else(|| "approle".to_owned()),
                    role_id,
                    secret_id_file,
                })
        }
        "jwt" => {
            let mount = fields.parsed("mount", mount);
            let role = fields.parsed("role", word);
            let file = path(&mut fields, "jwt_file");
            let example = "jwt_file = \"/secrets/nomad_vault_default.jwt\"";
            let file = fields.required("jwt_file", file, example);
            file.map(|jwt_file| VaultAuth::Jwt {
                mount: mount.unwrap_or_else(|| "jwt".to_owned()),
                role,
                jwt_file,
            })
        }
        _ => return Err(()),
    };
    fields.finish();
    Ok(auth)
}

/// Where something is mounted in Vault: a path without slashes at its ends.
fn mount(text: &str) -> Result<String, &'static str> {
    match is_vault_mount(text) {
        true => Ok(text.to_owned()),
        false => Err("must be a path such as `pki_mesh`, without a slash at its ends"),
    }
}

/// A name that stands in a certificate.
fn host(text: &str) -> Result<String, &'static str> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let part = |part: &str| (1..=63).contains(&part.len()) && part.chars().all(fine);
    let name = text.len() <= 253 && text.split('.').all(part);
    match name && text.parse::<std::net::IpAddr>().is_err() {
        true => Ok(text.to_owned()),
        false => Err("must be a DNS name, such as `vault.internal`"),
    }
}

/// Whether something can be mounted in Vault by this path: without slashes at its ends.
pub fn is_vault_mount(text: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let part =
        |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(fine);
    text.len() <= 128 && text.split('/').all(part)
}

/// One word that goes into a request.
fn word(text: &str) -> Result<String, &'static str> {
    match (1..=256).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err("must be one word"),
    }
}
