//! Certificates and verification: who is at the other end of a connection.
//!
//! Everything in the mesh rests on one question, so it is answered in one small crate that the
//! sidecar can carry: which identity has the peer proved? The answer is the certificate's one URI
//! name, and nothing else. No host name is ever compared, no address, no common name.
//!
//! Two kinds of identity exist, and neither passes for the other:
//!
//! - a *service*, [`SpiffeId`]: `spiffe://<trust domain>/ns/<namespace>/dc/<dc>/svc/<service>`,
//!   certified by the mesh's CA, used between sidecars ([`MeshTls`]);
//! - a *part of the cluster*, [`ClusterId`]: `spiffe://meshctl.internal/server/<id>`,
//!   `/agent/<node id>` or `/cli/<name>`, certified by the cluster CA that `meshctl tls` makes,
//!   used between servers, agents and the command line ([`ClusterTls`]).
//!
//! Rules that hold everywhere here: TLS 1.3 only; the crypto provider is always named
//! ([`provider`]), never a process default; no session is ever resumed, since a resumed session
//! keeps the identity of an older certificate; certificates and roots can be swapped while
//! connections live, and the next handshake uses the new ones. Trust is decided by webpki;
//! x509-parser only reads for display, and can narrow what webpki accepted, never widen it.

#![forbid(unsafe_code)]

mod cluster;
mod credential;
pub mod csr;
mod error;
mod handshake;
mod id;
mod mesh;
pub mod pem;
mod refusal;
mod revoked;
mod trust;
mod verifier;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

pub use cluster::{ClusterFiles, ClusterTls, HANDSHAKE_TIMEOUT};
pub use credential::{Credential, Leaf};
pub use csr::{GivenKey, LeafKey};
pub use error::{TlsError, explain};
pub use handshake::Handshakes;
pub use id::{ClusterId, IdError, Role, SpiffeId, TrustDomain};
pub use mesh::{MeshTls, peer_cluster_id, peer_identity, peer_leaf};
pub use refusal::explain_here;
pub use revoked::{PeerLeaf, Revocations, RevokedBy};
pub use trust::{Expect, Trust, VerifyError, fingerprint, fuzz_certificate};

use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::kx_group;

/// The one crypto provider of the mesh: aws-lc-rs. X25519MLKEM768 is the first of the key exchanges,
/// so recorded traffic stays secret from a later quantum computer; rustls itself has it last, unless
/// a feature of it is on. AES-128-GCM is the first of the suites: it is a quarter cheaper a byte than
/// AES-256-GCM, and no attack, also by a quantum computer, is within reach of either. Servers take
/// what the client has first.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| {
            let mut provider = rustls::crypto::aws_lc_rs::default_provider();
            let first = CipherSuite::TLS13_AES_128_GCM_SHA256;
            provider
                .cipher_suites
                .sort_by_key(|suite| suite.suite() != first);
            provider.kx_groups = vec![
                kx_group::X25519MLKEM768,
                kx_group::X25519,
                kx_group::SECP256R1,
                kx_group::SECP384R1,
            ];
            Arc::new(provider)
        })
        .clone()
}
