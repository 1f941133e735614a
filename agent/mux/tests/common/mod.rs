//! What the tests share.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use mesh_mux::{Acceptor, CloseReason, Config, Connection, Opener};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, DuplexStream, ReadBuf};
use tokio::task::JoinHandle;

/// Runs on one thread, with time that moves only when all tasks wait.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test)
}

/// A connection with both drivers running, over a pipe of `size` bytes.
pub struct Pair {
    pub opener: Opener,
    pub acceptor: Acceptor,
    pub client: JoinHandle<CloseReason>,
    pub server: JoinHandle<CloseReason>,
}

/// A transport as a connection wants it.
pub fn buffered<T: AsyncRead>(io: T) -> BufReader<T> {
    BufReader::with_capacity(256 * 1024, io)
}

pub fn pair(size: usize, client: Config, server: Config) -> Pair {
    let (near, far) = tokio::io::duplex(size);
    let (opener, client) = Connection::client(buffered(near), client);
    let (acceptor, server) = Connection::server(buffered(far), server);
    Pair {
        opener,
        acceptor,
        client: tokio::spawn(client),
        server: tokio::spawn(server),
    }
}

pub fn default_pair() -> Pair {
    pair(64 * 1024, Config::default(), Config::default())
}

/// A server with a raw peer, whose bytes the test writes itself.
pub fn raw_client(config: Config) -> (DuplexStream, Acceptor, JoinHandle<CloseReason>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (acceptor, driver) = Connection::server(buffered(far), config);
    (near, acceptor, tokio::spawn(driver))
}

/// The same the other way.
pub fn raw_server(config: Config) -> (DuplexStream, Opener, JoinHandle<CloseReason>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (opener, driver) = Connection::client(buffered(far), config);
    (near, opener, tokio::spawn(driver))
}

pub const SETTINGS: u8 = 0;
pub const OPEN: u8 = 1;
pub const DATA: u8 = 2;
pub const FIN: u8 = 3;
pub const RESET: u8 = 4;
pub const WINDOW: u8 = 5;
pub const PING: u8 = 6;
pub const PONG: u8 = 7;
pub const GOAWAY: u8 = 8;

/// A frame, as the reference says; on purpose not made by the crate.
pub fn frame(kind: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, 0]);
    bytes.extend(id.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// What a side sends first.
pub fn preface() -> Vec<u8> {
    [b"mesh/1\r\n".to_vec(), frame(SETTINGS, 0, &[])].concat()
}

/// All frames in what a raw peer has read, without the magic bytes.
pub fn frames(bytes: &[u8]) -> Vec<(u8, u32, Vec<u8>)> {
    if bytes.is_empty() {
        return Vec::new();
    }
    let mut rest = bytes.strip_prefix(b"mesh/1\r\n").unwrap();
    let mut all = Vec::new();
    while let Some((head, tail)) = rest.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let id = u32::from_be_bytes(head[5..].try_into().unwrap());
        all.push((head[3], id, tail[..length].to_vec()));
        rest = &tail[length..];
    }
    assert!(rest.is_empty(), "a whole number of frames");
    all
}

/// Counts the writes that reach the transport.
pub struct Counted<T> {
    pub io: T,
    pub writes: Arc<AtomicUsize>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Lets all tasks run until none can, then a little time pass.
pub async fn settle() {
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
}
