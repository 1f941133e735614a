//! One proxy's stream, from the challenge to its end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mesh_proto::proxies::v1 as pb;
use mesh_proto::proxies::v1::from_proxy::Message as From;
use mesh_proto::proxies::v1::to_proxy::Message as To;
use mesh_tls::csr;
use mesh_wiring::Wants;
use rand::TryRngCore;
use rand::rngs::OsRng;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::Feed;
use super::io::Proved;
use super::proof::{Refused, Verifier};
use crate::compiler::{Compiled, Config, Roots, hex};
use crate::dns::Room;
use crate::revoked;
use crate::uplink::SignError;
use crate::wants;

/// How long the hello may take.
const HELLO: Duration = Duration::from_secs(10);
/// Wishes for a leaf: so many at once, and one more in so long.
const CSR_BURST: u32 = 10;
const CSR_EVERY: Duration = Duration::from_millis(500);

/// Questions of one proxy that wait for their answer.
const MAX_QUESTIONS: usize = 128;
/// How long a proxy that comes again, to an agent that does not remember what it was asked for, may
/// take to say it. Its first config would be one without what its application calls.
const PATIENCE: Duration = Duration::from_millis(500);

/// What goes to the proxy.
pub(super) type Outbox = mpsc::Sender<Result<pb::ToProxy, Status>>;

/// Serves a stream until it ends, and says why to the proxy.
pub(super) async fn serve(
    feed: Arc<Feed>,
    mut inbound: Streaming<pb::FromProxy>,
    out: Outbox,
    unproven: OwnedSemaphorePermit,
    connection: Proved,
) {
    let stopped = feed.parts.stop.clone();
    let proven = tokio::select! {
        it = prove(&feed, &mut inbound, &out) => it,
        () = stopped.cancelled() => Err(stopping()),
    };
    drop(unproven);
    let result = match proven {
        Ok(hello) => {
            let _held = connection.hold();
            let (stream, replaced) = feed.open(&hello);
            let session = Session::new(feed.clone(), &hello, stream, out.clone());
            let result = tokio::select! {
                it = session.run(inbound) => it,
                () = replaced.cancelled() => {
                    Err(Status::aborted("a newer stream of this proxy took its place"))
                }
                () = stopped.cancelled() => Err(stopping()),
            };
            feed.close(&hello.proxy, stream);
            tracing::info!(proxy = %hello.proxy, "a proxy's stream ended");
            result
        }
        Err(status) => Err(status),
    };
    if let Err(status) = result {
        // One that does not read any more must not hold us.
        let _ = tokio::time::timeout(HELLO, out.send(Err(status))).await;
    }
}

fn stopping() -> Status {
    Status::unavailable("the agent stops; come again")
}

