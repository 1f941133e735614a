//! The proxy's metrics, and handles on their series.
//!
//! A handle is looked up when a connection or a config comes, never for a
//! request; only an HTTP status that a pair has not had before makes a new
//! series.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::Direction;
use super::registry::{Metric, Registry};
use super::value::{Counter, Gauge, Histogram};

macro_rules! metrics {
    ($($id:ident = $name:literal, $help:literal, [$($label:literal),*];)*) => {
        $(pub(super) static $id: Metric = Metric { name: $name, help: $help, labels: &[$($label),*] };)*
    };
}

metrics! {
    REQUESTS = "mesh_requests_total", "Requests that ended, by HTTP status.",
        ["direction", "source", "destination", "protocol", "code"];
    DURATION = "mesh_request_duration_seconds", "From a request's head to the end of its answer.",
        ["direction", "source", "destination", "protocol"];
    REQUEST_BYTES = "mesh_request_bytes_total", "Bytes of request bodies, and of byte streams from the caller.",
        ["direction", "source", "destination", "protocol"];
    RESPONSE_BYTES = "mesh_response_bytes_total", "Bytes of answers' bodies, and of byte streams to the caller.",
        ["direction", "source", "destination", "protocol"];
    CONNECTIONS = "mesh_connections_total", "Byte streams and connections that began.",
        ["direction", "source", "destination", "protocol"];
    ACTIVE = "mesh_connections_active", "Byte streams and connections that are open.",
        ["direction", "source", "destination", "protocol"];
    DENIED = "mesh_denied_total", "Requests and byte streams that an intention denied.",
        ["source", "destination", "intention"];
    RETRIES = "mesh_retries_total", "Requests that were tried again.",
        ["destination"];
    CONNECT_FAILURES = "mesh_upstream_connect_failures_total", "Connections to an instance that could not be made.",
        ["destination", "reason"];
    HANDSHAKE_FAILURES = "mesh_tls_handshake_failures_total", "TLS handshakes of callers that failed.",
        ["reason"];
    REVOKED_CUT = "mesh_revoked_connections_cut_total", "Connections that were cut, since the other end's certificate was revoked.", [];
    DNS = "mesh_dns_questions_total", "DNS questions of the application, by what became of them.",
        ["answer"];
    LEAF_EXPIRY = "mesh_leaf_expiry_timestamp_seconds", "When the certificate expires, in seconds since 1970.", [];
    LOG_DROPPED = "mesh_access_log_dropped_total", "Lines of the access log that a slow reader lost.", [];
    ERRORS_DROPPED = "mesh_log_dropped_total", "Lines of the log on standard error that a slow reader lost.", [];
}

/// The metrics of the thread beside the workers.
pub(crate) struct DnsMetrics(Arc<Registry>);

impl DnsMetrics {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self(registry)
    }

    /// Counts a question.
    pub(crate) fn answered(&self, how: &'static str) {
        self.0.counter(&DNS, &[how]).inc();
    }
}

/// The metrics of one worker.
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    http: RefCell<HashMap<Pair, Rc<HttpSeries>>>,
    streams: RefCell<HashMap<Pair, Rc<StreamSeries>>>,
}

