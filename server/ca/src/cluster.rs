//! The certificates of servers, agents and operators, as `meshctl tls` makes them.
//!
//! They come before there is any cluster: a small CA in two files, used on the operator's own
//! machine, whose key no server ever needs. Who a certificate is for stands in its URI name
//! (`spiffe://meshctl.internal/<role>/<id>`); host names are there only so that browsers and curl
//! take a server's API.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use mesh_tls::{ClusterId, Role};
use rcgen::{ExtendedKeyUsagePurpose, Issuer, KeyPair, PublicKeyData, SanType};

use crate::error::CaError;
use crate::key::{CaKey, KeyType, SecretPem};
use crate::x509::{self, END_OF_TIME, Validity};

/// How long a cluster CA lives unless told otherwise: ten years.
pub const CA_TTL: Duration = Duration::from_secs(3653 * 24 * 3600);
/// How long a certificate of a server, an agent or an operator lives unless told otherwise: a
/// year.
pub const CERT_TTL: Duration = Duration::from_secs(365 * 24 * 3600);

const BACKDATE: u64 = 60;
/// How many names besides the identity a certificate may have.
const MAX_NAMES: usize = 64;

/// A certificate and its private key, as PEM.
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS#8. For a file of mode 0600.
    pub key: SecretPem,
    /// Valid to, in seconds since 1970.
    pub not_after: u64,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Makes a cluster CA. `name` tells it from others in lists.
///
/// # Errors
/// When the crypto library fails.
pub fn create_ca(name: &str, ttl: Duration, now: SystemTime) -> Result<Pair, CaError> {
    let key = CaKey::generate(KeyType::EcP256)?;
    let validity = Validity::new(x509::unix(now), BACKDATE, ttl.as_secs(), END_OF_TIME);
    let name = format!("meshctl cluster CA {name}");
    let cert = x509::authority(name.trim(), None, Some(0), validity)?
        .self_signed(&key)
        .map_err(|e| CaError::make("the cluster CA", e))?;
    Ok(Pair {
        certificate: cert.pem(),
        key: key.to_pem()?,
        not_after: validity.not_after,
    })
}

/// A cluster CA with its key, ready to issue.
pub struct ClusterCa {
    issuer: Issuer<'static, KeyPair>,
    not_after: u64,
}

impl ClusterCa {
    /// Takes the two PEM texts that [`create_ca`] made, or those of a CA of the operator's own.
    ///
    /// # Errors
    /// When one is not well formed, the certificate is not a CA's, or the key is not its own.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, CaError> {
        const CERT: &str = "cluster CA certificate";
        const KEY: &str = "cluster CA key";
        let der = x509::certificate_der(CERT, certificate)?;
        let seen = x509::read(CERT, &der)?;
        if !seen.is_ca {
            return Err(CaError::input(CERT, "it is not the certificate of a CA"));
        }
        // Says in words what is wrong with the text, before rcgen reads it.
        mesh_tls::pem::private_key(KEY, key.as_bytes()).map_err(|e| CaError::input(KEY, e))?;
        let key = KeyPair::from_pem(key)
            .map_err(|_| CaError::input(KEY, "it is not a key that can sign certificates"))?;
        if key.subject_public_key_info() != seen.public_key {
            return Err(CaError::input(
                KEY,
                "it is not the key of the CA's certificate",
            ));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|e| CaError::input(CERT, e))?;
        Ok(Self {
            issuer,
            not_after: seen.not_after,
        })
    }

    /// Issues a certificate with a new key. `names` are host names and IP addresses besides the
    /// identity; see [`default_names`]. It never outlives the CA.
    ///
    /// # Errors
    /// When a name is not a host name or address, there are too many, or the CA has expired.
    pub fn issue(
        &self,
        id: &ClusterId,
        names: &[String],
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Pair, CaError> {
        let now = x509::unix(now);
        if self.not_after <= now {
            let reason = "it has expired; make a new one with `meshctl tls ca create`";
            return Err(CaError::input("cluster CA certificate", reason));
        }
        let validity = Validity::new(now, BACKDATE, ttl.as_secs().max(1), self.not_after);
        let mut params = x509::leaf(&id.to_string(), &[], validity)?;
        if names.len() > MAX_NAMES {
            let reason = format!("{} names, more than the {MAX_NAMES} allowed", names.len());
            return Err(CaError::input(id.to_string(), reason));
        }
        for name in names {
            let name = host_name(name)?;
            if !params.subject_alt_names.contains(&name) {
                params.subject_alt_names.push(name);
            }
        }
        params.distinguished_name.push(
            rcgen::DnType::CommonName,
            x509::truncated(&format!("{} {}", id.role(), id.id())),
        );
        if id.role() == Role::Cli {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }
        let key = CaKey::generate(KeyType::EcP256)?;
        let cert = params
            .signed_by(&key, &self.issuer)
            .map_err(|e| CaError::make("the certificate", e))?;
        Ok(Pair {
            certificate: cert.pem(),
            key: key.to_pem()?,
            not_after: validity.not_after,
        })
    }
}

impl fmt::Debug for ClusterCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterCa")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// The host names that a certificate of this role has unless told otherwise: a server can be
/// called as `localhost` by curl and browsers on its own machine.
#[must_use]
pub fn default_names(role: Role) -> Vec<String> {
    match role {
        Role::Server => ["localhost", "127.0.0.1", "::1"]
            .map(str::to_owned)
            .to_vec(),
        Role::Agent | Role::Cli => Vec::new(),
    }
}

/// An IP address, or a DNS name (which may begin with `*.`).
fn host_name(name: &str) -> Result<SanType, CaError> {
    let error = |reason: &str| CaError::input(format!("name {name:?}"), reason);
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let plain = name.strip_prefix("*.").unwrap_or(name);
    rustls_pki_types::DnsName::try_from(plain)
        .map_err(|_| error("it is neither a host name nor an IP address"))?;
    name.to_owned()
        .try_into()
        .map(SanType::DnsName)
        .map_err(|_| error("it is not a host name"))
}
