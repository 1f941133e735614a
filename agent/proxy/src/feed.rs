//! The stream to the agent: proof up, then leaf, roots and config down.
//!
//! It only speaks the protocol. What comes is handed to [`crate::run`] as
//! [`Event`]s, in order; when the agent is away the last leaf, roots and config
//! stay in use and the stream is opened again, with back-off, for as long as
//! the process runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mesh_proto::bootstrap::{AgentAddress, Bootstrap};
use mesh_proto::proxies::v1 as wire;
use mesh_proto::proxies::v1::from_proxy::Message as Up;
use mesh_proto::proxies::v1::proxies_client::ProxiesClient;
use mesh_proto::proxies::v1::to_proxy::Message as Down;
use mesh_tls::csr;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::keys::Keys;

/// Largest message taken: a config with some ten thousand instances.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// What came.
#[derive(Debug)]
pub(crate) enum Event {
    /// The stream is open and proved.
    Connected,
    /// It is not; the text says why. It is tried again.
    Disconnected(String),
    /// The agent has nothing by which to know this proxy any more.
    Refused(String),
    /// The agent refused the key: its leaf was revoked.
    Revoked(String),
    /// Whom nobody is to believe any more.
    Revocations(wire::Revocations),
    /// A chain for the key.
    Leaf(wire::Leaf),
    /// What the mesh trusts.
    Roots(wire::Roots),
    /// A config.
    Config(wire::Config),
    /// An answer of the host's resolvers.
    Dns(wire::DnsAnswer),
}

/// What goes up.
#[derive(Debug)]
pub(crate) enum Wish {
    /// A leaf for the key.
    Leaf,
    /// An answer to what came.
    Ack(wire::Ack),
    /// What the application asked for.
    Wants(wire::Wants),
    /// A question for the host's resolvers.
    Dns(wire::DnsQuestion),
}

/// Who this proxy is, on every stream that it opens.
pub(crate) struct Feed {
    /// Where the agent is, and the first proof.
    pub(crate) bootstrap: Bootstrap,
    /// The key, made in this process.
    pub(crate) keys: Arc<Keys>,
    /// What this process knows.
    pub(crate) features: Vec<String>,
    /// The chain in use, for an agent that has forgotten the key. DER.
    pub(crate) leaf: Box<dyn Fn() -> Vec<Vec<u8>> + Send + Sync>,
    /// What came.
    pub(crate) events: mpsc::Sender<Event>,
    /// What goes up.
    pub(crate) wishes: mpsc::UnboundedReceiver<Wish>,
}

/// How a stream ended.
enum End {
    /// It is worth another try.
    Retry(String),
    /// The agent refused the proof.
    Refused(String),
    /// The agent refused the key: its leaf was revoked.
    Revoked(String),
    /// The other half of this process is gone.
    Finished,
}

impl Feed {
    /// Runs until the process ends.
    pub(crate) async fn run(mut self) {
        let mut wait = Backoff::default();
        loop {
            let event = match self.stream(&mut wait).await {
                End::Finished => return,
                End::Retry(reason) => Event::Disconnected(reason),
                End::Refused(reason) => Event::Refused(reason),
                End::Revoked(reason) => Event::Revoked(reason),
            };
            if self.events.send(event).await.is_err() {
                return;
            }
            tokio::time::sleep(wait.next()).await;
        }
    }

    async fn stream(&mut self, wait: &mut Backoff) -> End {
        let channel = match self.channel().await {
            Ok(channel) => channel,
            Err(reason) => return End::Retry(reason),
        };
        let (up, outgoing) = mpsc::channel(16);
        let mut client = ProxiesClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let opened = client.open(ReceiverStream::new(outgoing)).await;
        let mut incoming = match opened {
            Ok(response) => response.into_inner(),
            Err(status) => return ended(&status),
        };
        // What was wished for on the stream before names what came on it.
        while self.wishes.try_recv().is_ok() {}
        loop {
            tokio::select! {
                message = incoming.message() => {
                    let message = match message {
                        Ok(Some(message)) => message.message,
                        Ok(None) => return End::Retry("the agent closed the stream".to_owned()),
                        Err(status) => return ended(&status),
                    };
                    // A message that this build does not know has no part here.
                    let Some(message) = message else { continue };
                    if let Some(end) = self.take(message, &up, wait).await {
                        return end;
                    }
                }
                wish = next(&mut self.wishes, &up) => {
                    let (wish, place) = match wish {
                        Ok(Some(found)) => found,
                        Ok(None) => return End::Finished,
                        Err(Closed) => {
                            return End::Retry("the agent closed the stream".to_owned());
                        }
                    };
                    let message = match wish {
                        Wish::Ack(ack) => Up::Ack(ack),
                        Wish::Wants(wants) => Up::Wants(wants),
                        Wish::Dns(question) => Up::Dns(question),
                        Wish::Leaf => match self.keys.wanted().csr() {
                            Ok(der) => Up::Csr(wire::Csr { der }),
                            Err(error) => return End::Retry(error.to_string()),
                        },
                    };
                    place.send(wire::FromProxy { message: Some(message) });
                }
            }
        }
    }

