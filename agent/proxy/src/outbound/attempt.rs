//! Getting an answer from some instance.
//!
//! A *try* is one request to one instance. Where an instance cannot be
//! connected to, the try goes to another one at once, since nothing was sent; a
//! route's retries are about what was sent. A retry goes to an instance that
//! was not tried, where there is one, and is not made when the budget says that
//! the service has trouble enough.

use std::rc::Rc;
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderValue, StatusCode, request};
use mesh_balance::{Outcome, Token};
use rand::Rng;
use tokio::time::{Instant, sleep, timeout_at};

use super::ClusterState;
use super::cluster::Instance;
use super::repeat::Repeatable;
use crate::config::{Cluster, RetryRule, TryOutcome};
use crate::engine::h2_client::NoAnswer;
use crate::engine::{SendError, SendErrorKind};
use crate::exchange::{Exchange, grpc_status, outcome_of};
use crate::http::{Answer, Body, Call, Trouble, clean_response};
use crate::peer::{DialError, DialKind, Dialing, HttpClient};
use crate::target;
use crate::worker::Worker;

/// How many instances a try goes to before it has failed.
const CONNECTS: usize = 4;
/// How often a try begins anew because an instance did not process it: it
/// drains, or its warm connection had just ended.
const REFUSALS: usize = 3;
/// The wait before a retry is drawn from up to this, doubled each time.
const BACKOFF: Duration = Duration::from_millis(25);
const MAX_BACKOFF: Duration = Duration::from_millis(250);

/// What a request needs to be tried.
pub(super) struct Attempt<'a> {
    pub(super) worker: &'a Worker,
    pub(super) cluster: &'a Rc<ClusterState>,
    pub(super) config: &'a Cluster,
    pub(super) retries: Option<&'a RetryRule>,
    pub(super) exchange: &'a Rc<Exchange>,
    /// What the request wants to become.
    pub(super) upgrade: Option<HeaderValue>,
    /// Its body is known to be long.
    pub(super) bulk: bool,
}

/// A try that has no answer.
struct Failed {
    outcome: TryOutcome,
    trouble: Trouble,
}

