//! Sockets to listen at: one for each worker, bound before anything is changed.
//!
//! Several workers share a TCP port through `SO_REUSEPORT`. That option would
//! also share it with a stranger of the same user, silently, so the port is
//! first bound without it, as a question. A Unix socket cannot be bound twice:
//! its workers share one.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::config::ListenKey;
use crate::plane::BoundAddress;

/// Connections that may wait in the kernel to be accepted.
pub(crate) const BACKLOG: i32 = 1024;

/// A bound socket of one worker.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The bound sockets of a listener.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// One for each worker.
    pub(crate) each: Vec<Listener>,
    pub(crate) address: BoundAddress,
    /// Removes the file of a Unix socket when the listener goes.
    pub(crate) file: Option<SocketFile>,
}

/// A Unix socket's file, removed with this.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0); // it may be gone with its folder
    }
}

/// Binds what a listener needs. `may_share`: a listener of ours that goes has
/// the same port, on another address.
pub(crate) fn bind(key: &ListenKey, workers: usize, may_share: bool) -> io::Result<Sockets> {
    match key {
        ListenKey::Tcp(address, _) => bind_tcp(*address, workers, may_share),
        ListenKey::Unix(path, mode) => bind_unix(path, *mode, workers),
        ListenKey::Virtual(_) | ListenKey::Host(..) | ListenKey::Service(_) => {
            Err(io::Error::other("nothing is bound for this"))
        }
    }
}

fn bind_tcp(address: SocketAddr, workers: usize, may_share: bool) -> io::Result<Sockets> {
    let bound = match may_share {
        true => address,
        false => local(&tcp(address, false)?)?, // free again when this is done
    };
    let sockets = (0..workers)
        .map(|_| tcp(bound, true))
        .collect::<io::Result<Vec<_>>>()?;
    let each = sockets
        .into_iter()
        .map(|socket| {
            socket.listen(BACKLOG)?;
            Ok(Listener::Tcp(socket.into()))
        })
        .collect::<io::Result<_>>()?;
    Ok(Sockets {
        each,
        address: BoundAddress::Tcp(bound),
        file: None,
    })
}

pub(crate) fn tcp(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    // Connections of an earlier proxy that still fade away are no obstacle;
    // on Linux this does not let two listen at once.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

pub(crate) fn local(socket: &Socket) -> io::Result<SocketAddr> {
    socket
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("a TCP socket without an address"))
}

/// Whether a bind failed because this host has no IPv6.
pub(crate) fn is_without_ipv6(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT))
}

fn bind_unix(path: &Path, mode: Option<u32>, workers: usize) -> io::Result<Sockets> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile(path.to_owned());
    if let Some(mode) = mode {
        // Before `listen`: nobody can connect in between.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    socket.listen(BACKLOG)?;
    let first: UnixListener = socket.into();
    let mut each = Vec::with_capacity(workers);
    for _ in 1..workers {
        each.push(Listener::Unix(first.try_clone()?));
    }
    each.push(Listener::Unix(first));
    Ok(Sockets {
        each,
        address: BoundAddress::Unix(path.to_owned()),
        file: Some(file),
    })
}

/// Removes a socket that nobody listens at any more, and nothing else.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the path exists and is not a socket",
        ));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(_) => fs::remove_file(path),
    }
}
