//! The mark on our own sockets, by which the rules of the namespace let them
//! pass (docs/reference/cni.md).

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mesh_cni::MESH_MARK;
use nix::unistd::geteuid;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::TcpSocket;

use crate::ApplyError;

/// Whether our sockets are marked; and where they may not be, which ports are
/// ours, so that a connection that comes back to us is known.
#[derive(Debug, Default)]
pub(crate) struct Marking {
    on: AtomicBool,
    ports: Mutex<HashSet<u16>>,
}

impl Marking {
    /// Whether sockets can be marked, found out with one.
    ///
    /// # Errors
    /// When they cannot and it matters: the rules let root pass by the mark
    /// alone.
    pub(crate) fn try_out() -> Result<bool, ApplyError> {
        let tried = Socket::new(Domain::IPV4, Type::STREAM, None)
            .and_then(|socket| socket.set_mark(MESH_MARK));
        decide(tried, geteuid().is_root())
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// Marks a socket that connects to the outside.
    pub(crate) fn mark(&self, socket: &TcpSocket) -> io::Result<()> {
        match self.is_on() {
            true => SockRef::from(socket).set_mark(MESH_MARK),
            false => Ok(()),
        }
    }

    /// Remembers a socket that goes where the application's went, while it has
    /// no mark: if the rules do not let it pass by its uid, it comes back.
    /// Before it connects, since it may be back before that is known.
    pub(crate) fn remember(
        &self,
        socket: &TcpSocket,
        to: SocketAddr,
    ) -> io::Result<Option<Own<'_>>> {
        if self.is_on() {
            return Ok(None);
        }
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        socket.bind(any)?;
        let port = socket.local_addr()?.port();
        self.ports().insert(port);
        Ok(Some(Own(self, port)))
    }

    /// Whether a connection from there is our own.
    pub(crate) fn is_own(&self, from: SocketAddr) -> bool {
        !self.is_on() && self.ports().contains(&from.port())
    }

    fn ports(&self) -> MutexGuard<'_, HashSet<u16>> {
        // Nothing is left half done under this lock.
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket of ours without a mark.
pub(crate) struct Own<'a>(&'a Marking, u16);

impl Drop for Own<'_> {
    fn drop(&mut self) {
        self.0.ports().remove(&self.1);
    }
}

fn decide(tried: io::Result<()>, root: bool) -> Result<bool, ApplyError> {
    match tried {
        Ok(()) => Ok(true),
        Err(source) if root => Err(ApplyError::Mark { source }),
        Err(error) => {
            tracing::debug!(%error, "sockets are not marked; the rules let this uid pass");
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn root_that_may_not_mark_is_not_transparent() {
        let denied = || Err(io::Error::from(io::ErrorKind::PermissionDenied));
        assert!(decide(Ok(()), true).unwrap());
        assert!(decide(Ok(()), false).unwrap());
        assert!(!decide(denied(), false).unwrap());
        let error = decide(denied(), true).unwrap_err().to_string();
        assert!(error.contains("CAP_NET_ADMIN"), "{error}");
    }

    #[tokio::test]
    async fn a_socket_of_ours_is_known_until_it_goes() {
        let marking = Marking::default();
        let socket = TcpSocket::new_v4().unwrap();
        let to = "127.0.0.1:1".parse().unwrap();
        let own = marking.remember(&socket, to).unwrap().unwrap();
        let from = SocketAddr::from(([10, 0, 0, 1], socket.local_addr().unwrap().port()));
        assert!(marking.is_own(from));
        drop(own);
        assert!(!marking.is_own(from));
    }
}
