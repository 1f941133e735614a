//! The control plane's side: servers, agents and `meshctl` to each other.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::credential::{Credential, Leaf};
use crate::error::{TlsError, explain};
use crate::handshake::Handshakes;
use crate::id::{ClusterId, Role, TrustDomain};
use crate::pem;
use crate::trust::{Expect, Trust, Usage, unix};
use crate::verifier::{self, ClientCertificate, Live};

/// How long [`ClusterTls::connect`] may take, TCP and TLS each.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The three files of `tls { … }`, as `meshctl tls` makes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterFiles {
    /// The cluster CA's certificate, or several while one replaces another.
    pub ca_file: PathBuf,
    /// This part's certificate.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
}

/// The TLS of one part of the cluster.
#[derive(Debug)]
pub struct ClusterTls {
    live: Arc<Live>,
    files: Option<ClusterFiles>,
}

impl ClusterTls {
    /// From files; [`reload`](Self::reload) reads them again.
    ///
    /// # Errors
    /// When a file cannot be read or is not what it should be, the key is not the certificate's,
    /// the certificate names no part of the cluster, is out of its time, or is not signed by the
    /// CA: each said with the file.
    pub fn from_files(files: ClusterFiles) -> Result<Self, TlsError> {
        let (credential, trust) = load(&files)?;
        Ok(Self {
            live: Live::new(Some(credential), trust),
            files: Some(files),
        })
    }

    /// From PEM texts in memory, as `meshctl dev` makes them.
    ///
    /// # Errors
    /// As [`from_files`](Self::from_files).
    pub fn from_pem(ca: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let trust = Trust::from_pem(TrustDomain::cluster(), "cluster CA", ca)?;
        let credential = Credential::from_pem("cluster certificate", certificate, key)?;
        check_own("cluster certificate", &credential, &trust)?;
        Ok(Self {
            live: Live::new(Some(credential), trust),
            files: None,
        })
    }

    /// With a CA only: for a client that proves itself by a token. `what` names the text in
    /// errors.
    ///
    /// # Errors
    /// When the text has no usable certificate.
    pub fn trusting(what: &str, ca: &[u8]) -> Result<Self, TlsError> {
        let trust = Trust::from_pem(TrustDomain::cluster(), what, ca)?;
        Ok(Self {
            live: Live::new(None, trust),
            files: None,
        })
    }

    /// Reads the files again. All or nothing: when something is wrong, what was in use stays.
    /// Says whether the certificate or the CAs changed. Without files nothing happens.
    ///
    /// # Errors
    /// As [`from_files`](Self::from_files).
    pub fn reload(&self) -> Result<bool, TlsError> {
        let Some(files) = &self.files else {
            return Ok(false);
        };
        let (credential, trust) = load(files)?;
        let before = self.leaf();
        let changed =
            before.as_deref() != Some(credential.leaf()) || **self.live.trust.load() != trust;
        // Trust first: a new certificate of a new CA is never shown by one who would refuse it.
        self.live.trust.store(Arc::new(trust));
        self.live.credential.store(Some(Arc::new(credential)));
        Ok(changed)
    }

    /// The certificate in use; none with [`trusting`](Self::trusting).
    #[must_use]
    pub fn leaf(&self) -> Option<Arc<Leaf>> {
        let credential = self.live.credential.load();
        credential.as_ref().map(|c| c.leaf().clone())
    }

    /// Who this part is.
    #[must_use]
    pub fn id(&self) -> Option<ClusterId> {
        self.leaf()?.cluster_id()
    }

