//! The sockets for DNS: UDP and TCP, on 127.0.0.1 and, where there is IPv6, ::1.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::resolver::{Over, answer};
use crate::listen::{self, is_without_ipv6};
use crate::plane::Shared;

/// Questions over UDP at once; what comes beyond is dropped, and asked again by
/// who waits for it.
const QUESTIONS: usize = 256;
/// Connections at once; the next waits in the kernel.
const CONNECTIONS: usize = 64;
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// The longest question that is read over UDP.
const MAX_QUESTION: usize = 4096;
/// How often another port is tried, where the kernel chooses.
const TRIES: usize = 16;

/// Bound sockets.
#[derive(Debug)]
pub(crate) struct Sockets {
    udp: Vec<std::net::UdpSocket>,
    tcp: Vec<std::net::TcpListener>,
    /// Where, each for both.
    pub(crate) addresses: Vec<SocketAddr>,
}

/// Binds a port; 0 lets the kernel choose.
pub(crate) fn bind(port: u16) -> io::Result<Sockets> {
    let mut sockets = Sockets {
        udp: Vec::new(),
        tcp: Vec::new(),
        addresses: Vec::new(),
    };
    let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    for ip in loopback {
        match bind_both(SocketAddr::new(ip, port)) {
            Ok((tcp, udp, address)) => {
                sockets.tcp.push(tcp);
                sockets.udp.push(udp);
                sockets.addresses.push(address);
            }
            Err(error) if ip.is_ipv6() && is_without_ipv6(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

fn bind_both(
    address: SocketAddr,
) -> io::Result<(std::net::TcpListener, std::net::UdpSocket, SocketAddr)> {
    let mut tries = 0;
    loop {
        tries += 1;
        let tcp = listen::tcp(address, false)?;
        tcp.listen(listen::BACKLOG)?;
        let bound = listen::local(&tcp)?;
        let kind = Type::DGRAM.nonblocking();
        let udp = Socket::new(Domain::for_address(bound), kind, Some(Protocol::UDP))?;
        match udp.bind(&bound.into()) {
            Ok(()) => return Ok((tcp.into(), udp.into(), bound)),
            // Free for one of the two only.
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && address.port() == 0
                    && tries < TRIES => {}
            Err(error) => return Err(error),
        }
    }
}

/// Answers at these sockets until it is dropped.
pub(super) async fn serve(shared: Arc<Shared>, sockets: Sockets) {
    let questions = Arc::new(Semaphore::new(QUESTIONS));
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let mut all = JoinSet::new();
    for socket in sockets.udp {
        let (shared, questions) = (shared.clone(), questions.clone());
        all.spawn(async move {
            match UdpSocket::from_std(socket) {
                Ok(socket) => datagrams(shared, Arc::new(socket), questions).await,
                Err(error) => tracing::error!(%error, "DNS: a bound socket cannot be used"),
            }
        });
    }
    for listener in sockets.tcp {
        let (shared, connections) = (shared.clone(), connections.clone());
        all.spawn(async move {
            match TcpListener::from_std(listener) {
                Ok(listener) => accept(shared, listener, connections).await,
                Err(error) => tracing::error!(%error, "DNS: a bound socket cannot be used"),
            }
        });
    }
    while all.join_next().await.is_some() {}
}

async fn datagrams(shared: Arc<Shared>, socket: Arc<UdpSocket>, room: Arc<Semaphore>) {
    let mut buffer = vec![0; MAX_QUESTION];
    let mut answering = JoinSet::new();
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            Some(_) = answering.join_next() => continue,
        };
        let (length, from) = match received {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "DNS: reading a question");
                sleep(Duration::from_millis(5)).await;
                continue;
            }
        };
        let Ok(place) = room.clone().try_acquire_owned() else {
            continue;
        };
        let message = buffer.get(..length).unwrap_or_default().to_vec();
        let (shared, socket) = (shared.clone(), socket.clone());
        answering.spawn(async move {
            if let Some(answer) = answer(&shared, &message, Over::Udp).await {
                // Who asked may have gone.
                let _ = socket.send_to(&answer, from).await;
            }
            drop(place);
        });
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, room: Arc<Semaphore>) {
    let mut serving = JoinSet::new();
    loop {
        let Ok(place) = room.clone().acquire_owned().await else {
            return; // it is never closed
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = serving.join_next() => continue,
        };
        match accepted {
            Ok((socket, _)) => {
                serving.spawn(connection(shared.clone(), socket, place));
            }
            Err(error) => {
                tracing::debug!(%error, "DNS: accepting a connection");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Answers one question after the other (RFC 7766 allows more at once, and
/// requires nothing).
async fn connection(shared: Arc<Shared>, mut socket: TcpStream, _place: OwnedSemaphorePermit) {
    let _ = socket.set_nodelay(true);
    while let Ok(Ok(message)) = timeout(SILENCE, read(&mut socket)).await {
        let Some(answer) = answer(&shared, &message, Over::Tcp).await else {
            return;
        };
        let Ok(length) = u16::try_from(answer.len()) else {
            return;
        };
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&answer);
        let written = timeout(SILENCE, socket.write_all(&framed)).await;
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

async fn read(socket: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = socket.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    socket.read_exact(&mut message).await?;
    Ok(message)
}
