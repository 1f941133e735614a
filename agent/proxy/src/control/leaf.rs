//! What this proxy proves itself with, and whom it believes: its leaf, and the roots.
//!
//! Each is in use as soon as it has come and is seen to be good; what is not leaves the last one in use.
//! Which root the leaf hangs on is said to the agent, which waits for it when another one signs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_proto::proxies::v1 as wire;
use mesh_proto::proxies::v1::ack::What;
use mesh_tls::{Credential, Trust, TrustDomain};
use rustls_pki_types::CertificateDer;
use tokio::time::Instant;

use super::{Control, Held};
use crate::feed::Wish;
use crate::revoked;

/// Within how long at least a leaf is replaced when another root signs.
const REISSUE: Duration = Duration::from_secs(1);

impl Control {
    pub(super) async fn roots(&self, roots: wire::Roots, held: &mut Held) {
        let serial = roots.serial;
        let (each, active) = (one_by_one(&roots), roots.active.clone());
        let within = Duration::from_secs(roots.reissue_seconds.into()).max(REISSUE);
        let error = match trust(roots) {
            Ok(trust) => {
                self.status.have_roots();
                match &held.tls {
                    Some(tls) => tls.swap_roots(trust),
                    None => held.trust = Some(trust),
                }
                (held.roots, held.active) = (each, active);
                self.reissue(within, held);
                String::new()
            }
            Err(error) => {
                tracing::error!(
                    proxy = self.proxy,
                    error,
                    "roots are not taken; the last ones stay"
                );
                error
            }
        };
        self.ack(What::Roots(serial), error, &[]);
        self.start(held).await;
    }

    /// Asks for a leaf with another key where the one in use is revoked: whoever
    /// else has the key gets nothing by it.
    pub(super) fn own_leaf(&self, held: &mut Held) {
        let (Some(revoked), Some(leaf)) = (&held.revoked, revoked::own(&self.chain.load())) else {
            return;
        };
        if revoked.has_identity(&leaf.identity) {
            tracing::error!(
                proxy = self.proxy,
                identity = leaf.identity,
                "the identity of this proxy is revoked: no other believes it, and it gets no leaf"
            );
            return;
        }
        if revoked.covers(&leaf).is_none() || self.keys.is_renewed() {
            return;
        }
        tracing::warn!(
            proxy = self.proxy,
            serial = leaf.serial,
            "this proxy's leaf is revoked: it asks for another one, with another key"
        );
        if let Err(error) = self.keys.renew() {
            tracing::error!(proxy = self.proxy, %error, "there is no other key");
            return;
        }
        held.renewal.by(Instant::now());
    }

    pub(super) async fn leaf(&self, leaf: wire::Leaf, held: &mut Held) {
        let taken = match leaf.error.is_empty() {
            true => self.credential(leaf.chain, held),
            false => Err(leaf.error),
        };
        let credential = match taken {
            Ok(credential) => credential,
            Err(error) => {
                // When to ask again was said when it was asked for.
                tracing::warn!(proxy = self.proxy, error, "no leaf; asking again");
                return;
            }
        };
        self.keys.settle();
        let now = SystemTime::now();
        let facts = credential.leaf().clone();
        held.not_after = Some(facts.not_after);
        let life = facts.not_after.duration_since(now).ok();
        held.end = life.and_then(|life| Instant::now().checked_add(life));
        let chain = facts.chain.iter().map(|one| one.to_vec()).collect();
        self.chain.store(Arc::new(chain));
        match &held.tls {
            None => held.leaf = Some(credential),
            Some(tls) => {
                if let Err(error) = tls.swap_leaf(credential) {
                    tracing::error!(proxy = self.proxy, %error, "leaf is not taken");
                    return;
                }
            }
        }
        (held.renewal).taken(&facts, Instant::now(), now, rand::random());
        let ends = facts
            .not_after
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        tracing::info!(
            proxy = self.proxy,
            serial = facts.serial,
            ends = ends.as_secs(),
            "leaf in use"
        );
        self.status.have_leaf();
        self.ack_leaf(facts.not_after, held);
        self.own_leaf(held);
        self.start(held).await;
    }