impl Attempt<'_> {
    /// `call` has the form of HTTP/2, which its connection mostly has.
    pub(super) async fn run(&self, call: &mut Call) -> Result<Answer, Trouble> {
        self.cluster.request();
        let request = Repeatable::new(call, self.retries.is_some());
        let mut tried = Vec::new();
        let attempts = self.retries.map_or(0, |rule| rule.attempts);
        for retry in 0..=attempts {
            let failed = match self.one_try(&request, &mut tried).await {
                Err(failed) => failed,
                Ok(mut answer) => {
                    let status = answer.head.status.as_u16();
                    let grpc = grpc_status(&answer.head.headers);
                    let outcome = TryOutcome::Answer { status, grpc };
                    if retry == attempts || !self.may_repeat(outcome, &request) {
                        request.forget();
                        self.take(&mut answer, grpc);
                        return Ok(answer);
                    }
                    request.stop();
                    self.learn(outcome_of(status, grpc));
                    drop(answer);
                    self.wait(retry, outcome).await;
                    continue;
                }
            };
            if retry == attempts || !self.may_repeat(failed.outcome, &request) {
                return Err(failed.trouble);
            }
            self.wait(retry, failed.outcome).await;
        }
        Err(Trouble::unavailable("no try was made")) // there is always one
    }

    /// Whether to try again after this; counts the retry.
    fn may_repeat(&self, outcome: TryOutcome, request: &Repeatable<'_>) -> bool {
        let wanted = self.retries.is_some_and(|rule| rule.wants(outcome));
        let may = wanted && request.is_whole() && self.cluster.may_retry();
        if may {
            self.cluster.retries().inc();
            self.exchange.retried();
        }
        may
    }

    async fn wait(&self, retry: u32, outcome: TryOutcome) {
        // What never arrived made no load.
        if matches!(outcome, TryOutcome::ConnectFailure | TryOutcome::Refused) {
            return;
        }
        let most = (BACKOFF * 2_u32.saturating_pow(retry.min(8))).min(MAX_BACKOFF);
        let part = self.worker.random.borrow_mut().random_range(0.5..=1.0);
        sleep(most.mul_f64(part)).await;
    }

    /// One try.
    async fn one_try(
        &self,
        request: &Repeatable<'_>,
        tried: &mut Vec<Token>,
    ) -> Result<Answer, Failed> {
        let config = self.config;
        let deadline = self
            .retries
            .and_then(|rule| rule.per_try_timeout)
            .map(|limit| (Instant::now() + limit, limit));
        let mut refusals = 0;
        loop {
            let (token, instance, client) = self.connect(tried, deadline).await?;
            let Some(body) = request.body() else {
                let trouble = Trouble::unavailable("the request's body was sent already");
                let outcome = TryOutcome::Reset;
                return Err(Failed { outcome, trouble });
            };
            let sent = match deadline {
                None => self.send(client, request.head, body).await,
                Some((deadline, limit)) => {
                    let sending = timeout_at(deadline, self.send(client, request.head, body));
                    match Box::pin(sending).await {
                        Ok(sent) => sent,
                        Err(_) => {
                            request.stop();
                            let trouble = no_answer(config, &instance.endpoint.id, limit);
                            self.learn(Outcome::Timeout);
                            let outcome = TryOutcome::Timeout;
                            return Err(Failed { outcome, trouble });
                        }
                    }
                }
            };
            let sent = sent.inspect_err(|_| request.stop());
            match sent {
                Ok(answer) => return Ok(answer),
                // Not processed: as if it had never been sent.
                Err((error, unsent))
                    if error.kind == SendErrorKind::Refused
                        && refusals < REFUSALS
                        && request.is_whole() =>
                {
                    refusals += 1;
                    // The same one only over another connection.
                    if unsent {
                        tried.retain(|one| Some(*one) != token);
                    }
                    self.learn(Outcome::Cancelled);
                }
                Err((error, _)) => {
                    let (failed, learned) = ended_early(config, &instance.endpoint.id, &error);
                    self.learn(learned);
                    return Err(failed);
                }
            }
        }
    }

    /// Tells the instance that has the request how it went.
    fn learn(&self, outcome: Outcome) {
        if let Some(pick) = self.exchange.take_pick() {
            pick.done(outcome);
        }
    }

    /// A connection to an instance that takes it; the exchange has the choice.
    async fn connect(
        &self,
        tried: &mut Vec<Token>,
        deadline: Option<(Instant, Duration)>,
    ) -> Result<(Option<Token>, Rc<Instance>, HttpClient), Failed> {
        let config = self.config;
        let mut failure: Option<Trouble> = None;
        for connect in 0..CONNECTS {
            let is_over = deadline.is_some_and(|(at, _)| at <= Instant::now());
            if is_over && connect > 0 {
                break; // another instance would be blamed for this one
            }
            let now = self.worker.now();
            let Some(pick) = self.cluster.pick(tried, now) else {
                failure = failure.or_else(|| Some(Trouble::unavailable(no_instance(config))));
                break;
            };
            let token = pick.token();
            let again = token.is_some_and(|token| tried.contains(&token));
            if again && connect > 0 {
                break; // all were tried
            }
            if !again {
                tried.extend(token);
            }
            let instance = pick.instance().clone();
            if self.upgrade.is_none()
                && let Some(client) = instance.peer.warm(self.bulk)
            {
                pick.connected(now);
                self.exchange.set_pick(pick);
                return Ok((token, instance, client));
            }
            // From here on it learns also when the time of the whole is over.
            self.exchange.set_pick(pick);
            self.exchange.connecting();
            let left = deadline.map(|(at, _)| at.saturating_duration_since(Instant::now()));
            let dialing = Dialing {
                worker: self.worker,
                name: &config.sni,
                limit: left.map_or(config.connect_timeout, |left| {
                    left.min(config.connect_timeout)
                }),
            };
            let connected = match self.upgrade {
                Some(_) => instance.peer.http1(&dialing).await,
                None => instance.peer.http(&dialing, self.bulk).await,
            };
            match connected {
                Ok(client) => {
                    self.exchange.connected();
                    return Ok((token, instance, client));
                }
                Err(error) => {
                    let service = config.service.to_string();
                    let metrics = &self.worker.metrics;
                    metrics.connect_failed(&service, error.kind.as_str());
                    let trouble = not_connected(config, &instance, &error);
                    self.say_refused(&error, &trouble);
                    failure = Some(trouble);
                    self.learn(Outcome::ConnectFailure);
                }
            }
        }
        let trouble = failure.unwrap_or_else(|| Trouble::unavailable(no_instance(config)));
        let outcome = TryOutcome::ConnectFailure;
        Err(Failed { outcome, trouble })
    }

    /// Says in the log that who answered was refused, whatever the access log is: that is no
    /// instance that is merely down.
    fn say_refused(&self, error: &DialError, trouble: &Trouble) {
        if matches!(error.kind, DialKind::Identity | DialKind::Tls)
            && let Some(kept_back) = self.worker.dials.may_say(std::time::Instant::now())
        {
            tracing::warn!(reason = trouble.what, kept_back, "an instance was refused");
        }
    }

    /// The error says how it went, and whether nothing was sent.
    async fn send(
        &self,
        client: HttpClient,
        head: &request::Parts,
        body: Body,
    ) -> Result<Answer, (SendError, bool)> {
        match client {
            HttpClient::H2(client, carried) => {
                self.exchange.set_carried(carried);
                match client.ask(head, body).await {
                    Ok(answer) => Ok(answer),
                    Err(NoAnswer::Sent(error)) => Err((error, false)),
                    Err(NoAnswer::Unsent(error, _)) => Err((error, true)),
                }
            }
            // Boxed, since it is rare: what it needs is not held by all.
            HttpClient::H1(client, pool) => {
                let sent = Box::pin(client.send(self.http1(head, body), pool)).await;
                sent.map_err(|mut error| {
                    let unsent = error.call.take().is_some();
                    (error, unsent)
                })
            }
        }
    }

    /// The request in the form of HTTP/1.1.
    fn http1(&self, head: &request::Parts, body: Body) -> Call {
        let mut head = head.clone();
        let path = head.uri.path_and_query().cloned();
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let authority = head.uri.authority().cloned();
        target::for_http1(&mut head, path, authority, &self.config.service);
        if let Some(upgrade) = &self.upgrade {
            let option = HeaderValue::from_static("upgrade");
            head.headers.insert(CONNECTION, option);
            head.headers.insert(UPGRADE, upgrade.clone());
        }
        Call {
            head,
            body,
            upgrade: None,
        }
    }

    /// An answer that the application gets.
    fn take(&self, answer: &mut Answer, grpc: Option<u32>) {
        if answer.head.status != StatusCode::SWITCHING_PROTOCOLS {
            clean_response(&mut answer.head.headers);
        }
        self.exchange.set_grpc_status(grpc);
    }
}

