//! One request under way: what is known and counted of it, and how it can be
//! ended from elsewhere.
//!
//! It is the only thing that is allocated for telemetry and policy together.
//! It watches the bodies of its request and its answer, and is over when the
//! answer's body is.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Method, StatusCode};
use mesh_balance::Outcome;
use mesh_model::Key;
use mesh_policy::Decider;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::cut::{Cut, CutCell};
use crate::flow::intention_of;
use crate::http::{Answer, BodyError, End, Side, Watcher};
use crate::inbound::Caller;
use crate::outbound::Pick;
use crate::peer::Carried;
use crate::telemetry::{HttpRecord, HttpSeries, TraceId};
use crate::worker::Worker;

/// What is counted for a request whose caller went before there was an answer.
const CALLER_GONE: u16 = 499;

/// One request under way.
pub(crate) struct Exchange {
    worker: Rc<Worker>,
    series: RefCell<Rc<HttpSeries>>,
    method: Method,
    /// Normal, once it is known.
    target: RefCell<PathAndQuery>,
    began: Instant,
    trace: Cell<Option<TraceId>>,
    status: Cell<u16>,
    grpc_status: Cell<Option<u32>>,
    request_bytes: Cell<u64>,
    response_bytes: Cell<u64>,
    retries: Cell<u32>,
    rule: RefCell<Option<Arc<str>>>,
    instance: RefCell<Option<Arc<str>>>,
    reason: RefCell<String>,
    /// Of a request from another sidecar: what its policy is asked.
    asked: RefCell<Option<Rc<Asked>>>,
    /// The instance that has it, until it is over.
    pick: RefCell<Option<Pick>>,
    /// The connection that carries it, where that carries others as well.
    carried: RefCell<Option<Carried>>,
    /// Since when a connection to that instance is being made.
    connecting: Cell<Option<Instant>>,
    deadline: RefCell<Deadline>,
    cut: CutCell,
    /// The same for the request's body, which another task reads.
    cut_request: CutCell,
    place: Cell<Option<usize>>,
    own_answer: Cell<bool>,
    over: Cell<bool>,
}

/// When the whole of a request must be over.
#[derive(Default)]
enum Deadline {
    #[default]
    None,
    /// Nobody waits for it yet. Most requests end long before, and a timer costs more than the
    /// rest of a request's bookkeeping.
    At(Instant),
    Waited(Pin<Box<Sleep>>),
}

/// A deadline that is nearer is waited for at once.
const NEAR: Duration = Duration::from_millis(200);
/// The others are waited for from so long after their request on, or a little earlier. It must be
/// less than [`NEAR`].
pub(crate) const ARMED_AFTER: Duration = Duration::from_millis(100);

/// Who asked for what, to be asked of the policy again.
pub(crate) struct Asked {
    pub(crate) caller: Rc<Caller>,
    /// Only where permissions decided.
    pub(crate) headers: Option<HeaderMap>,
    path: PathAndQuery,
}

impl Asked {
    pub(crate) fn source(&self) -> &Key {
        &self.caller.key
    }
}

impl Exchange {
    pub(crate) fn begin(
        worker: &Rc<Worker>,
        series: Rc<HttpSeries>,
        head: &http::request::Parts,
    ) -> Rc<Self> {
        worker.live.open(series.direction()).request_began();
        let target = head.uri.path_and_query().cloned();
        Rc::new(Self {
            worker: worker.clone(),
            series: RefCell::new(series),
            method: head.method.clone(),
            target: RefCell::new(target.unwrap_or_else(|| PathAndQuery::from_static("/"))),
            began: Instant::now(),
            trace: Cell::new(None),
            status: Cell::new(0),
            grpc_status: Cell::new(None),
            request_bytes: Cell::new(0),
            response_bytes: Cell::new(0),
            retries: Cell::new(0),
            rule: RefCell::default(),
            instance: RefCell::default(),
            reason: RefCell::default(),
            asked: RefCell::default(),
            pick: RefCell::default(),
            carried: RefCell::default(),
            connecting: Cell::new(None),
            deadline: RefCell::default(),
            cut: CutCell::default(),
            cut_request: CutCell::default(),
            place: Cell::new(None),
            own_answer: Cell::new(false),
            over: Cell::new(false),
        })
    }

    /// Lets the policy end it later.
    pub(crate) fn watch_policy(self: &Rc<Self>, caller: Rc<Caller>, headers: Option<HeaderMap>) {
        *self.asked.borrow_mut() = Some(Rc::new(Asked {
            caller,
            headers,
            path: self.target.borrow().clone(),
        }));
        self.watch();
    }

    /// Lets it be ended with all that goes through the mesh.
    pub(crate) fn watch(self: &Rc<Self>) {
        self.place.set(Some(self.worker.live.add_exchange(self)));
        if self.worker.has_expired() {
            self.cut(Cut::OwnExpired);
        }
    }

    pub(crate) fn asked(&self) -> Option<Rc<Asked>> {
        self.asked.borrow().clone()
    }

    pub(crate) fn set_target(&self, target: PathAndQuery) {
        *self.target.borrow_mut() = target;
    }