    async fn take(
        &mut self,
        message: Down,
        up: &mpsc::Sender<wire::FromProxy>,
        wait: &mut Backoff,
    ) -> Option<End> {
        let event = match message {
            Down::Challenge(challenge) => {
                let hello = match self.hello(&challenge.nonce) {
                    Ok(hello) => hello,
                    Err(error) => return Some(End::Retry(error.to_string())),
                };
                let message = wire::FromProxy {
                    message: Some(Up::Hello(hello)),
                };
                return match up.send(message).await {
                    Ok(()) => None,
                    Err(_) => Some(End::Retry("the agent closed the stream".to_owned())),
                };
            }
            Down::Accepted(_) => {
                *wait = Backoff::default();
                Event::Connected
            }
            Down::Leaf(leaf) => Event::Leaf(leaf),
            Down::Roots(roots) => Event::Roots(roots),
            Down::Revocations(revocations) => Event::Revocations(revocations),
            Down::Config(config) => Event::Config(config),
            Down::Dns(answer) => Event::Dns(answer),
        };
        match self.events.send(event).await {
            Ok(()) => None,
            Err(_) => Some(End::Finished),
        }
    }

    fn hello(&self, nonce: &[u8]) -> Result<wire::Hello, csr::CsrError> {
        let proxy = &self.bootstrap.proxy_id;
        let key = self.keys.in_use();
        Ok(wire::Hello {
            proxy: proxy.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            features: self.features.clone(),
            public_key: key.public_key(),
            signature: csr::sign_nonce(&key, proxy, nonce)?,
            ticket: match &self.bootstrap.ticket {
                Some(ticket) => ticket.as_bytes().to_vec(),
                None => Vec::new(),
            },
            leaf: (self.leaf)(),
        })
    }

    async fn channel(&self) -> Result<Channel, String> {
        let (uri, place) = match &self.bootstrap.agent {
            AgentAddress::Tcp(address) => (format!("http://{address}"), address.to_string()),
            // The URI only fills the `:authority`; the connector goes by the path.
            AgentAddress::Unix(path) => ("http://agent".to_owned(), path.display().to_string()),
        };
        let endpoint = Endpoint::from_shared(uri)
            .map_err(|error| format!("agent at {place}: {error}"))?
            .connect_timeout(Duration::from_secs(5))
            .http2_keep_alive_interval(Duration::from_secs(15))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true);
        let connected = match &self.bootstrap.agent {
            AgentAddress::Tcp(_) => endpoint.connect().await,
            AgentAddress::Unix(path) => {
                let path = socket_path(path);
                endpoint
                    .connect_with_connector(tower::service_fn(move |_: Uri| {
                        let path = path.clone();
                        async move {
                            let stream = tokio::net::UnixStream::connect(path).await?;
                            Ok::<_, std::io::Error>(TokioIo::new(stream))
                        }
                    }))
                    .await
            }
        };
        connected.map_err(|error| format!("agent at {place}: {}", chain(&error)))
    }
}

/// The stream is over.
struct Closed;

/// The next wish, once there is room for it: an agent that does not read for a
/// while must not keep this side from reading, or both wait for each other.
async fn next<'a>(
    wishes: &mut mpsc::UnboundedReceiver<Wish>,
    up: &'a mpsc::Sender<wire::FromProxy>,
) -> Result<Option<(Wish, mpsc::Permit<'a, wire::FromProxy>)>, Closed> {
    let place = up.reserve().await.map_err(|_| Closed)?;
    Ok(wishes.recv().await.map(|wish| (wish, place)))
}

/// Nomad's socket path is relative to the task's root, which `raw_exec` does
/// not have: there it lies under the folder above `$NOMAD_ALLOC_DIR`.
fn socket_path(path: &std::path::Path) -> PathBuf {
    if path.is_absolute() || path.exists() {
        return path.to_owned();
    }
    let rest = path.strip_prefix("alloc").unwrap_or(path);
    match std::env::var_os("NOMAD_ALLOC_DIR") {
        Some(shared) => PathBuf::from(shared).join(rest),
        None => path.to_owned(),
    }
}

fn ended(status: &tonic::Status) -> End {
    let reason = status.message().to_owned();
    match status.code() {
        tonic::Code::Unauthenticated => End::Refused(reason),
        tonic::Code::PermissionDenied => End::Revoked(reason),
        _ => End::Retry(format!("agent: {reason}")),
    }
}

/// An error and what it came of, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let said = source.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        next = source.source();
    }
    text
}

/// Doubling waits from 100 ms to 5 s, a quarter of each by chance, so that the
/// proxies of a node do not come back all at once.
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(Duration::from_millis(100))
    }
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (wait * 2).min(Duration::from_secs(5));
        wait.mul_f64(1.0 - 0.25 * rand::random::<f64>())
    }
}

#[cfg(test)]
mod tests;