    /// Says which leaf is in use: until when, and of which root.
    pub(super) fn ack_leaf(&self, ends: SystemTime, held: &Held) {
        let ends = ends
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let ends = i64::try_from(ends.as_secs()).unwrap_or(i64::MAX);
        self.wish(Wish::Ack(wire::Ack {
            what: Some(What::LeafNotAfter(ends)),
            leaf_root: self.leaf_root(held),
            ..wire::Ack::default()
        }));
    }

    /// The id of the root that the leaf in use hangs on; empty: it is not known.
    ///
    /// A chain may go on beyond its root, to an older one that certifies it: the root is the one
    /// that is reached first.
    fn leaf_root(&self, held: &Held) -> Vec<u8> {
        let chain = self.chain.load();
        let chain: Vec<CertificateDer<'_>> =
            chain.iter().map(|der| der.as_slice().into()).collect();
        let now = SystemTime::now();
        // The same key may be in two roots; then it is the one that signs.
        let (active, others): (Vec<_>, Vec<_>) =
            held.roots.iter().partition(|(id, _)| *id == held.active);
        for length in 1..=chain.len() {
            let part = chain.get(..length).unwrap_or_default();
            let mut roots = active.iter().chain(&others);
            if let Some((id, _)) = roots.find(|(_, trust)| trust.verify(part, now).is_ok()) {
                return id.clone();
            }
        }
        Vec::new()
    }

    /// Another root signs now: the leaf is replaced early, at a moment of its own, since others are
    /// too. What was said of the leaf is said again, where it was not known then.
    fn reissue(&self, within: Duration, held: &mut Held) {
        let Some(ends) = held.not_after else {
            return;
        };
        self.ack_leaf(ends, held);
        let of = self.leaf_root(held);
        if held.active.is_empty() || of == held.active {
            return;
        }
        let at = Instant::now() + within.mul_f64(rand::random());
        held.renewal.by(at);
        tracing::info!(
            proxy = self.proxy,
            "another root signs now: the leaf is replaced"
        );
    }

    /// The chain for our key, after it was seen to lead to a root.
    fn credential(&self, chain: Vec<Vec<u8>>, held: &Held) -> Result<Credential, String> {
        let chain: Vec<CertificateDer<'static>> = chain.into_iter().map(Into::into).collect();
        let in_use = held.tls.as_ref().map(|tls| tls.trust());
        if let Some(trust) = in_use.as_deref().or(held.trust.as_ref()) {
            trust
                .verify(&chain, SystemTime::now())
                .map_err(|error| format!("the leaf that came: {error}"))?;
        }
        Credential::from_leaf_key(chain, &self.keys.wanted()).map_err(|error| error.to_string())
    }
}

/// Each root by itself, with its id. One that cannot be a root is left out: [`trust`] says so.
fn one_by_one(roots: &wire::Roots) -> Vec<(Vec<u8>, Trust)> {
    let Ok(domain) = roots.trust_domain.parse::<TrustDomain>() else {
        return Vec::new();
    };
    let one = |der: &Vec<u8>| {
        let root = CertificateDer::from(der.as_slice());
        let trust = Trust::new(domain.clone(), "root", &[root]).ok()?;
        Some((mesh_tls::fingerprint(der), trust))
    };
    roots.roots.iter().filter_map(one).collect()
}

pub(crate) fn trust(roots: wire::Roots) -> Result<Trust, String> {
    let domain: TrustDomain = roots
        .trust_domain
        .parse()
        .map_err(|error| format!("roots: {error}"))?;
    let roots: Vec<CertificateDer<'static>> = roots.roots.into_iter().map(Into::into).collect();
    Trust::new(domain, "roots", &roots).map_err(|error| error.to_string())
}