/// Challenges the proxy, and checks its answer.
async fn prove(
    feed: &Arc<Feed>,
    inbound: &mut Streaming<pb::FromProxy>,
    out: &Outbox,
) -> Result<pb::Hello, Status> {
    let mut nonce = vec![0; 32];
    OsRng
        .try_fill_bytes(&mut nonce)
        .map_err(|_| Status::internal("the system gives no randomness"))?;
    let challenge = pb::Challenge {
        nonce: nonce.clone(),
        agent_version: crate::VERSION.to_owned(),
        features: feed.parts.facts.features(),
    };
    send(out, To::Challenge(challenge)).await?;
    let first = tokio::time::timeout(HELLO, inbound.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no hello came in time"))??;
    let Some(From::Hello(hello)) = first.and_then(|first| first.message) else {
        return Err(Status::invalid_argument("the first message is not a hello"));
    };
    let judge = feed.clone();
    let judged = tokio::task::spawn_blocking(move || {
        let view = judge.parts.catalog.view();
        let revoked = revoked::of(&judge.parts.facts);
        let verifier = Verifier {
            tickets: &judge.parts.tickets,
            keys: &judge.parts.keys,
            facts: &judge.parts.facts,
            revoked: revoked.as_ref(),
            view: &view,
            now: judge.parts.clock.now(),
        };
        (verifier.verify(&nonce, &hello), hello)
    });
    let (verdict, hello) = judged
        .await
        .map_err(|_| Status::internal("the hello could not be checked"))?;
    let shown: String = hello.proxy.chars().take(200).collect();
    match verdict {
        Ok(proof) => {
            tracing::info!(proxy = %shown, ?proof, version = %hello.version, "a proxy's stream began");
            Ok(hello)
        }
        Err(refused) => {
            tracing::warn!(proxy = ?shown, reason = %refused, "a proxy's stream was refused");
            Err(match refused {
                // Who hears it has the key, and every sidecar has the list.
                Refused::Revoked => Status::permission_denied(
                    "the leaf of this key was revoked; start the proxy again, so that it gets a new \
                     ticket",
                ),
                it if it.may_pass() => {
                    Status::unavailable("the proof cannot be judged yet; come again")
                }
                _ => Status::unauthenticated(
                    "this proved nothing; start the proxy again, so that it gets a new ticket",
                ),
            })
        }
    }
}

async fn send(out: &Outbox, message: To) -> Result<(), Status> {
    let message = pb::ToProxy {
        message: Some(message),
    };
    let sent = out.send(Ok(message)).await;
    sent.map_err(|_| Status::cancelled("the proxy is gone"))
}

struct Session {
    feed: Arc<Feed>,
    proxy: String,
    /// The newest key that is known to be the proxy's by this stream.
    proved: Vec<u8>,
    stream: u64,
    out: Outbox,
    output: watch::Receiver<Compiled>,
    sent: Sent,
    allowance: Allowance,
    signing: Option<Signing>,
    questions: JoinSet<pb::DnsAnswer>,
    expected: Option<Expected>,
}

/// What a proxy's next config should have in it, and until when it is waited for.
struct Expected {
    /// None: what it wants is not said yet.
    wants: Option<Wants>,
    until: Instant,
}

/// What the proxy was sent last.
#[derive(Default)]
struct Sent {
    config: Option<Config>,
    config_serial: u64,
    roots: Option<Arc<Roots>>,
    roots_serial: u64,
    revocations: Option<Bytes>,
    revocations_serial: u64,
}

/// A leaf on its way. Dropped, it is not waited for any more.
struct Signing {
    result: tokio::sync::oneshot::Receiver<Result<Vec<Vec<u8>>, SignError>>,
    key: Vec<u8>,
    _cancel: tokio_util::sync::DropGuard,
}

impl Session {
    fn new(feed: Arc<Feed>, hello: &pb::Hello, stream: u64, out: Outbox) -> Self {
        let mut output = feed.parts.compiler.output(&hello.proxy);
        output.mark_changed();
        // One that has a leaf has run before.
        let is_back = !hello.leaf.is_empty() && !feed.parts.asked.has(&hello.proxy);
        let is_back = is_back && feed.is_transparent(&hello.proxy);
        Self {
            feed,
            proxy: hello.proxy.clone(),
            proved: hello.public_key.clone(),
            stream,
            out,
            output,
            sent: Sent::default(),
            allowance: Allowance::new(Instant::now()),
            signing: None,
            questions: JoinSet::new(),
            expected: is_back.then(|| Expected {
                wants: None,
                until: Instant::now() + PATIENCE,
            }),
        }
    }

    async fn run(mut self, mut inbound: Streaming<pb::FromProxy>) -> Result<(), Status> {
        let accepted = pb::Accepted {
            node: self.feed.parts.node.clone(),
        };
        send(&self.out, To::Accepted(accepted)).await?;
        loop {
            tokio::select! {
                message = inbound.message() => {
                    let Some(message) = message? else { return Ok(()) };
                    self.take(message).await?;
                }
                changed = self.output.changed() => {
                    changed.map_err(|_| {
                        Status::not_found("this proxy is no longer registered on this node")
                    })?;
                    self.supply().await?;
                }
                () = late(self.expected.as_ref()) => {
                    self.expected = None;
                    self.supply().await?;
                }
                Some(answer) = self.questions.join_next() => {
                    // One that was lost in a panic is not answered; who asked asks again.
                    if let Ok(answer) = answer {
                        send(&self.out, To::Dns(answer)).await?;
                    }
                }
                result = wait(&mut self.signing) => self.signed(result).await?,
            }
        }
    }

    /// Sends what changed of what the proxy is to run.
    async fn supply(&mut self) -> Result<(), Status> {
        let compiled = self.output.borrow_and_update().clone();
        if let Some(expected) = &self.expected {
            if expected.wants.as_ref() != Some(&*compiled.wants) {
                return Ok(());
            }
            self.expected = None;
        }
        let version = compiled.version.clone();
        // First: nothing runs before it is known who is not to be believed.
        if let Some(list) = &compiled.revocations
            && self.sent.revocations.as_ref() != Some(list)
        {
            self.sent.revocations_serial += 1;
            let serial = self.sent.revocations_serial;
            self.record(|record| record.sent_revocations(serial));
            let message = pb::Revocations {
                serial,
                list: list.to_vec(),
            };
            send(&self.out, To::Revocations(message)).await?;
            self.sent.revocations = Some(list.clone());
        }
        if let Some(roots) = &compiled.roots
            && self.sent.roots.as_ref() != Some(roots)
        {
            self.sent.roots_serial += 1;
            let serial = self.sent.roots_serial;
            let ids = roots.ids();
            self.record(|record| record.sent_roots(serial, ids));
            let message = pb::Roots {
                trust_domain: roots.trust_domain.clone(),
                roots: roots.certificates.clone(),
                serial,
                active: roots.active.clone(),
                reissue_seconds: roots.reissue_seconds,
            };
            send(&self.out, To::Roots(message)).await?;
            self.sent.roots = Some(roots.clone());
        }
        if let Some(config) = &compiled.config
            && self.sent.config.as_ref() != Some(config)
        {
            self.sent.config_serial += 1;
            let serial = self.sent.config_serial;
            let of = version.clone();
            self.record(|record| record.sent_config(serial, of));
            let message = pb::Config {
                serial,
                version: Some(version.into()),
                config: config.json.to_vec(),
                needs: config.needs.clone(),
            };
            send(&self.out, To::Config(message)).await?;
            self.sent.config = Some(config.clone());
        }
        self.record(|record| record.sent_all(compiled.generation));
        Ok(())
    }

    async fn take(&mut self, message: pb::FromProxy) -> Result<(), Status> {
        match message.message {
            Some(From::Hello(_)) => Err(Status::invalid_argument(
                "a second hello came on one stream",
            )),
            Some(From::Csr(csr)) => self.wish(csr.der).await,
            Some(From::Ack(ack)) => {
                self.acked(ack);
                Ok(())
            }
            Some(From::Wants(_) | From::Dns(_)) if !self.feed.is_transparent(&self.proxy) => Err(
                Status::failed_precondition("this sidecar is not transparent"),
            ),
            Some(From::Wants(wants)) => self.want(&wants),
            Some(From::Dns(question)) => self.question(question).await,
            // A newer proxy's; it knows from our features that we do not have it.
            None => Ok(()),
        }
    }

    fn acked(&self, ack: pb::Ack) {
        let bounded = |text: &str| text.chars().take(500).collect::<String>();
        let error = bounded(&ack.error);
        let strange = ack.not_understood.iter().take(64);
        let strange = strange.map(|text| bounded(text)).collect();
        self.record(|record| match ack.what {
            // Nobody can ack what was not sent.
            Some(pb::ack::What::Config(serial)) if serial <= self.sent.config_serial => {
                record.acked_config(serial, &error, strange);
            }
            Some(pb::ack::What::Roots(serial)) if serial <= self.sent.roots_serial => {
                record.acked_roots(serial, &error);
            }
            Some(pb::ack::What::Revocations(serial)) if serial <= self.sent.revocations_serial => {
                record.acked_revocations(serial, &error);
            }
            Some(pb::ack::What::LeafNotAfter(at)) => {
                let root = ack.leaf_root.get(..32).unwrap_or_default();
                record.acked_leaf(at, hex(root), &error);
            }
            _ => {}
        });
        if !error.is_empty() {
            tracing::warn!(proxy = %self.proxy, error, "a proxy does not run what it was sent");
        } else if matches!(ack.what, Some(pb::ack::What::Config(_))) {
            // It listens now, whatever its checks said before.
            self.feed
                .look_at(&self.proxy, |status| status != mesh_model::Status::Passing);
        }
    }

    /// What its application asked for; the next config answers.
    fn want(&mut self, said: &pb::Wants) -> Result<(), Status> {
        let wants = wants::read(said).map_err(|e| Status::invalid_argument(e.to_string()))?;
        if let Some(expected) = &mut self.expected {
            expected.wants = Some(wants.clone());
            // It may be compiled already.
            self.output.mark_changed();
        }
        let asked = &self.feed.parts.asked;
        if let Err(error) = asked.set(&self.proxy, self.stream, wants) {
            tracing::error!(proxy = %self.proxy, %error, "what a sidecar is asked for is not taken");
        }
        Ok(())
    }

    /// A question for the host's name servers.
    async fn question(&mut self, question: pb::DnsQuestion) -> Result<(), Status> {
        let id = question.id;
        if self.questions.len() >= MAX_QUESTIONS {
            let error = format!("{MAX_QUESTIONS} questions of this sidecar wait already");
            let message = Vec::new();
            return send(&self.out, To::Dns(pb::DnsAnswer { id, message, error })).await;
        }
        let dns = self.feed.parts.dns.clone();
        self.questions.spawn(async move {
            let (message, error) = match dns.ask(&question.message, Room::Whole).await {
                Ok(answer) => (answer, String::new()),
                Err(error) => (Vec::new(), error.to_string()),
            };
            pb::DnsAnswer { id, message, error }
        });
        Ok(())
    }

    /// A wish for a leaf; it takes the place of one on its way.
    async fn wish(&mut self, der: Vec<u8>) -> Result<(), Status> {
        if !self.allowance.take(Instant::now()) {
            let error = format!(
                "too many certificate requests; one is taken every {} ms",
                CSR_EVERY.as_millis()
            );
            return self.no_leaf(error).await;
        }
        let key = match csr::public_key(&der) {
            Ok(key) => key,
            Err(error) => return self.no_leaf(error.to_string()).await,
        };
        let (done, result) = tokio::sync::oneshot::channel();
        let cancel = CancellationToken::new();
        let (signer, proxy) = (self.feed.parts.signer.clone(), self.proxy.clone());
        let given_up = cancel.clone();
        tokio::spawn(async move {
            tokio::select! {
                it = signer.sign(&proxy, der) => drop(done.send(it)),
                () = given_up.cancelled() => {}
            }
        });
        self.signing = Some(Signing {
            result,
            key,
            _cancel: cancel.drop_guard(),
        });
        Ok(())
    }

    async fn signed(&mut self, result: Result<Vec<Vec<u8>>, SignError>) -> Result<(), Status> {
        let Some(signing) = self.signing.take() else {
            return Ok(());
        };
        match result {
            Ok(chain) => {
                // From now on the proxy may come with this key. Where that cannot be written, a
                // leaf is worth more than the memory of its key.
                let (feed, proxy) = (self.feed.clone(), self.proxy.clone());
                let (proved, key) = (self.proved.clone(), signing.key.clone());
                let kept =
                    tokio::task::spawn_blocking(move || feed.parts.keys.add(&proxy, &proved, &key));
                match kept.await {
                    Ok(Ok(true)) => self.proved = signing.key,
                    Ok(Err(error)) => {
                        tracing::error!(proxy = %self.proxy, %error, "a proxy's key cannot be remembered");
                    }
                    Ok(Ok(false)) | Err(_) => {
                        return Err(Status::aborted(
                            "another start of this proxy took its place, or it is gone",
                        ));
                    }
                }
                let error = String::new();
                send(&self.out, To::Leaf(pb::Leaf { chain, error })).await
            }
            Err(error) => self.no_leaf(error.to_string()).await,
        }
    }

    async fn no_leaf(&self, error: String) -> Result<(), Status> {
        tracing::warn!(proxy = %self.proxy, error, "a proxy gets no leaf");
        let chain = Vec::new();
        send(&self.out, To::Leaf(pb::Leaf { chain, error })).await
    }

    fn record(&self, change: impl FnOnce(&mut super::records::Record)) {
        self.feed
            .parts
            .records
            .change_of(&self.proxy, self.stream, change);
    }
}

/// When what is expected is waited for no longer.
async fn late(expected: Option<&Expected>) {
    match expected {
        Some(expected) => tokio::time::sleep_until(expected.until).await,
        None => std::future::pending().await,
    }
}

/// The result of what is being signed; pending while nothing is.
async fn wait(signing: &mut Option<Signing>) -> Result<Vec<Vec<u8>>, SignError> {
    match signing {
        Some(signing) => (&mut signing.result)
            .await
            .unwrap_or_else(|_| Err(SignError::new("the agent stops; ask again"))),
        None => std::future::pending().await,
    }
}

/// A bucket of wishes that fills with time.
struct Allowance {
    left: u32,
    at: Instant,
}

impl Allowance {
    fn new(at: Instant) -> Self {
        Self {
            left: CSR_BURST,
            at,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        while self.left < CSR_BURST && self.at + CSR_EVERY <= now {
            self.left += 1;
            self.at += CSR_EVERY;
        }
        if self.left == CSR_BURST {
            self.at = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_limited() {
        let begin = Instant::now();
        let mut allowance = Allowance::new(begin);
        let taken = (0..20).filter(|_| allowance.take(begin)).count();
        assert_eq!(taken, 10);
        assert!(!allowance.take(begin + CSR_EVERY / 2));
        assert!(allowance.take(begin + CSR_EVERY));
        assert!(!allowance.take(begin + CSR_EVERY));
        let later = begin + CSR_EVERY * 100;
        assert_eq!((0..20).filter(|_| allowance.take(later)).count(), 10);
    }
}
