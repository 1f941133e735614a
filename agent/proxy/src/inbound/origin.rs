//! TLS to a service outside the mesh.

use std::path::Path;
use std::sync::Arc;

use mesh_proto::config::OriginTls;
use mesh_tls::pem;
use rustls::{ClientConfig, RootCertStore};

/// The configuration that a form is, with what its files hold now.
///
/// # Errors
/// Which file cannot be used, and why.
pub(super) fn read(form: &OriginTls, alpn: &[&[u8]]) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let certificates = pem::read_certificates(Path::new(&form.ca_file));
    for one in certificates.map_err(|error| format!("ca_file: {error}"))? {
        let added = roots.add(one);
        added.map_err(|error| format!("ca_file {}: {error}", form.ca_file))?;
    }
    let builder = ClientConfig::builder_with_provider(mesh_tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(Arc::new(roots));
    let mut config = match form.cert_file.is_empty() {
        true => builder.with_no_client_auth(),
        false => {
            let chain = pem::read_certificates(Path::new(&form.cert_file));
            let chain = chain.map_err(|error| format!("cert_file: {error}"))?;
            let key = pem::read_private_key(Path::new(&form.key_file));
            let key = key.map_err(|error| format!("key_file: {error}"))?;
            builder
                .with_client_auth_cert(chain, key.copy())
                .map_err(|error| format!("cert_file {}: {error}", form.cert_file))?
        }
    };
    config.alpn_protocols = alpn.iter().map(|token| token.to_vec()).collect();
    Ok(config)
}
