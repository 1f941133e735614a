//! The same over real connections on loopback.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;

use super::{LONG, Memory, config};
use crate::grpc::{BoxedIo, Connector, GrpcTransport, RaftService};
use crate::transport::Request;
use crate::{Lane, Limits, Peer, RaftNode, Transport, TransportError, pb};

struct Server {
    node: RaftNode,
    machine: Arc<Memory>,
    stop: Option<oneshot::Sender<()>>,
}

/// How many connections were made to each address.
type Connections = Arc<Mutex<HashMap<String, usize>>>;

fn transport(made: &Connections) -> Arc<GrpcTransport> {
    let made = Arc::clone(made);
    let connector: Connector = Arc::new(move |peer: Peer| {
        *made.lock().unwrap().entry(peer.addr.clone()).or_default() += 1;
        Box::pin(async move {
            let io = TcpStream::connect(&peer.addr).await?;
            io.set_nodelay(true)?;
            Ok(Box::new(io) as BoxedIo)
        })
    });
    Arc::new(GrpcTransport::new(
        connector,
        Limits::default().message_bytes(),
    ))
}

async fn serve(id: u64, dir: &Path, made: &Connections) -> Server {
    serve_by(id, dir, transport(made)).await
}

async fn serve_by(id: u64, dir: &Path, transport: Arc<dyn Transport>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(id, dir);
    config.me.addr = listener.local_addr().unwrap().to_string();
    config.log_tail = 0;
    let machine = Arc::new(Memory::default());
    let node = RaftNode::start(config, machine.clone(), transport)
        .await
        .unwrap();
    let authorize = Arc::new(|_: &tonic::Extensions, from: u64| match from {
        66 => Err(tonic::Status::permission_denied("66 is no server")),
        _ => Ok(()),
    });
    let service = RaftService::new(node.clone(), authorize).into_server();
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
                let _ = stopped.await;
            }),
    );
    Server {
        node,
        machine,
        stop: Some(stop),
    }
}

fn me(server: &Server) -> Peer {
    server.node.status().me
}

#[tokio::test(flavor = "multi_thread")]
async fn three_servers_over_loopback() {
    let dir = tempfile::tempdir().unwrap();
    let made = Connections::default();
    let mut servers = Vec::new();
    for id in 1..=3 {
        servers.push(serve(id, dir.path(), &made).await);
    }
    let first = &servers[0];
    first.node.bootstrap(vec![me(first)]).await.unwrap();
    first
        .node
        .write_anywhere(vec![b'x'; 3 << 20], LONG)
        .await
        .unwrap();
    // A snapshot of some pieces goes to those that join.
    first.node.trigger_snapshot(LONG).await.unwrap();
    for server in &servers[1..] {
        server.node.join(&me(first).addr, LONG).await.unwrap();
    }
    for (n, server) in servers.iter().enumerate() {
        server
            .node
            .write_anywhere(format!("{n}"), LONG)
            .await
            .unwrap();
    }
    for server in &servers {
        server.node.linearize(LONG).await.unwrap();
        assert_eq!(server.machine.commands().len(), 4);
        assert_eq!(server.node.status().voters.len(), 3);
    }
    // One connection for each lane, from each of the two others at most; and the
    // first server's to each new one: consensus and snapshot.
    let made = made.lock().unwrap().clone();
    assert!(made[&me(&servers[1]).addr] >= 2, "{made:?}");
    assert!(made[&me(&servers[2]).addr] >= 2, "{made:?}");

    // The leader's process ends: the others go on.
    let leader = servers
        .iter()
        .position(|s| s.node.is_leader())
        .expect("a leader");
    servers[leader].node.shutdown().await;
    let _ = servers[leader].stop.take().unwrap().send(());
    let other = &servers[(leader + 1) % 3];
    other.node.write_anywhere("after", LONG).await.unwrap();
    other.node.linearize(LONG).await.unwrap();
    assert_eq!(other.machine.commands().last().unwrap(), "after");
    for server in &servers {
        server.node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transport_says_whether_the_peer_can_have_acted() {
    let dir = tempfile::tempdir().unwrap();
    let made = Connections::default();
    let server = serve(1, dir.path(), &made).await;
    let transport = transport(&made);
    let ask = |from: u64, to: &Peer| {
        let request = Request::new(pb::Kind::Info, from, to.id, &pb::InfoRequest {});
        let (transport, to) = (Arc::clone(&transport), to.clone());
        async move { transport.call(&to, request, Duration::from_secs(5)).await }
    };
    ask(2, &me(&server)).await.unwrap();
    let refused = ask(66, &me(&server)).await.unwrap_err();
    assert_eq!(
        refused,
        TransportError::Refused("66 is no server".to_owned())
    );
    let mut wrong = me(&server);
    wrong.id = 4;
    let refused = ask(2, &wrong).await.unwrap_err();
    assert!(matches!(refused, TransportError::Refused(_)), "{refused}");

    // Nobody listens there.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr: SocketAddr = listener.local_addr().unwrap();
    let mut nobody = me(&server);
    nobody.addr = addr.to_string();
    drop(listener);
    let refused = ask(2, &nobody).await.unwrap_err();
    assert!(matches!(refused, TransportError::NotSent(_)), "{refused}");

    // Somebody takes the connection and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    nobody.addr = silent.local_addr().unwrap().to_string();
    let request = Request::new(pb::Kind::Info, 2, 1, &pb::InfoRequest {});
    let lost = transport
        .call(&nobody, request, Duration::from_millis(300))
        .await;
    assert!(matches!(lost, Err(TransportError::Lost(_))), "{lost:?}");
    server.node.shutdown().await;
}

/// A connection over which so many bytes go in a second.
struct Slow {
    io: TcpStream,
    rate: u32,
    pause: Pin<Box<tokio::time::Sleep>>,
}

impl AsyncRead for Slow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Slow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.pause.as_mut().poll(cx));
        let some = &buf[..buf.len().min(32 << 10)];
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, some))?;
        let takes = Duration::from_secs(1) * written as u32 / self.rate;
        let until = tokio::time::Instant::now() + takes;
        self.pause.as_mut().reset(until);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Counts the appends that are answered while a piece of a snapshot is on its way.
