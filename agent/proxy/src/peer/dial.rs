//! Making a connection, and why one is not made.

use std::fmt;
use std::future::Future;
use std::io;
use std::time::{Duration, SystemTime};

use mesh_tls::{SpiffeId, VerifyError, peer_leaf};
use rustls::CommonState;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Dialing;
use crate::Limits;
use crate::config::Address;
use crate::net;
use crate::wide::{self, Wide};

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DialError {
    pub(crate) kind: DialKind,
    /// In words.
    pub(crate) what: String,
}

/// Why there is no connection, as a counter's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DialKind {
    Refused,
    Timeout,
    /// Another one than the expected identity answered.
    Identity,
    /// The expected one answered, with a certificate that is revoked.
    Revoked,
    /// The handshake failed otherwise.
    Tls,
    Unreachable,
    /// It speaks another protocol than was offered.
    OtherProtocol,
}

impl DialKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Identity => "identity",
            Self::Revoked => "revoked",
            Self::Tls => "tls",
            Self::Unreachable => "unreachable",
            Self::OtherProtocol => "protocol",
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl DialError {
    pub(crate) fn io(error: &io::Error) -> Self {
        let tls = find_tls(error);
        let kind = match (error.kind(), tls) {
            (_, Some(rustls::Error::NoApplicationProtocol))
            | (
                _,
                Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)),
            ) => DialKind::OtherProtocol,
            (_, Some(error)) if is_wrong_identity(error) => DialKind::Identity,
            (_, Some(error)) if VerifyError::is_revoked(error) => DialKind::Revoked,
            (_, Some(_)) => DialKind::Tls,
            (io::ErrorKind::ConnectionRefused, _) => DialKind::Refused,
            (io::ErrorKind::TimedOut, _) => DialKind::Timeout,
            _ => DialKind::Unreachable,
        };
        let what = match (kind, error.kind()) {
            (DialKind::Refused, _) => "connection refused".to_owned(),
            (_, io::ErrorKind::UnexpectedEof) => {
                "it closed the connection during the handshake".to_owned()
            }
            _ => mesh_tls::explain_here(error),
        };
        Self { kind, what }
    }

    pub(crate) fn other(what: impl Into<String>) -> Self {
        Self {
            kind: DialKind::Unreachable,
            what: what.into(),
        }
    }

    pub(super) fn other_protocol() -> Self {
        Self {
            kind: DialKind::OtherProtocol,
            what: "it speaks another protocol".to_owned(),
        }
    }

    fn own_expired() -> Self {
        let what = "this proxy's own certificate has expired, and no server has signed another";
        Self {
            kind: DialKind::Tls,
            what: what.to_owned(),
        }
    }

    fn peer_expired() -> Self {
        Self {
            kind: DialKind::Tls,
            what: "the peer's certificate has expired".to_owned(),
        }
    }

    fn timeout(limit: Duration) -> Self {
        Self {
            kind: DialKind::Timeout,
            what: format!("no connection within {} ms", limit.as_millis()),
        }
    }
}

fn find_tls(error: &io::Error) -> Option<&rustls::Error> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = error
        .get_ref()
        .map(|inner| inner as &(dyn std::error::Error + 'static));
    while let Some(one) = next {
        if let Some(found) = one.downcast_ref() {
            return Some(found);
        }
        next = match one.downcast_ref::<io::Error>() {
            Some(inner) => inner
                .get_ref()
                .map(|inner| inner as &(dyn std::error::Error + 'static)),
            None => one.source(),
        };
    }
    None
}

fn is_wrong_identity(error: &rustls::Error) -> bool {
    use rustls::{CertificateError, Error};
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => other
            .0
            .downcast_ref::<VerifyError>()
            .is_some_and(|error| matches!(error, VerifyError::WrongIdentity { .. })),
        _ => false,
    }
}

/// Connects, and makes sure who answers.
pub(super) async fn tls(
    address: &Address,
    identity: &SpiffeId,
    dialing: &Dialing<'_>,
    alpn: &[&[u8]],
) -> Result<TlsStream<Wide>, DialError> {
    let began = Instant::now();
    if dialing.worker.shared.leaf_left().is_zero() {
        // Each peer would refuse it, and say less.
        return Err(DialError::own_expired());
    }
    let socket = net::connect(address, &dialing.worker.shared.transparent, dialing.limit)
        .await
        .map_err(|error| DialError::io(&error))?;
    let config = dialing.worker.shared.tls.client_config(identity, alpn);
    let socket = Wide::new(socket);
    let handshake = TlsConnector::from(config).connect(dialing.name.clone(), socket);
    let mut tls = in_time(began, dialing.limit, handshake).await?;
    let leaf = peer_leaf(tls.get_ref().1);
    if leaf.is_some_and(|leaf| leaf.not_after <= SystemTime::now()) {
        // To TLS it is good until its last second is over; the peer has cut all by now.
        return Err(DialError::peer_expired());
    }
    tls.get_mut().1.set_buffer_limit(Some(wide::WRITE));
    match dialing.worker.link(&mut tls) {
        true => Ok(tls),
        false => Err(DialError {
            kind: DialKind::Revoked,
            what: "its certificate is revoked".to_owned(),
        }),
    }
}

/// What is left of a time limit for a step.
pub(crate) async fn in_time<T>(
    began: Instant,
    limit: Duration,
    step: impl Future<Output = io::Result<T>>,
) -> Result<T, DialError> {
    match timeout_at(began + limit, step).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(DialError::io(&error)),
        Err(_) => Err(DialError::timeout(limit)),
    }
}

/// When a connection takes nothing new any more, and when it is cut: at the end
/// of the peer's certificate, and after the grace.
pub(crate) fn until(connection: &CommonState, limits: &Limits) -> Option<(Instant, Instant)> {
    let leaf = peer_leaf(connection)?;
    let left = leaf
        .not_after
        .duration_since(SystemTime::now())
        .unwrap_or(Duration::ZERO);
    let close = Instant::now().checked_add(left)?;
    Some((close, close.checked_add(limits.expiry_grace)?))
}
