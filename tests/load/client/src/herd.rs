//! Sidecars that all start at once, as light as can be: each gets its bootstrap at the agent's socket,
//! proves itself on a stream of its own, asks for a leaf for its own key and holds it. What is no
//! leaf is not waited out in silence: each refusal is counted, and each stream that had to be opened
//! again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mesh_attach::AttachError;
use mesh_proto::bootstrap::{AgentAddress, Bootstrap, BootstrapRequest};
use mesh_proto::proxies::v1 as pb;
use mesh_proto::proxies::v1::from_proxy::Message as Up;
use mesh_proto::proxies::v1::proxies_client::ProxiesClient;
use mesh_proto::proxies::v1::to_proxy::Message as Down;
use mesh_tls::{Credential, LeafKey, csr};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use crate::sign::quantile;
use crate::{Failure, Options};

/// How long the agent itself may wait for a registration.
const REGISTERED: Duration = Duration::from_secs(30);
/// Waits before another try: from, and up to.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// After a refused leaf.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// The largest message of an agent.
const MAX_MESSAGE: usize = 64 << 20;

/// `SOCKET -count 1000 -instance herd -seconds 120`: the sidecars of the instances `herd-0`, `herd-1` …
/// start at once. Tells when the last has its leaf, and holds all until the end of standard input.
pub(crate) fn run(socket: &str, options: &Options) -> Result<Value, Failure> {
    let count = options.number("count", 1000)?;
    let name = options.text("instance").unwrap_or("herd").to_owned();
    let longest = match options.text("seconds") {
        Some(_) => options.seconds()?,
        None => Duration::from_secs(120),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let begin = Instant::now();
        let tally = Arc::new(Tally::default());
        let (first, mut leaves) = mpsc::unbounded_channel();
        let mut herd = JoinSet::new();
        for number in 0..count {
            let one = One {
                socket: socket.into(),
                instance: format!("{name}-{number}"),
                tally: tally.clone(),
                first: first.clone(),
            };
            herd.spawn(one.run());
        }
        drop(first);
        let mut times = Vec::with_capacity(count);
        let all = async {
            while times.len() < count {
                match leaves.recv().await {
                    Some(()) => times.push(begin.elapsed()),
                    None => break,
                }
            }
        };
        let in_time = tokio::time::timeout(longest, all).await.is_ok();
        let (errors, again) = tally.told();
        println!(
            "{}",
            json!({
                "count": count,
                "leaves": times.len(),
                "in_time": in_time,
                "errors": errors,
                "again": again,
                "first_ms": quantile(&times, 0.0),
                "p50_ms": quantile(&times, 0.5),
                "p99_ms": quantile(&times, 0.99),
                "last_ms": quantile(&times, 1.0),
            })
        );
        let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
        let held = herd.len();
        herd.abort_all();
        Ok(json!({ "held": held }))
    })
}

#[derive(Default)]
struct Tally(Mutex<(BTreeMap<String, u64>, BTreeMap<String, u64>)>);