struct Counting {
    by: GrpcTransport,
    sending: AtomicUsize,
    pieces: AtomicUsize,
    meanwhile: AtomicUsize,
}

#[async_trait]
impl Transport for Counting {
    async fn call(
        &self,
        peer: &Peer,
        request: Request,
        timeout: Duration,
    ) -> Result<Bytes, TransportError> {
        let lane = request.lane();
        if lane == Lane::Snapshot {
            self.sending.fetch_add(1, Ordering::SeqCst);
        }
        let answer = self.by.call(peer, request, timeout).await;
        match lane {
            Lane::Snapshot => {
                self.sending.fetch_sub(1, Ordering::SeqCst);
                self.pieces.fetch_add(1, Ordering::SeqCst);
            }
            Lane::Consensus if answer.is_ok() && self.sending.load(Ordering::SeqCst) > 0 => {
                self.meanwhile.fetch_add(1, Ordering::SeqCst);
            }
            _ => {}
        }
        answer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_go_on_while_a_large_snapshot_is_sent() {
    const RATE: u32 = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let connector: Connector = Arc::new(move |peer: Peer| {
        Box::pin(async move {
            let io = TcpStream::connect(&peer.addr).await?;
            io.set_nodelay(true)?;
            Ok(Box::new(Slow {
                io,
                rate: RATE,
                pause: Box::pin(tokio::time::sleep(Duration::ZERO)),
            }) as BoxedIo)
        })
    });
    let counting = Arc::new(Counting {
        by: GrpcTransport::new(connector, Limits::default().message_bytes()),
        sending: AtomicUsize::default(),
        pieces: AtomicUsize::default(),
        meanwhile: AtomicUsize::default(),
    });
    let first = serve_by(1, dir.path(), counting.clone()).await;
    first.node.bootstrap(vec![me(&first)]).await.unwrap();
    for _ in 0..3 {
        let command = vec![b'x'; 2 << 20];
        first.node.write_anywhere(command, LONG).await.unwrap();
    }
    first.node.trigger_snapshot(LONG).await.unwrap();
    let term = first.node.watch_leadership().borrow().term;
    let second = serve(2, dir.path(), &Connections::default()).await;
    second.node.join(&me(&first).addr, LONG).await.unwrap();
    second.node.linearize(LONG).await.unwrap();
    assert_eq!(second.machine.commands().len(), 3);

    // Six pieces of a second each; a heartbeat is due ten times in each.
    let count = |count: &AtomicUsize| count.load(Ordering::SeqCst);
    assert!(count(&counting.pieces) >= 6, "{}", count(&counting.pieces));
    let meanwhile = count(&counting.meanwhile);
    assert!(meanwhile >= 12, "{meanwhile} heartbeats in six seconds");
    assert_eq!(second.node.watch_leadership().borrow().term, term);
    for server in [first, second] {
        server.node.shutdown().await;
    }
}