type Pair = (Direction, String, String, &'static str);

/// The series of HTTP between a pair.
pub(crate) struct HttpSeries {
    registry: Arc<Registry>,
    labels: Pair,
    codes: RefCell<Vec<(u16, Arc<Counter>)>>,
    pub(crate) duration: Arc<Histogram>,
    pub(crate) request_bytes: Arc<Counter>,
    pub(crate) response_bytes: Arc<Counter>,
}

/// The series of byte streams, or of connections, between a pair.
pub(crate) struct StreamSeries {
    labels: Pair,
    total: Arc<Counter>,
    active: Arc<Gauge>,
    pub(crate) request_bytes: Arc<Counter>,
    pub(crate) response_bytes: Arc<Counter>,
}

impl Metrics {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            http: RefCell::default(),
            streams: RefCell::default(),
        }
    }

    pub(crate) fn http(
        &self,
        direction: Direction,
        source: &str,
        destination: &str,
        protocol: &'static str,
    ) -> Rc<HttpSeries> {
        let pair = (
            direction,
            source.to_owned(),
            destination.to_owned(),
            protocol,
        );
        let mut all = self.http.borrow_mut();
        let make = |pair: &Pair| Rc::new(HttpSeries::new(&self.registry, pair.clone()));
        all.entry(pair).or_insert_with_key(make).clone()
    }

    pub(crate) fn streams(
        &self,
        direction: Direction,
        source: &str,
        destination: &str,
        protocol: &'static str,
    ) -> Rc<StreamSeries> {
        let pair = (
            direction,
            source.to_owned(),
            destination.to_owned(),
            protocol,
        );
        let mut all = self.streams.borrow_mut();
        let make = |pair: &Pair| Rc::new(StreamSeries::new(&self.registry, pair.clone()));
        all.entry(pair).or_insert_with_key(make).clone()
    }

    /// Forgets the handles that nobody holds; their series stay.
    pub(crate) fn forget_unused(&self) {
        self.http
            .borrow_mut()
            .retain(|_, one| Rc::strong_count(one) > 1);
        self.streams
            .borrow_mut()
            .retain(|_, one| Rc::strong_count(one) > 1);
    }

    pub(crate) fn denied(&self, source: &str, destination: &str, intention: &str) {
        self.registry
            .counter(&DENIED, &[source, destination, intention])
            .inc();
    }

    pub(crate) fn retries(&self, destination: &str) -> Arc<Counter> {
        self.registry.counter(&RETRIES, &[destination])
    }

    pub(crate) fn connect_failed(&self, destination: &str, reason: &str) {
        self.registry
            .counter(&CONNECT_FAILURES, &[destination, reason])
            .inc();
    }

    pub(crate) fn cut_revoked(&self) {
        self.registry.counter(&REVOKED_CUT, &[]).inc();
    }

    pub(crate) fn handshake_failed(&self, reason: &str) {
        self.registry.counter(&HANDSHAKE_FAILURES, &[reason]).inc();
    }
}

impl HttpSeries {
    fn new(registry: &Arc<Registry>, labels: Pair) -> Self {
        let of = |pair: &Pair| -> [String; 4] {
            [
                pair.0.as_str().to_owned(),
                pair.1.clone(),
                pair.2.clone(),
                pair.3.to_owned(),
            ]
        };
        let texts = of(&labels);
        let texts = texts.each_ref().map(String::as_str);
        Self {
            codes: RefCell::default(),
            duration: registry.histogram(&DURATION, &texts),
            request_bytes: registry.counter(&REQUEST_BYTES, &texts),
            response_bytes: registry.counter(&RESPONSE_BYTES, &texts),
            registry: registry.clone(),
            labels,
        }
    }

    pub(crate) fn source(&self) -> &str {
        &self.labels.1
    }

    pub(crate) fn destination(&self) -> &str {
        &self.labels.2
    }

    pub(crate) fn direction(&self) -> Direction {
        self.labels.0
    }

    pub(crate) fn protocol(&self) -> &'static str {
        self.labels.3
    }

    /// Counts an answer.
    pub(crate) fn count(&self, status: u16) {
        let mut codes = self.codes.borrow_mut();
        if let Some((_, counter)) = codes.iter().find(|(code, _)| *code == status) {
            return counter.inc();
        }
        let (direction, source, destination, protocol) = &self.labels;
        let code = status.to_string();
        let labels = [direction.as_str(), source, destination, protocol, &code];
        let counter = self.registry.counter(&REQUESTS, &labels);
        counter.inc();
        codes.push((status, counter));
    }
}

/// A connection or byte stream, counted as open while it lives.
pub(crate) struct Opened(Rc<StreamSeries>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.active.dec();
    }
}

impl StreamSeries {
    /// Counts one that begins.
    pub(crate) fn opened(self: &Rc<Self>) -> Opened {
        self.total.inc();
        self.active.inc();
        Opened(self.clone())
    }

    fn new(registry: &Arc<Registry>, labels: Pair) -> Self {
        let texts = [
            labels.0.as_str(),
            labels.1.as_str(),
            labels.2.as_str(),
            labels.3,
        ];
        Self {
            total: registry.counter(&CONNECTIONS, &texts),
            active: registry.gauge(&ACTIVE, &texts),
            request_bytes: registry.counter(&REQUEST_BYTES, &texts),
            response_bytes: registry.counter(&RESPONSE_BYTES, &texts),
            labels,
        }
    }

    pub(crate) fn source(&self) -> &str {
        &self.labels.1
    }

    pub(crate) fn destination(&self) -> &str {
        &self.labels.2
    }

    pub(crate) fn direction(&self) -> Direction {
        self.labels.0
    }
}
