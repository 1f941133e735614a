//! A small CA, for the cluster's certificates and the mesh's alike.

use mesh_tls::{ClusterTls, csr};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SubjectPublicKeyInfo,
};
use std::time::{Duration, SystemTime};

pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

pub fn spiffe(service: &str) -> String {
    format!("spiffe://test.mesh/ns/default/dc/dc1/svc/{service}")
}

impl Ca {
    pub fn new(name: &str) -> Self {
        let mut params = params(&[]);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.extended_key_usages.clear();
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    pub fn cluster_tls(&self, role: &str, id: &str) -> ClusterTls {
        let key = KeyPair::generate().unwrap();
        let uri = format!("spiffe://meshctl.internal/{role}/{id}");
        let cert = params(&[&uri]).signed_by(&key, &self.issuer).unwrap();
        let (ca, cert, key) = (self.pem.as_bytes(), cert.pem(), key.serialize_pem());
        ClusterTls::from_pem(ca, cert.as_bytes(), key.as_bytes()).unwrap()
    }

    /// A leaf for the key of a request. DER.
    pub fn sign(&self, request: &[u8], uri: &str) -> Vec<u8> {
        self.leaf(&csr::public_key(request).unwrap(), uri)
    }

    /// A leaf for a key, an hour long.
    pub fn leaf(&self, public_key: &[u8], uri: &str) -> Vec<u8> {
        let key = SubjectPublicKeyInfo::from_der(public_key).unwrap();
        let cert = params(&[uri]).signed_by(&key, &self.issuer).unwrap();
        cert.der().to_vec()
    }
}

fn params(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
    params.not_after = (SystemTime::now() + Duration::from_secs(3600)).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().unwrap()));
    params.subject_alt_names = names.collect();
    params
}