/// For logs and errors.
pub(super) fn no_instance(config: &Cluster) -> String {
    let service = &config.service;
    let what = match config.name.as_ref() {
        name if name == service.to_string() => format!("{service}: no instance is known"),
        name => format!("{service}: no instance of {name} is known"),
    };
    match config.endpoints.is_empty() {
        true => format!("{what}; is one registered, with a sidecar, and passing its checks?"),
        false => format!("{what} that may be used; do they all have weight 0?"),
    }
}

fn not_connected(config: &Cluster, instance: &Instance, error: &DialError) -> Trouble {
    let service = &config.service;
    let (id, address) = (&instance.endpoint.id, &instance.endpoint.address);
    Trouble::unavailable(match error.kind {
        DialKind::Identity => format!(
            "{service}: at {address} (instance {id}) somebody else answers: {error}; \
             has its port been given to another?"
        ),
        _ => format!(
            "{service}: no instance took the connection; the last one, {id} at {address}: {error}"
        ),
    })
}

/// What it means for the caller, and what for the instance.
fn ended_early(config: &Cluster, id: &str, error: &SendError) -> (Failed, Outcome) {
    let service = &config.service;
    let what = &error.what;
    let (outcome, learned, trouble) = match error.kind {
        SendErrorKind::Refused => (
            TryOutcome::Refused,
            Outcome::Cancelled,
            Trouble::unavailable(format!(
                "{service}: instance {id} did not take the request: {what}"
            )),
        ),
        SendErrorKind::Reset => (
            TryOutcome::Reset,
            Outcome::Reset,
            Trouble::new(
                StatusCode::BAD_GATEWAY,
                format!("{service}: instance {id} ended the connection before it answered: {what}"),
            ),
        ),
        SendErrorKind::Malformed => (
            TryOutcome::Reset,
            Outcome::Reset,
            Trouble::new(
                StatusCode::BAD_GATEWAY,
                format!("{service}: instance {id} does not answer in HTTP: {what}"),
            ),
        ),
        SendErrorKind::Body => (
            TryOutcome::Reset,
            Outcome::Cancelled,
            Trouble::bad_request("the request's body broke off"),
        ),
    };
    (Failed { outcome, trouble }, learned)
}

fn no_answer(config: &Cluster, id: &str, limit: Duration) -> Trouble {
    Trouble::timeout(format!(
        "{}: no answer from instance {id} within {} ms, the per_try_timeout",
        config.service,
        limit.as_millis()
    ))
}
