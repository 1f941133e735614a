//! What the servers say is revoked, as TLS needs it.

use mesh_proto::fact::RevocationsFact;
use mesh_tls::{PeerLeaf, Revocations};

/// Reads the list. All of it must be understood: what is not may be about anybody.
pub(crate) fn read(list: &[u8]) -> Result<Revocations, String> {
    let fact = serde_json::from_slice::<RevocationsFact>(list);
    let fact = fact.map_err(|error| format!("revocations: {error}; upgrade this proxy"))?;
    let keys = fact
        .keys()
        .map_err(|error| format!("revocations: {error}"))?;
    let serials = fact.leaves.into_iter().map(|leaf| leaf.serial);
    Ok(Revocations::new(fact.identities, serials, keys))
}

/// What of the chain in use can be revoked.
pub(crate) fn own(chain: &[Vec<u8>]) -> Option<PeerLeaf> {
    PeerLeaf::read(&chain.first()?.as_slice().into()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_not_understood_is_an_error() {
        let revoked = read(
            br#"{"identities":["spiffe://a"],"leaves":[{"serial":"0a","key":"00ff"},{"serial":"0b"}]}"#,
        );
        let revoked = revoked.unwrap();
        assert!(revoked.has_identity("spiffe://a") && !revoked.has_identity("spiffe://b"));
        assert!(revoked.has_serial("0a") && revoked.has_serial("0b"));
        assert!(revoked.has_key(&[0, 255]) && !revoked.has_key(&[]));
        assert!(read(b"{}").unwrap().is_empty());
        for wrong in [
            &b""[..],
            br#"{"nodes":["n1"]}"#,
            br#"{"leaves":[{"serial":"0a","key":"xy"}]}"#,
            br#"{"leaves":[{"serial":"0a","since":1}]}"#,
        ] {
            assert!(read(wrong).is_err());
        }
    }
}