impl Tally {
    /// There was no leaf.
    fn error(&self, why: String) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.0.entry(why).or_default() += 1;
    }

    /// A bootstrap or a stream was asked for again.
    fn again(&self, why: String) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.1.entry(why).or_default() += 1;
    }

    fn told(&self) -> (BTreeMap<String, u64>, BTreeMap<String, u64>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// One sidecar.
struct One {
    socket: PathBuf,
    instance: String,
    tally: Arc<Tally>,
    /// Told of its first leaf.
    first: mpsc::UnboundedSender<()>,
}

impl One {
    async fn run(self) {
        let mut wait = AGAIN.0;
        let bootstrap = loop {
            match bootstrap(&self.socket, &self.instance).await {
                Ok(bootstrap) => break bootstrap,
                Err(error) if error.may_pass() => self.tally.again(error.to_string()),
                Err(error) => return self.tally.error(error.to_string()),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(AGAIN.1);
        };
        let key = match LeafKey::generate() {
            Ok(key) => key,
            Err(error) => return self.tally.error(error.to_string()),
        };
        let (mut chain, mut wait) = (Vec::new(), AGAIN.0);
        loop {
            if let Err(error) = self.stream(&bootstrap, &key, &mut chain).await {
                self.tally.again(error.to_string());
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(AGAIN.1);
        }
    }

    /// One stream, until it ends.
    async fn stream(
        &self,
        bootstrap: &Bootstrap,
        key: &LeafKey,
        chain: &mut Vec<Vec<u8>>,
    ) -> Result<(), Failure> {
        let AgentAddress::Tcp(address) = &bootstrap.agent else {
            return Err("the agent is not at an address".into());
        };
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(Duration::from_secs(5))
            .connect()
            .await?;
        let mut client = ProxiesClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let (up, outbox) = mpsc::channel(16);
        let mut inbound = client.open(ReceiverStream::new(outbox)).await?.into_inner();
        let say = async |message: Up| {
            let message = pb::FromProxy {
                message: Some(message),
            };
            up.send(message).await.map_err(|_| "the stream has ended")
        };
        while let Some(message) = inbound.message().await? {
            let ack = match message.message {
                Some(Down::Challenge(challenge)) => {
                    let hello = hello(bootstrap, key, &challenge.nonce, chain.clone())?;
                    say(Up::Hello(hello)).await?;
                    continue;
                }
                Some(Down::Accepted(_)) if chain.is_empty() => {
                    say(Up::Csr(pb::Csr { der: key.csr()? })).await?;
                    continue;
                }
                Some(Down::Leaf(leaf)) if !leaf.error.is_empty() => {
                    self.tally.error(leaf.error);
                    tokio::time::sleep(ASK_AGAIN).await;
                    say(Up::Csr(pb::Csr { der: key.csr()? })).await?;
                    continue;
                }
                Some(Down::Leaf(leaf)) => {
                    let der = leaf.chain.iter().cloned().map(Into::into).collect();
                    let good = Credential::from_leaf_key(der, key)?;
                    if chain.is_empty() {
                        let _ = self.first.send(());
                    }
                    *chain = leaf.chain;
                    let ends = good.leaf().not_after;
                    let ends = ends.duration_since(std::time::UNIX_EPOCH)?.as_secs();
                    pb::ack::What::LeafNotAfter(i64::try_from(ends)?)
                }
                Some(Down::Roots(roots)) => pb::ack::What::Roots(roots.serial),
                Some(Down::Config(config)) => pb::ack::What::Config(config.serial),
                Some(Down::Revocations(list)) => pb::ack::What::Revocations(list.serial),
                Some(Down::Accepted(_) | Down::Dns(_)) | None => continue,
            };
            let ack = pb::Ack {
                what: Some(ack),
                ..pb::Ack::default()
            };
            say(Up::Ack(ack)).await?;
        }
        Err("the agent ended the stream".into())
    }
}

async fn bootstrap(socket: &Path, instance: &str) -> Result<Bootstrap, AttachError> {
    let request = BootstrapRequest {
        sidecar_for: Some(instance.to_owned()),
        ..BootstrapRequest::default()
    };
    mesh_attach::bootstrap(socket, &request, REGISTERED).await
}

fn hello(
    bootstrap: &Bootstrap,
    key: &LeafKey,
    nonce: &[u8],
    leaf: Vec<Vec<u8>>,
) -> Result<pb::Hello, Failure> {
    let ticket = bootstrap.ticket.as_ref();
    Ok(pb::Hello {
        proxy: bootstrap.proxy_id.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        features: Vec::new(),
        public_key: key.public_key(),
        signature: csr::sign_nonce(key, &bootstrap.proxy_id, nonce)?,
        ticket: ticket.map(|it| it.as_bytes().to_vec()).unwrap_or_default(),
        leaf,
    })
}
