//! Whether what Vault signed is what was asked for. Vault is trusted with the key, and its roles are
//! an operator's to change: what comes back is believed no more than what a peer would show.

use std::fmt::Display;
use std::time::{Duration, SystemTime};

use mesh_tls::Trust;
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

use crate::authority::{IssuedLeaf, LeafRequest};
use crate::x509;

/// How far apart Vault's clock and ours may be.
pub(crate) const CLOCKS: Duration = Duration::from_secs(60);

/// Judges the leaves below one intermediate.
pub(crate) struct Judge {
    pub(crate) trust: Trust,
    /// What follows a leaf.
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

impl Judge {
    /// The leaf of a PEM text, where it is for the key and the names that were asked for, lives no
    /// longer, and a peer would take it as a client's and as a server's. Else what is wrong with it.
    pub(crate) fn judge(
        &self,
        request: &LeafRequest,
        pem: &str,
        now: SystemTime,
    ) -> Result<IssuedLeaf, String> {
        let text = |error: &dyn Display| error.to_string();
        let der = x509::certificate_der("leaf", pem).map_err(|e| text(&e))?;
        let seen = x509::read("leaf", &der).map_err(|e| text(&e))?;
        if seen.public_key != request.public_key() {
            return Err("it certifies another key".to_owned());
        }
        let longest = x509::unix(now + request.ttl() + CLOCKS);
        if seen.is_ca || seen.not_after > longest {
            return Err("it is a CA's, or lives longer than was asked for".to_owned());
        }
        names(&der, request)?;
        let mut chain = vec![der];
        chain.extend(self.chain.iter().cloned());
        let id = self.trust.verify(&chain, now).map_err(|e| text(&e))?;
        if id != *request.id() {
            return Err(format!("it is of {id}"));
        }
        Ok(IssuedLeaf {
            chain,
            serial: seen.serial,
            not_before: seen.not_before,
            not_after: seen.not_after,
        })
    }
}

/// That it has no name beside the URI name and the DNS names that were asked for, and is for both
/// sides of TLS: a peer asks only for the side that it sees.
fn names(der: &CertificateDer<'_>, request: &LeafRequest) -> Result<(), String> {
    let malformed = || "it is malformed".to_owned();
    let (_, leaf) = x509_parser::parse_x509_certificate(der).map_err(|_| malformed())?;
    let names = leaf.subject_alternative_name().map_err(|_| malformed())?;
    let names = names.map(|names| names.value.general_names.as_slice());
    let mut dns = Vec::new();
    for name in names.unwrap_or_default() {
        match name {
            GeneralName::URI(_) => {}
            GeneralName::DNSName(name) => dns.push(*name),
            _ => return Err("it has a name of a kind that was not asked for".to_owned()),
        }
    }
    let mut asked: Vec<&str> = request.dns_names().iter().map(String::as_str).collect();
    for names in [&mut asked, &mut dns] {
        names.sort_unstable();
        names.dedup();
    }
    if asked != dns {
        return Err(format!(
            "its DNS names are [{}], and not [{}]",
            dns.join(", "),
            asked.join(", ")
        ));
    }
    let usage = leaf.extended_key_usage().map_err(|_| malformed())?;
    match usage.map(|usage| usage.value) {
        Some(usage) if !(usage.client_auth && usage.server_auth) => {
            Err("its extended key usage is not for both sides of TLS".to_owned())
        }
        _ => Ok(()),
    }
}