    pub(crate) fn set_trace(&self, trace: TraceId) {
        self.trace.set(Some(trace));
    }

    pub(crate) fn set_series(&self, series: Rc<HttpSeries>) {
        *self.series.borrow_mut() = series;
    }

    pub(crate) fn set_rule(&self, rule: &Arc<str>) {
        if self.worker.log.is_on() {
            *self.rule.borrow_mut() = Some(rule.clone());
        }
    }

    pub(crate) fn set_reason(&self, reason: impl Into<String>) {
        *self.reason.borrow_mut() = reason.into();
    }

    /// Remembers and counts that an intention denies it.
    pub(crate) fn denied(&self, by: &Decider) {
        self.set_reason(format!("denied by {by}"));
        let series = self.series.borrow();
        let (source, destination) = (series.source(), series.destination());
        let metrics = &self.worker.metrics;
        metrics.denied(source, destination, &intention_of(by));
        let path = self.target.borrow();
        let what = format!("{} {}", self.method, path.path());
        let worker = &self.worker;
        worker.say_denied(source, destination, &what, &self.reason.borrow());
    }

    pub(crate) fn reason(&self) -> String {
        self.reason.borrow().clone()
    }

    pub(crate) fn set_grpc_status(&self, status: Option<u32>) {
        self.grpc_status.set(status);
    }

    /// The instance that is to answer it; it learns how it went at the end.
    pub(crate) fn set_pick(&self, pick: Pick) {
        if self.worker.log.is_on() {
            *self.instance.borrow_mut() = Some(pick.id().clone());
        }
        *self.pick.borrow_mut() = Some(pick);
    }

    /// A connection to that instance is being made.
    pub(crate) fn connecting(&self) {
        self.connecting.set(Some(Instant::now()));
    }

    /// There is a connection to that instance.
    pub(crate) fn connected(&self) {
        self.connecting.set(None);
        if let Some(pick) = &*self.pick.borrow() {
            pick.connected(self.worker.now());
        }
    }

    /// It is sent on a connection that carries others as well.
    pub(crate) fn set_carried(&self, carried: Carried) {
        *self.carried.borrow_mut() = Some(carried);
    }

    /// The time of the whole is over; gives back whether that was because the
    /// instance could not be connected to.
    pub(crate) fn timed_out(&self) -> bool {
        let Some(pick) = self.take_pick() else {
            return false;
        };
        let outcome = match self.connecting.get() {
            None => Outcome::Timeout,
            Some(since) if since.elapsed() * 2 >= self.began.elapsed() => Outcome::ConnectFailure,
            // Most of the time went elsewhere, and little was left for it.
            Some(_) => Outcome::Cancelled,
        };
        pick.done(outcome);
        outcome == Outcome::ConnectFailure
    }

    /// The instance that has it, when it is to be tried elsewhere or has
    /// failed.
    pub(crate) fn take_pick(&self) -> Option<Pick> {
        self.pick.borrow_mut().take()
    }

    pub(crate) fn retried(&self) {
        self.retries.set(self.retries.get() + 1);
    }

    /// Within which time from now the whole of it must be over.
    pub(crate) fn set_deadline(&self, limit: Duration) {
        let at = Instant::now() + limit;
        let deadline = match limit < NEAR {
            true => Deadline::Waited(Box::pin(sleep_until(at))),
            false => {
                self.worker.live.deadline_set();
                Deadline::At(at)
            }
        };
        *self.deadline.borrow_mut() = deadline;
    }

    /// Has it waited for its deadline from now on, if it has one.
    pub(crate) fn arm(&self) {
        let mut deadline = self.deadline.borrow_mut();
        if let Deadline::At(at) = *deadline {
            *deadline = Deadline::Waited(Box::pin(sleep_until(at)));
            drop(deadline);
            self.cut.wake(); // who is woken asks for the deadline too
        }
    }

    pub(crate) fn clear_deadline(&self) {
        *self.deadline.borrow_mut() = Deadline::None;
    }

    pub(crate) fn poll_deadline(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self.deadline.borrow_mut() {
            Deadline::Waited(deadline) => deadline.as_mut().poll(cx),
            Deadline::At(_) | Deadline::None => Poll::Pending,
        }
    }

    pub(crate) fn cut(&self, why: Cut) {
        self.cut.cut(why);
        self.cut_request.cut(why);
    }

    pub(crate) fn cut_cell(&self) -> &CutCell {
        &self.cut
    }

    /// The answer begins: from now on it is over when the answer's body is.
    pub(crate) fn answered(self: &Rc<Self>, answer: &mut Answer) {
        self.status.set(answer.head.status.as_u16());
        if answer.head.status == StatusCode::SWITCHING_PROTOCOLS {
            return; // what comes is the tunnel's
        }
        if answer.body.is_bulk()
            && let Some(carried) = &*self.carried.borrow()
        {
            carried.set_bulk(true);
        }
        answer.body.watch(self.clone(), Side::Response);
    }

    /// The answer is the proxy's own: nothing cuts it. A status is counted that
    /// may not be the one in it.
    pub(crate) fn answered_as(self: &Rc<Self>, status: u16, mut answer: Answer) -> Answer {
        self.own_answer.set(true);
        self.answered(&mut answer);
        self.status.set(status);
        answer
    }

