//! The feed to this node's proxies: a stream each, over loopback or a Unix socket.
//!
//! Everyone on the node can connect, tasks of every allocation included (Nomad's socket for it has
//! mode 0777), so a stream is nobody's until it has proved whose it is, and unproven ones are few
//! and short.

mod io;
mod keys;
mod proof;
mod records;
mod session;
mod tickets;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures::Stream;
use mesh_model::ProxyMode;
use mesh_proto::proxies::v1 as pb;
use mesh_proto::proxies::v1::proxies_server::{Proxies, ProxiesServer};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use io::Proved;
pub(crate) use io::{Listener, SocketFile, accept};
pub(crate) use keys::Keys;
pub(crate) use records::Records;
pub(crate) use tickets::{Tickets, same};

use crate::catalog::Catalog;
use crate::checks::Board;
use crate::clock::Clock;
use crate::compiler::Compiler;
use crate::dns::Forwarder;
use crate::facts::Facts;
use crate::uplink::Signer;
use crate::wants::Asked;

/// The largest message from a proxy: a hello with a leaf's chain.
const MAX_MESSAGE: usize = 256 * 1024;
/// The largest message to a proxy: a config.
const MAX_CONFIG: usize = 64 * 1024 * 1024;
/// Streams that have not proved anything yet.
const MAX_UNPROVEN: usize = 256;
/// Messages that wait for the connection.
const OUTBOX: usize = 8;

/// The feed. One stream a proxy: a newer one that proved itself takes the older one's place.
pub(crate) struct Feed {
    parts: Parts,
    streams: Mutex<Streams>,
    unproven: Arc<Semaphore>,
}

#[derive(Default)]
struct Streams {
    last: u64,
    open: HashMap<String, (u64, CancellationToken)>,
}

/// What a feed is made of.
pub(crate) struct Parts {
    pub(crate) node: String,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) board: Arc<Board>,
    pub(crate) facts: Arc<Facts>,
    pub(crate) compiler: Arc<Compiler>,
    pub(crate) asked: Arc<Asked>,
    pub(crate) dns: Arc<Forwarder>,
    pub(crate) tickets: Arc<Tickets>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) records: Arc<Records>,
    pub(crate) signer: Arc<dyn Signer>,
    pub(crate) stop: CancellationToken,
}

impl Feed {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            parts,
            streams: Mutex::default(),
            unproven: Arc::new(Semaphore::new(MAX_UNPROVEN)),
        }
    }

    /// The gRPC service.
    pub(crate) fn service(self: Arc<Self>) -> ProxiesServer<FeedService> {
        ProxiesServer::new(FeedService(self))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_CONFIG)
    }

    /// A proxy has proved itself: its number, and word of the stream that replaces this one.
    fn open(&self, hello: &pb::Hello) -> (u64, CancellationToken) {
        let replaced = CancellationToken::new();
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.last += 1;
        let stream = streams.last;
        let entry = (stream, replaced.clone());
        if let Some((_, older)) = streams.open.insert(hello.proxy.clone(), entry) {
            older.cancel();
        }
        let version: String = hello.version.chars().take(64).collect();
        // Within the lock, so that records are begun in the order of the streams.
        self.parts
            .records
            .change(&hello.proxy, |record| record.begin(stream, &version));
        (stream, replaced)
    }

    fn close(&self, proxy: &str, stream: u64) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.open.get(proxy).is_some_and(|(it, _)| *it == stream) {
            streams.open.remove(proxy);
        }
        drop(streams);
        self.parts
            .records
            .change_of(proxy, stream, |record| record.stream = None);
        self.parts.asked.ended(proxy, stream);
        // Gone, most likely: its peers should know now, and not at the check's next turn.
        self.look_at(proxy, |_| true);
    }

    /// Whether a proxy is registered as one that takes calls to any address.
    fn is_transparent(&self, proxy: &str) -> bool {
        let view = self.parts.catalog.view();
        let sidecar = view.sidecar(proxy);
        sidecar.is_some_and(|(_, it)| it.proxy.mode == ProxyMode::Transparent)
    }

    /// Runs the checks of a proxy now, those whose state is `of`.
    fn look_at(&self, proxy: &str, of: impl Fn(mesh_model::Status) -> bool) {
        let view = self.parts.catalog.view();
        if let Some((_, sidecar)) = view.sidecar(proxy) {
            let board = &self.parts.board;
            let checks = sidecar.checks.iter();
            board.rerun(checks.filter(|check| of(board.status(check))));
        }
    }
}

/// See [`Feed`].
#[derive(Clone)]
pub(crate) struct FeedService(Arc<Feed>);

#[tonic::async_trait]
impl Proxies for FeedService {
    type OpenStream = Pin<Box<dyn Stream<Item = Result<pb::ToProxy, Status>> + Send>>;

    async fn open(
        &self,
        request: Request<Streaming<pb::FromProxy>>,
    ) -> Result<Response<Self::OpenStream>, Status> {
        let unproven = self.0.unproven.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted("too many streams have not proved anything yet; come again")
        })?;
        let connection = request.extensions().get::<Proved>().cloned();
        let (out, outbox) = mpsc::channel(OUTBOX);
        tokio::spawn(session::serve(
            self.0.clone(),
            request.into_inner(),
            out,
            unproven,
            connection.unwrap_or_default(),
        ));
        Ok(Response::new(Box::pin(ReceiverStream::new(outbox))))
    }
}

/// For fuzzing: judges a hello where nothing is known and no nonce was given.
///
/// # Panics
/// When it proves something: a bug.
pub(crate) fn judge_alone(hello: &pb::Hello) {
    let verifier = proof::Verifier {
        tickets: &Tickets::new(Arc::new(crate::SystemClock)),
        keys: &Keys::in_memory(),
        facts: &Facts::in_memory(),
        revoked: None,
        view: &crate::catalog::View::default(),
        now: std::time::SystemTime::UNIX_EPOCH,
    };
    assert!(verifier.verify(b"", hello).is_err(), "nothing was proved");
}
