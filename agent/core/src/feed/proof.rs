//! Who is at the other end of a proxy's stream: proved, never only claimed.
//!
//! The hello must sign the agent's nonce with the proxy's key; and that key must be bound to the
//! proxy's id by one of three things: a ticket (the first time), the agent's memory, or, where
//! the agent remembers no key of that proxy, a leaf for the key that is still valid and names the
//! service whose sidecar it is. A leaf alone names the service and not the proxy, so it never
//! overrides a remembered key.
//!
//! A key whose leaf was revoked proves nothing, by whichever of the three; who signs with it is told so,
//! since only a new start gives a sidecar another.
//!
//! Whoever proves nothing learns nothing: a refusal reads the same whatever was wrong, and the log
//! says which. Only one thing is told apart: what cannot be judged yet, for which to come again.

use std::time::SystemTime;

use mesh_model::Registration;
use mesh_proto::bootstrap::check_proxy_id;
use mesh_proto::fact::RootsFact;
use mesh_proto::proxies::v1::Hello;
use mesh_tls::{Leaf, PeerLeaf, Revocations, Trust, csr};

use super::keys::Keys;
use super::tickets::{Tickets, same};
use crate::catalog::View;
use crate::facts::Facts;

/// The longest chain and the longest certificate that are looked at.
const MAX_CHAIN: usize = 8;
const MAX_CERTIFICATE: usize = 16 * 1024;
/// The longest public key that is looked at, in bytes.
const MAX_KEY: usize = 2048;

/// What a hello is checked against.
#[derive(Clone, Copy)]
pub(crate) struct Verifier<'a> {
    pub(crate) tickets: &'a Tickets,
    pub(crate) keys: &'a Keys,
    pub(crate) facts: &'a Facts,
    /// None: it is not known here.
    pub(crate) revoked: Option<&'a Revocations>,
    pub(crate) view: &'a View,
    pub(crate) now: SystemTime,
}

/// By what a proxy proved itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    Ticket,
    RememberedKey,
    Leaf,
}

/// Why a hello is refused: for the log, not for the proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("its id is not one: {0}")]
    Id(&'static str),
    #[error("it is not registered on this node")]
    NotRegistered,
    #[error("its signature over the nonce is not by the key that it named")]
    Signature,
    #[error("its ticket is unknown, used or expired, and its key is not the remembered one")]
    Ticket,
    #[error("its ticket came before, and what it proves is being remembered")]
    InUse,
    #[error("its key is not the remembered one")]
    Key,
    #[error("it brought neither a ticket nor a leaf, and no key of it is remembered")]
    Nothing,
    #[error("its leaf: {0}")]
    Leaf(String),
    #[error("its leaf cannot be judged: the mesh's roots are not known here yet")]
    NoRoots,
    #[error("the leaf of its key was revoked")]
    Revoked,
    #[error("its service is revoked")]
    ServiceRevoked,
    #[error("its key could not be remembered: {0}")]
    Disk(String),
}

impl Refused {
    /// Whether the same proof may be good later.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::NotRegistered
                | Self::InUse
                | Self::NoRoots
                | Self::ServiceRevoked
                | Self::Disk(_)
        )
    }
}