    /// The connection becomes a tunnel: it is over when that is.
    pub(crate) fn tunnelled(&self) {
        self.status.set(101);
        self.clear_deadline();
    }

    /// Bytes of a tunnel.
    pub(crate) fn count(&self, side: Side, bytes: usize) {
        let cell = match side {
            Side::Request => &self.request_bytes,
            Side::Response => &self.response_bytes,
        };
        cell.set(cell.get() + bytes as u64);
        if let Some(carried) = &*self.carried.borrow() {
            carried.passed(bytes);
        }
    }

    fn finish(&self, outcome: Outcome) {
        if self.over.replace(true) {
            return;
        }
        let status = match self.status.get() {
            0 => CALLER_GONE,
            status => status,
        };
        let series = self.series.borrow();
        self.worker.live.open(series.direction()).request_ended();
        let took = self.began.elapsed();
        series.count(status);
        series.duration.observe(took);
        series.request_bytes.add(self.request_bytes.get());
        series.response_bytes.add(self.response_bytes.get());
        if let Some(pick) = self.pick.borrow_mut().take() {
            pick.done(outcome);
        }
        if self.worker.log.is_on() {
            self.log(&series, status, took);
        }
    }

    fn log(&self, series: &HttpSeries, status: u16, took: Duration) {
        let trace = self.trace.get();
        let (rule, instance) = (self.rule.borrow(), self.instance.borrow());
        self.worker.log.http(&HttpRecord {
            direction: series.direction(),
            source: series.source(),
            destination: series.destination(),
            instance: instance.as_deref().unwrap_or_default(),
            protocol: series.protocol(),
            method: self.method.as_str(),
            path: self.target.borrow().path(),
            status,
            duration: took,
            request_bytes: self.request_bytes.get(),
            response_bytes: self.response_bytes.get(),
            trace_id: trace.as_ref().map_or("", TraceId::as_str),
            rule: rule.as_deref().unwrap_or_default(),
            retries: self.retries.get(),
            reason: &self.reason.borrow(),
        });
    }

    /// How it went by its status.
    fn answer_outcome(&self) -> Outcome {
        outcome_of(self.status.get(), self.grpc_status.get())
    }
}

/// How an answer counts for the instance that gave it. Of gRPC's statuses those
/// count that Envoy maps to 5xx, but for "unimplemented", which is the caller's
/// mistake.
pub(crate) fn outcome_of(status: u16, grpc: Option<u32>) -> Outcome {
    match (status, grpc) {
        (500..=599, _) | (_, Some(2 | 4 | 13 | 14 | 15)) => Outcome::ServerError,
        _ => Outcome::Success,
    }
}

/// The status of gRPC in headers or trailers.
pub(crate) fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    const STATUS: HeaderName = HeaderName::from_static("grpc-status");
    headers.get(STATUS)?.to_str().ok()?.parse().ok()
}

impl Asked {
    pub(crate) fn path(&self) -> &PathAndQuery {
        &self.path
    }
}

impl Exchange {
    pub(crate) fn method(&self) -> &str {
        self.method.as_str()
    }
}

impl Watcher for Exchange {
    fn data(&self, side: Side, bytes: usize) {
        self.count(side, bytes);
    }

    fn trailers(&self, side: Side, trailers: &HeaderMap) {
        if side == Side::Response
            && let Some(status) = grpc_status(trailers)
        {
            self.grpc_status.set(Some(status));
        }
    }

    fn ended(&self, side: Side, end: End<'_>) {
        if side == Side::Request {
            return;
        }
        let outcome = match end {
            End::Complete => self.answer_outcome(),
            End::Failed(BodyError::Source(_)) => Outcome::Reset,
            End::Failed(BodyError::Cut(_)) => match self.cut.get() {
                Some(_) => Outcome::Cancelled,
                None => Outcome::Timeout,
            },
            End::Dropped => Outcome::Cancelled,
        };
        if let End::Failed(error) = end
            && self.reason.borrow().is_empty()
        {
            self.set_reason(error.to_string());
        }
        self.finish(outcome);
    }

    fn poll_cut(&self, side: Side, cx: &mut Context<'_>) -> Poll<BodyError> {
        if side == Side::Request {
            // Of all else the application learns by the end of its answer.
            return match self.cut_request.poll(cx) {
                Poll::Ready(why @ (Cut::Denied | Cut::Revoked)) => {
                    Poll::Ready(BodyError::Cut(why.why()))
                }
                _ => Poll::Pending,
            };
        }
        if self.own_answer.get() {
            return Poll::Pending;
        }
        if let Poll::Ready(why) = self.cut.poll(cx) {
            return Poll::Ready(BodyError::Cut(why.why()));
        }
        self.poll_deadline(cx)
            .map(|()| BodyError::Cut("cut: the request's time is over"))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.finish(Outcome::Cancelled);
        // Not before: a body may be sent on after the answer's end.
        if let Some(place) = self.place.take() {
            self.worker.live.remove_exchange(place);
        }
    }
}
