//! The certificate authority of the mesh, behind one trait.
//!
//! The control plane asks an [`Authority`] for two things: the roots that the mesh trusts, and a
//! leaf for a public key. Who answers is the operator's choice: the built-in CA of this crate
//! ([`create`], [`BuiltIn`]), HashiCorp Vault ([`Vault`]) or AWS Private CA ([`AwsPca`]). So the trait
//! supposes the worst of them: an answer may be slow, refused, or asked for too often.
//!
//! The built-in CA lives in the servers' replicated state, as a [`CaState`], so that any server
//! can sign. Its private keys stand there, in the log and in snapshots only as [`Sealed`]
//! envelopes, which a [`SealingKey`] opens: a file that the operator gives each server and that
//! is never replicated. What a key is used for and which one it is are part of what is sealed, so
//! envelopes cannot be swapped.
//!
//! [`cluster`] makes the certificates that servers and agents need before any of this exists.
//!
//! There are no X.509 name constraints on the intermediate: rcgen has none for URIs, and webpki
//! refuses every chain that has one (it "fails closed"). In their place every verifier of the mesh
//! checks the trust domain itself (`mesh_tls::Trust`), and [`BuiltIn`] signs for no other.

#![forbid(unsafe_code)]

mod authority;
mod aws;
mod builtin;
pub mod cluster;
mod cross;
mod error;
pub mod fuzz;
mod import;
mod key;
mod keyring;
pub mod rotation;
mod seal;
mod state;
mod vault;
mod x509;

#[cfg(test)]
mod tests;

pub use authority::{
    Authority, AuthorityError, AuthorityStatus, Clock, DEFAULT_BACKDATE, IssuedLeaf, LeafRequest,
};
pub use aws::{AwsFailures, AwsHealth, AwsOptions, AwsPca, AwsState, create_in_aws, renew_in_aws};
pub use builtin::{BuiltIn, Renewal, create, renew_intermediate, renewal_due};
pub use cross::{Cross, cross_obstacle, cross_sign};
pub use error::CaError;
pub use import::{Import, import};
pub use key::{KeyType, SecretPem};
pub use keyring::{Keyring, SealBy, SealedWith, SealingOptions, TransitPlace, Wrapped, reseal};
pub use rotation::Rotation;
pub use seal::{SealError, Sealed, SealingKey};
pub use state::{
    AWS_PCA, AwsPlace, BUILT_IN, CaConfig, CaState, IntermediateEntry, LeafSigning, RootEntry,
    VAULT, VaultPlace, VaultRole,
};
pub use vault::{
    Vault, VaultAuth, VaultFailures, VaultHealth, VaultLeaves, VaultOptions, VaultState,
    create_in_vault, renew_in_vault, transit_policy, vault_policy,
};
