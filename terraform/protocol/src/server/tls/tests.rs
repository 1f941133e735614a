#![allow(clippy::unwrap_used)]
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_stream::StreamExt;

use super::*;

/// A certificate as go-plugin makes it: P-521, and a CA.
fn of_terraform() -> (rcgen::Certificate, rcgen::KeyPair) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    (params.self_signed(&key).unwrap(), key)
}

async fn greeted(
    secure: &Secure,
    client: Option<&(rcgen::Certificate, rcgen::KeyPair)>,
) -> std::io::Result<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let connections = connections(listener, Some(secure.config.clone()));
    tokio::spawn(async move {
        let mut connections = std::pin::pin!(connections);
        while let Some(Ok(mut connection)) = connections.next().await {
            connection.write_all(b"hello").await.unwrap();
            connection.shutdown().await.unwrap();
        }
    });
    let mut roots = RootCertStore::empty();
    roots.add(secure.certificate.clone().into()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder
                .with_client_auth_cert(vec![certificate.der().clone()], key)
                .unwrap()
        }
    };
    let stream = tokio::net::UnixStream::connect(&path).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

#[tokio::test]
async fn exactly_terraforms_certificate_is_taken() {
    let terraform = of_terraform();
    let secure = of_this_run(&terraform.0.pem()).unwrap();
    assert_eq!(greeted(&secure, Some(&terraform)).await.unwrap(), "hello");
    assert!(greeted(&secure, Some(&of_terraform())).await.is_err());
    assert!(greeted(&secure, None).await.is_err());
}

#[test]
fn what_is_no_certificate_is_said() {
    let error = of_this_run("nonsense").err().unwrap();
    assert!(error.to_string().contains("PLUGIN_CLIENT_CERT"), "{error}");
}
