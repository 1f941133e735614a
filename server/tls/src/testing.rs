//! A small CA and a handshake in memory, for this crate's tests. The real CA is `mesh-ca`.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SubjectPublicKeyInfo,
};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_pki_types::CertificateDer;

use crate::{Credential, LeafKey, Trust};

pub(crate) const DOMAIN: &str = "test.mesh";

/// A CA; a root, or signed by another.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) cert: CertificateDer<'static>,
    pub(crate) pem: String,
    above: Vec<CertificateDer<'static>>,
}

impl Ca {
    pub(crate) fn root(name: &str) -> Self {
        let (params, key) = (ca_params(name), KeyPair::generate().unwrap());
        let cert = params.self_signed(&key).unwrap();
        Self {
            pem: cert.pem(),
            cert: cert.der().clone(),
            issuer: Issuer::new(params, key),
            above: Vec::new(),
        }
    }

    pub(crate) fn intermediate(&self, name: &str) -> Self {
        let (params, key) = (ca_params(name), KeyPair::generate().unwrap());
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Self {
            pem: cert.pem(),
            cert: cert.der().clone(),
            issuer: Issuer::new(params, key),
            above: vec![cert.der().clone()],
        }
    }

    /// What a leaf's key would be, if it signed: the leaf is of `ca`, changed as wanted.
    pub(crate) fn under_leaf(ca: &Self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = leaf_params(&[&service("signer")], change);
        let cert = params.signed_by(&key, &ca.issuer).unwrap();
        Self {
            pem: cert.pem(),
            cert: cert.der().clone(),
            issuer: Issuer::new(params, key),
            above: vec![cert.der().clone()],
        }
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::new(
            DOMAIN.parse().unwrap(),
            "test roots",
            std::slice::from_ref(&self.cert),
        )
        .unwrap()
    }

    /// A leaf with these names, changed as wanted.
    pub(crate) fn issue(
        &self,
        uris: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Credential {
        let key = LeafKey::generate().unwrap();
        Credential::from_leaf_key(self.chain(&key, uris, change), &key).unwrap()
    }

    pub(crate) fn leaf(&self, uri: &str) -> Credential {
        self.issue(&[uri], |_| {})
    }

    pub(crate) fn chain(
        &self,
        key: &LeafKey,
        uris: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Vec<CertificateDer<'static>> {
        let public = SubjectPublicKeyInfo::from_der(&key.public_key()).unwrap();
        let cert = leaf_params(uris, change)
            .signed_by(&public, &self.issuer)
            .unwrap();
        let mut chain = vec![cert.der().clone()];
        chain.extend(self.above.clone());
        chain
    }

    /// PEM of a certificate and of its key.
    pub(crate) fn pem_pair(&self, uri: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let cert = leaf_params(&[uri], |_| {}).signed_by(&key, &self.issuer);
        (cert.unwrap().pem(), key.serialize_pem())
    }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = leaf_params(&[], |_| {});
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages.clear();
    params
}

fn leaf_params(uris: &[&str], change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
    params.not_after = (SystemTime::now() + Duration::from_secs(3600)).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.subject_alt_names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().unwrap()))
        .collect();
    change(&mut params);
    params
}

/// `spiffe://test.mesh/ns/default/dc/dc1/svc/<service>`.
pub(crate) fn service(name: &str) -> String {
    format!("spiffe://{DOMAIN}/ns/default/dc/dc1/svc/{name}")
}

/// Which side refused the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// A whole handshake without a socket, with tickets delivered, or the first refusal.
pub(crate) fn handshake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), (Side, rustls::Error)> {
    let name = "user-service.default.dc1.internal.test.mesh";
    let mut client = ClientConnection::new(client, name.try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server
                .process_new_packets()
                .map_err(|e| (Side::Server, e))?;
        }
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client
                .process_new_packets()
                .map_err(|e| (Side::Client, e))?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}
