//! The listener that allocations reach: its address is what Nomad hands to the CNI plugin and into
//! the `resolv.conf` of containers. Where the plugin redirects port 53 to the sidecar nobody asks
//! here; what does come is from the machine and its bridges, and is told of the mesh's own names
//! what the catalog says.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_dns::{Fault, Question, Rcode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::MAX_MESSAGE;
use super::forward::{Forwarder, Room};
use super::names::Names;
use super::networks::Networks;

/// Datagrams that are being answered at once.
const MAX_DATAGRAMS: usize = 256;
/// Connections at once.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may say nothing.
const IDLE: Duration = Duration::from_secs(10);
/// After an error of the listener itself.
const PAUSE: Duration = Duration::from_millis(100);

/// A bound listener, of both kinds on one port.
#[derive(Debug)]
pub(crate) struct Listener {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    address: SocketAddr,
}

impl Listener {
    pub(crate) async fn bind(at: SocketAddr) -> io::Result<Self> {
        let tcp = TcpListener::bind(at).await?;
        let address = tcp.local_addr()?;
        let udp = Arc::new(UdpSocket::bind(address).await?);
        Ok(Self { udp, tcp, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Answers until told to stop.
pub(crate) async fn serve(
    listener: Listener,
    forwarder: Arc<Forwarder>,
    names: Names,
    stop: CancellationToken,
) {
    let desk = Arc::new(Desk {
        forwarder,
        names,
        networks: Networks::default(),
    });
    let Listener { udp, tcp, .. } = listener;
    tokio::select! {
        () = datagrams(&udp, &desk, &stop) => {}
        () = connections(&tcp, &desk, &stop) => {}
        () = stop.cancelled() => {}
    }
}

struct Desk {
    forwarder: Arc<Forwarder>,
    names: Names,
    networks: Networks,
}

impl Desk {
    /// `None`: it is no question, and gets no answer.
    async fn answer(&self, message: &[u8], room: Room) -> Option<Vec<u8>> {
        let question = match Question::parse(message) {
            Ok(question) => question,
            Err(Fault::Silence) => return None,
            Err(Fault::Answer(answer)) => return Some(answer),
        };
        let limit = match room {
            Room::Whole => MAX_MESSAGE,
            Room::Datagram => question.udp_limit(),
        };
        if let Some(answer) = self.names.answer(&question, limit).await {
            return Some(answer);
        }
        match self.forwarder.ask(message, room).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::debug!(%error, "a DNS question was not answered");
                Some(question.failure(Rcode::ServFail))
            }
        }
    }
}

async fn datagrams(socket: &Arc<UdpSocket>, desk: &Arc<Desk>, stop: &CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_DATAGRAMS));
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let (length, caller) = match socket.recv_from(&mut buffer).await {
            Ok(it) => it,
            // Word of an answer that did not arrive, mostly.
            Err(error) => {
                tracing::debug!(%error, "DNS over UDP");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Who is not answered does not learn that either. One too many comes again.
        if !desk.networks.has(caller.ip()) {
            continue;
        }
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let message = buffer.get(..length).unwrap_or_default().to_vec();
        let (socket, desk, stop) = (socket.clone(), desk.clone(), stop.clone());
        tokio::spawn(async move {
            let _place = place;
            let answer = tokio::select! {
                it = desk.answer(&message, Room::Datagram) => it,
                () = stop.cancelled() => None,
            };
            if let Some(answer) = answer {
                let _ = socket.send_to(&answer, caller).await;
            }
        });
    }
}

async fn connections(listener: &TcpListener, desk: &Arc<Desk>, stop: &CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let (stream, caller) = match listener.accept().await {
            Ok(it) => it,
            Err(error) => {
                tracing::warn!(%error, "DNS over TCP");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if !desk.networks.has(caller.ip()) {
            continue;
        }
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let (desk, stop) = (desk.clone(), stop.clone());
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                _ = connection(stream, &desk) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn connection(mut stream: TcpStream, desk: &Desk) -> io::Result<()> {
    loop {
        let message = tokio::time::timeout(IDLE, read(&mut stream)).await??;
        let Some(answer) = desk.answer(&message, Room::Whole).await else {
            return Ok(());
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend(answer);
        tokio::time::timeout(IDLE, stream.write_all(&bytes)).await??;
    }
}

async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