impl Verifier<'_> {
    /// Checks a hello, and remembers the key of one that is good. Blocks on the disk.
    pub(crate) fn verify(&self, nonce: &[u8], hello: &Hello) -> Result<Proof, Refused> {
        check_proxy_id(&hello.proxy).map_err(Refused::Id)?;
        if hello.public_key.len() > MAX_KEY {
            return Err(Refused::Signature);
        }
        csr::verify_nonce(&hello.public_key, &hello.proxy, nonce, &hello.signature)
            .map_err(|_| Refused::Signature)?;
        // Before a ticket is used up: a proxy that is too early may come again with it.
        let Some((entry, _)) = self.view.sidecar(&hello.proxy) else {
            return Err(Refused::NotRegistered);
        };
        let key = mesh_tls::fingerprint(&hello.public_key);
        let (proxy, owner) = (hello.proxy.as_str(), &entry.owner);
        // Whatever it brings besides: somebody else may have this key. What is not understood here
        // is no word of any key.
        let known = self.revoked.filter(|it| **it != Revocations::everybody());
        if known.is_some_and(|it| it.has_key(&key)) || self.keys.is_barred(proxy, &hello.public_key)
        {
            return Err(Refused::Revoked);
        }
        let replace = || {
            let replaced = self.keys.replace(proxy, owner, &hello.public_key);
            replaced.map_err(|e| Refused::Disk(e.to_string()))
        };
        if !hello.ticket.is_empty()
            && let Some(ticket) = self.tickets.redeem(proxy, owner, &hello.ticket)
        {
            // The proxy has nothing else to come again with.
            return match replace() {
                Ok(()) => {
                    self.tickets.settle(&ticket);
                    Ok(Proof::Ticket)
                }
                Err(error) => {
                    self.tickets.give_back(proxy, ticket);
                    Err(error)
                }
            };
        }
        // Its first hello took longer than its connection lasted, as in a herd on a slow disk, and is
        // not through yet. Asked before its key is: that one is remembered first.
        if self.tickets.is_in_use(proxy, &hello.ticket) {
            return Err(Refused::InUse);
        }
        // One whose first hello was taken, but who did not hear so, comes with the used ticket.
        if self.keys.is_known(proxy, owner, &hello.public_key) {
            return Ok(Proof::RememberedKey);
        }
        let refused = |without: Refused| match hello.ticket.is_empty() {
            true => Err(without),
            false => Err(Refused::Ticket),
        };
        if self.keys.has(proxy) {
            return refused(Refused::Key);
        }
        // A proxy goes on bringing the ticket that it began with, long after an agent that lost its
        // data forgot it: its leaf still proves it.
        if hello.leaf.is_empty() {
            return refused(Refused::Nothing);
        }
        self.leaf(&entry.registration, hello)?;
        replace()?;
        Ok(Proof::Leaf)
    }

    /// Whether the hello's leaf is good for this registration's service and the hello's key.
    fn leaf(&self, registration: &Registration, hello: &Hello) -> Result<(), Refused> {
        let refused = |why: &str| Refused::Leaf(why.to_owned());
        if hello.leaf.len() > MAX_CHAIN || hello.leaf.iter().any(|it| it.len() > MAX_CERTIFICATE) {
            return Err(refused("its chain is too long"));
        }
        let known = self.facts.with(|facts| {
            let expected = facts.mesh()?.identity(&registration.key());
            Some((expected, facts.roots()?.clone()))
        });
        let (expected, roots) = known.ok_or(Refused::NoRoots)?;
        let chain: Vec<_> = hello.leaf.iter().map(|der| der.clone().into()).collect();
        let identity = trust(&roots)
            .map_err(Refused::Leaf)?
            .verify(&chain, self.now)
            .map_err(|e| Refused::Leaf(e.to_string()))?;
        let revoked = self.revoked.ok_or(Refused::NoRoots)?;
        if revoked.has_identity(identity.as_str()) {
            return Err(Refused::ServiceRevoked);
        }
        if identity.as_str() != expected {
            return Err(Refused::Leaf(format!(
                "it is for {identity}, not {expected}"
            )));
        }
        let leaf = Leaf::parse("leaf", chain).map_err(|e| Refused::Leaf(e.to_string()))?;
        let shown = hello.leaf.first().and_then(|der| {
            let leaf = PeerLeaf::read(&der.as_slice().into());
            leaf.ok()
        });
        if shown.is_none_or(|leaf| revoked.covers(&leaf).is_some()) {
            return Err(Refused::Revoked);
        }
        match same(&leaf.public_key, &hello.public_key) {
            true => Ok(()),
            false => Err(refused("it is for another key")),
        }
    }
}

fn trust(roots: &RootsFact) -> Result<Trust, String> {
    let domain = roots
        .trust_domain
        .parse()
        .map_err(|e: mesh_tls::IdError| e.to_string())?;
    Trust::from_pem(domain, "roots", roots.roots.join("\n").as_bytes()).map_err(|e| e.to_string())
}
