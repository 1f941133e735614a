//! The certificates of one run.
//!
//! Terraform gives its certificate in the environment, and gets the provider's
//! on its output: nobody else has either key, so each side takes exactly that
//! certificate and nothing that it might have signed. (Terraform's says of itself
//! that it is a CA, and its key is of a curve that few libraries know: a verifier
//! of chains would refuse it.)

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::ServeError;

/// How long a handshake may take, on a socket of this machine.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How many accepted connections may wait to be served.
const WAITING: usize = 8;

/// This run's certificate, and the rules by which it is shown.
pub(super) struct Secure {
    /// In DER.
    pub(super) certificate: Vec<u8>,
    /// For the listener.
    pub(super) config: Arc<ServerConfig>,
}

/// A new certificate, shown only to whoever has the key of `client`'s (PEM).
pub(super) fn of_this_run(client: &str) -> Result<Secure, ServeError> {
    let wrong = |error: &dyn std::fmt::Display| ServeError::Tls(error.to_string());
    let client = CertificateDer::from_pem_slice(client.as_bytes())
        .map_err(|_| wrong(&"PLUGIN_CLIENT_CERT is not a certificate"))?;
    let key = rcgen::KeyPair::generate().map_err(|e| wrong(&e))?;
    let mut params =
        rcgen::CertificateParams::new(vec!["localhost".to_owned()]).map_err(|e| wrong(&e))?;
    params.extended_key_usages = vec![
        rcgen::ExtendedKeyUsagePurpose::ServerAuth,
        rcgen::ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let made = params.self_signed(&key).map_err(|e| wrong(&e))?;
    let certificate = made.der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|e| wrong(&e))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| wrong(&e))?
        .with_client_cert_verifier(Arc::new(Exactly { client, provider }))
        .with_single_cert(vec![certificate.clone()], key)
        .map_err(|e| wrong(&e))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Secure {
        certificate: certificate.to_vec(),
        config: Arc::new(config),
    })
}

/// Takes one certificate, byte for byte.
#[derive(Debug)]
struct Exactly {
    client: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Exactly {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match *shown == self.client {
            true => Ok(ClientCertVerified::assertion()),
            false => Err(Error::General(
                "it is not Terraform's certificate".to_owned(),
            )),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// A connection, encrypted or (where whoever started the provider gave no
/// certificate, as a debugger does) not.
pub(super) trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Bytes for T {}

pub(super) struct Connection(Box<dyn Bytes>);

/// The connections as they come. One that fails in its handshake is dropped and
/// said in the log.
pub(super) fn connections(
    listener: UnixListener,
    config: Option<Arc<ServerConfig>>,
) -> impl Stream<Item = std::io::Result<Connection>> {
    let acceptor = config.map(TlsAcceptor::from);
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (sender, acceptor) = (sender.clone(), acceptor.clone());
            tokio::spawn(async move {
                let connection: Box<dyn Bytes> = match acceptor {
                    None => Box::new(stream),
                    Some(acceptor) => {
                        match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                            Ok(Ok(stream)) => Box::new(stream),
                            Ok(Err(error)) => {
                                tracing::warn!("a connection was refused: {error}");
                                return;
                            }
                            Err(_) => return,
                        }
                    }
                };
                // Nobody takes it when everything is over.
                let _ = sender.send(Ok(Connection(connection))).await;
            });
        }
    });
    ReceiverStream::new(receiver)
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