    /// For a listener that takes parts of the cluster with one of these roles. With
    /// `client_cert_required` false a client may come without a certificate (a browser, or
    /// `meshctl` with a token); one that it shows must still be good.
    ///
    /// # Errors
    /// When this side has no certificate.
    pub fn server_config(
        &self,
        accepts: &[Role],
        client_cert_required: bool,
        alpn: &[&[u8]],
    ) -> Result<Arc<ServerConfig>, TlsError> {
        if self.live.credential.load().is_none() {
            return Err(TlsError::NoCertificate);
        }
        let client_certificate = if client_cert_required {
            ClientCertificate::Required
        } else {
            ClientCertificate::Optional
        };
        Ok(Arc::new(verifier::server_config(
            &self.live,
            &Handshakes::default(),
            Expect::Roles(accepts.to_vec()),
            client_certificate,
            alpn,
        )))
    }

    /// For a connection to a part with this role.
    #[must_use]
    pub fn client_config(&self, expects: Role, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        self.client_config_for(Expect::Roles(vec![expects]), alpn)
    }

    /// For a connection to what `expect` says, such as one certain server.
    #[must_use]
    pub fn client_config_for(&self, expect: Expect, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        Arc::new(verifier::client_config(
            &self.live,
            &Handshakes::default(),
            expect,
            alpn,
        ))
    }

    /// For an HTTPS client of a server's API (`reqwest`'s `tls_backend_preconfigured`): trusts the
    /// cluster CA and a server by its identity, so any address of it will do.
    #[must_use]
    pub fn https_config(&self) -> ClientConfig {
        let expect = Expect::Roles(vec![Role::Server]);
        verifier::client_config(
            &self.live,
            &Handshakes::default(),
            expect,
            &[b"h2", b"http/1.1"],
        )
    }

    /// Connects to `host:port` and makes sure that it is what `expect` says.
    ///
    /// # Errors
    /// When the address cannot be reached within [`HANDSHAKE_TIMEOUT`], or either side refuses
    /// the other; the reason is in words.
    pub async fn connect(
        &self,
        address: &str,
        expect: Expect,
        alpn: &[&[u8]],
    ) -> Result<TlsStream<TcpStream>, TlsError> {
        let error = |reason: String| TlsError::Connect {
            address: address.to_owned(),
            reason,
        };
        let late = || {
            error(format!(
                "no answer within {} s",
                HANDSHAKE_TIMEOUT.as_secs()
            ))
        };
        let tcp = tokio::time::timeout(HANDSHAKE_TIMEOUT, TcpStream::connect(address))
            .await
            .map_err(|_| late())?
            .map_err(|e| error(e.to_string()))?;
        tcp.set_nodelay(true).map_err(|e| error(e.to_string()))?;
        let connector = TlsConnector::from(self.client_config_for(expect, alpn));
        let handshake = connector.connect(server_name(address), tcp);
        tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| late())?
            .map_err(|e| error(explain(&e)))
    }
}

/// The SNI for an address. It decides nothing here, so one that cannot be a name gets a fixed one.
fn server_name(address: &str) -> ServerName<'static> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned())
        .unwrap_or(ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()))
}

fn load(files: &ClusterFiles) -> Result<(Credential, Trust), TlsError> {
    let what = files.ca_file.display().to_string();
    let roots = pem::read_certificates(&files.ca_file)?;
    let trust = Trust::new(TrustDomain::cluster(), &what, &roots)?;
    let credential = Credential::from_files(&files.cert_file, &files.key_file)?;
    check_own(&files.cert_file.display().to_string(), &credential, &trust)?;
    Ok((credential, trust))
}

/// What every peer would check, checked at the start, where someone reads the error.
fn check_own(what: &str, credential: &Credential, trust: &Trust) -> Result<(), TlsError> {
    let Some((leaf, rest)) = credential.leaf().chain.split_first() else {
        return Err(TlsError::NoCertificate);
    };
    let any = Expect::Roles(vec![Role::Server, Role::Agent, Role::Cli]);
    let now = unix(SystemTime::now());
    trust
        .check(leaf, rest, now, Usage::Client, &any)
        .map(drop)
        .map_err(|source| TlsError::NotTrusted {
            what: what.to_owned(),
            source,
        })
}
