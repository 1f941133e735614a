//! rustls's hooks: each reads what is live at the moment of the handshake, so that a new leaf or
//! new roots need no new configuration, and no connection made after a swap uses the old.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::verify_tls13_signature;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, PeerIncompatible, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::credential::Credential;
use crate::handshake::Handshakes;
use crate::provider;
use crate::refusal;
use crate::revoked::Revocations;
use crate::trust::{Expect, Trust, Usage};

/// What can be swapped while connections live.
pub(crate) struct Live {
    /// None on a side that only verifies, such as `meshctl` with no certificate of its own.
    pub(crate) credential: ArcSwapOption<Credential>,
    pub(crate) trust: ArcSwap<Trust>,
    /// Whom it does not believe all the same.
    pub(crate) revoked: ArcSwap<Revocations>,
}

impl Live {
    pub(crate) fn new(credential: Option<Credential>, trust: Trust) -> Arc<Self> {
        Arc::new(Self {
            credential: ArcSwapOption::new(credential.map(Arc::new)),
            trust: ArcSwap::from_pointee(trust),
            revoked: ArcSwap::default(),
        })
    }

    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        let credential = self.credential.load();
        credential.as_ref().map(|c| c.certified().clone())
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("credential", &self.credential.load())
            .field("trust", &self.trust.load())
            .finish()
    }
}

/// A client's configuration that will speak only with what `expect` says.
///
/// It is made in a few microseconds: it holds pointers only.
pub(crate) fn client_config(
    live: &Arc<Live>,
    handshakes: &Handshakes,
    expect: Expect,
    alpn: &[&[u8]],
) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(handshakes.provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3 suites")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerVerifier {
            live: live.clone(),
            expect,
            client_certificate: ClientCertificate::Required,
        }))
        .with_client_cert_resolver(Arc::new(OwnCertificate(live.clone())));
    // A resumed session would keep the identity of an older certificate (see the crate's head).
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = owned(alpn);
    config
}

/// A server's configuration that takes only what `expect` says.
pub(crate) fn server_config(
    live: &Arc<Live>,
    handshakes: &Handshakes,
    expect: Expect,
    client_certificate: ClientCertificate,
    alpn: &[&[u8]],
) -> ServerConfig {
    let config = ServerConfig::builder_with_provider(handshakes.provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_client_cert_verifier(Arc::new(PeerVerifier {
            live: live.clone(),
            expect,
            client_certificate,
        }))
        .with_cert_resolver(Arc::new(OwnCertificate(live.clone())));
    without_resumption(config, alpn)
}

/// A server's configuration that takes anybody.
pub(crate) fn outside_config(live: &Arc<Live>, alpn: &[&[u8]]) -> ServerConfig {
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(OwnCertificate(live.clone())));
    without_resumption(config, alpn)
}

fn without_resumption(mut config: ServerConfig, alpn: &[&[u8]]) -> ServerConfig {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = owned(alpn);
    config
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|token| token.to_vec()).collect()
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientCertificate {
    /// No certificate, no connection.
    Required,
    /// It may come without; one that it shows must be good.
    Optional,
}

#[derive(Debug)]
struct PeerVerifier {
    live: Arc<Live>,
    expect: Expect,
    client_certificate: ClientCertificate,
}

impl PeerVerifier {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: Usage,
    ) -> Result<(), rustls::Error> {
        let trust = self.live.trust.load();
        let checked = trust.check(leaf, intermediates, now, usage, &self.expect);
        let believed = checked.and_then(|_| self.live.revoked.load().check(leaf));
        believed.map_err(|error| {
            refusal::keep(&error, leaf);
            error.into()
        })
    }

    fn signature(
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let provider = provider();
        verify_tls13_signature(
            message,
            cert,
            dss,
            &provider.signature_verification_algorithms,
        )
    }

    fn schemes() -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

const NO_TLS12: rustls::Error =
    rustls::Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled);

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        // SNI is routing; the identity is the URI name.
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, intermediates, now, Usage::Server)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(NO_TLS12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.client_certificate == ClientCertificate::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // An empty hint means "send what you have". Our roots change, and a hint could not.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity, intermediates, now, Usage::Client)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(NO_TLS12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

/// Shows the live certificate, whatever name was asked for.
#[derive(Debug)]
struct OwnCertificate(Arc<Live>);

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.certified()
    }
}

impl ResolvesClientCert for OwnCertificate {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.0.certified()
    }

    fn has_certs(&self) -> bool {
        self.0.credential.load().is_some()
    }
}
