//! The data plane's side: what one proxy shows and whom it believes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::{ClientConfig, CommonState, ServerConfig};
use rustls_pki_types::CertificateDer;

use crate::credential::{Credential, Leaf};
use crate::error::TlsError;
use crate::handshake::Handshakes;
use crate::id::{ClusterId, SpiffeId};
use crate::revoked::Revocations;
use crate::trust::{Expect, Trust, only_uri};
use crate::verifier::{self, ClientCertificate, Live};

/// How many client configurations are kept. Beyond it the whole cache is dropped: one is made
/// again in microseconds, and a proxy that has so many destinations is not seen.
const MAX_CLIENT_CONFIGS: usize = 1024;

/// The TLS of one identity in the mesh: its leaf, its roots, and configurations that follow them.
///
/// Every configuration made here stays right while [`MeshTls::handshakes`] is the same: a leaf or
/// roots that are swapped take effect on the next handshake of each.
#[derive(Debug)]
pub struct MeshTls {
    live: Arc<Live>,
    handshakes: ArcSwap<Handshakes>,
    clients: Mutex<HashMap<ClientKey, Made>>,
}

/// A configuration, and of which policy it was made.
type Made = (Arc<Handshakes>, Arc<ClientConfig>);

#[derive(Debug, PartialEq, Eq, Hash)]
struct ClientKey {
    expected: SpiffeId,
    alpn: Vec<Vec<u8>>,
}

impl MeshTls {
    /// A leaf and the roots of its mesh.
    ///
    /// # Errors
    /// When the leaf does not name a service.
    pub fn new(leaf: Credential, trust: Trust) -> Result<Self, TlsError> {
        service_of(&leaf)?;
        Ok(Self {
            live: Live::new(Some(leaf), trust),
            handshakes: ArcSwap::default(),
            clients: Mutex::default(),
        })
    }

    /// Shows another leaf from the next handshake on. Live connections go on with theirs.
    ///
    /// # Errors
    /// When it does not name a service; the one before stays.
    pub fn swap_leaf(&self, leaf: Credential) -> Result<(), TlsError> {
        service_of(&leaf)?;
        self.live.credential.store(Some(Arc::new(leaf)));
        Ok(())
    }

    /// Believes other roots (and their trust domain) from the next handshake on.
    pub fn swap_roots(&self, trust: Trust) {
        self.live.trust.store(Arc::new(trust));
    }

    /// Makes handshakes with another policy from the next on. Live connections go on as they are.
    pub fn swap_handshakes(&self, handshakes: Handshakes) {
        if **self.handshakes.load() != handshakes {
            self.handshakes.store(Arc::new(handshakes));
        }
    }

    /// With what handshakes are made: another pointer after each change.
    #[must_use]
    pub fn handshakes(&self) -> Arc<Handshakes> {
        self.handshakes.load_full()
    }

    /// Does not believe these from the next handshake on. Live connections are the caller's to cut.
    pub fn swap_revoked(&self, revoked: Revocations) {
        self.live.revoked.store(Arc::new(revoked));
    }

    /// Whom it does not believe.
    #[must_use]
    pub fn revoked(&self) -> Arc<Revocations> {
        self.live.revoked.load_full()
    }

    /// What the leaf in use says.
    #[must_use]
    pub fn leaf(&self) -> Option<Arc<Leaf>> {
        let credential = self.live.credential.load();
        credential.as_ref().map(|c| c.leaf().clone())
    }

    /// The roots in use.
    #[must_use]
    pub fn trust(&self) -> Arc<Trust> {
        self.live.trust.load_full()
    }

    /// For the inbound side: takes any service of the trust domain; intentions come after. It is
    /// good until [`MeshTls::handshakes`] is another.
    #[must_use]
    pub fn server_config(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        Arc::new(verifier::server_config(
            &self.live,
            &self.handshakes.load(),
            Expect::AnyService,
            ClientCertificate::Required,
            alpn,
        ))
    }

    /// For calls from outside the mesh, at an ingress gateway: takes anybody, and asks for no
    /// certificate. The leaf is good there by its DNS names. The policy of handshakes in the mesh
    /// does not hold there: with what callers from outside can speak is not the mesh's to say.
    #[must_use]
    pub fn outside_config(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        Arc::new(verifier::outside_config(&self.live, alpn))
    }

    /// For the outbound side: speaks with exactly this service. Cached by identity and ALPN.
    #[must_use]
    pub fn client_config(&self, expected: &SpiffeId, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let key = ClientKey {
            expected: expected.clone(),
            alpn: alpn.iter().map(|token| token.to_vec()).collect(),
        };
        // Nothing is left half done under this lock, so a poisoned one is as good.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let handshakes = self.handshakes.load_full();
        if let Some((of, config)) = clients.get(&key)
            && Arc::ptr_eq(of, &handshakes)
        {
            return config.clone();
        }
        if clients.len() >= MAX_CLIENT_CONFIGS {
            clients.clear();
        }
        let expect = Expect::Service(expected.clone());
        let config = verifier::client_config(&self.live, &handshakes, expect, alpn);
        let config = Arc::new(config);
        clients.insert(key, (handshakes, config.clone()));
        config
    }

    #[cfg(test)]
    pub(crate) fn cached_clients(&self) -> usize {
        self.clients.lock().map_or(0, |clients| clients.len())
    }
}

fn service_of(credential: &Credential) -> Result<SpiffeId, TlsError> {
    let leaf = credential.leaf();
    let Some(uri) = &leaf.uri else {
        return Err(TlsError::Unusable {
            what: format!("leaf {}", leaf.serial),
            reason: "it does not have exactly one URI name".into(),
        });
    };
    uri.parse().map_err(|source| TlsError::Identity {
        what: format!("leaf {}", leaf.serial),
        source,
    })
}

/// The service at the other end of a connection whose handshake is done here.
#[must_use]
pub fn peer_identity(connection: &CommonState) -> Option<SpiffeId> {
    peer_uri(connection)?.parse().ok()
}

/// The part of the cluster at the other end of a connection whose handshake is done here.
#[must_use]
pub fn peer_cluster_id(connection: &CommonState) -> Option<ClusterId> {
    peer_uri(connection)?.parse().ok()
}

/// The certificate that the other end showed: for its end, at which the connection must close.
#[must_use]
pub fn peer_leaf(connection: &CommonState) -> Option<Leaf> {
    let chain: Vec<CertificateDer<'static>> = connection.peer_certificates()?.to_vec();
    Leaf::parse("peer certificate", chain).ok()
}

fn peer_uri(connection: &CommonState) -> Option<String> {
    only_uri(connection.peer_certificates()?.first()?).ok()
}
