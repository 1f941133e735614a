//! What the proxy says about what it does: counters, the access log, traces.
//!
//! Each worker counts for itself, in cells that only it writes; a scrape reads
//! them all and adds them up. What a worker writes on a request's path is never
//! locked by another worker. Locks are taken when a series is new, and by the
//! scrape.

mod access;
mod log;
mod registry;
mod series;
mod text;
mod throttle;
mod trace;
mod value;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_tls::MeshTls;

pub(crate) use access::{Direction, HttpRecord, StreamRecord, WorkerLog};
pub(crate) use log::LogWriter;
pub(crate) use registry::Registry;
pub(crate) use series::{DnsMetrics, HttpSeries, Metrics, Opened, StreamSeries};
pub(crate) use throttle::Throttle;
pub(crate) use trace::{TraceId, continue_trace};
pub(crate) use value::Counter;

use crate::AccessLog;

/// The telemetry of all workers.
pub(crate) struct Telemetry {
    /// Of each worker, and of the thread beside them.
    registries: Vec<Arc<Registry>>,
    log: Option<LogWriter>,
    tls: Arc<MeshTls>,
}

/// What a worker gets of it.
pub(crate) struct WorkerTelemetry {
    pub(crate) registry: Arc<Registry>,
    pub(crate) log: Option<LogWriter>,
}

impl Telemetry {
    pub(crate) fn new(workers: usize, log: &AccessLog, tls: Arc<MeshTls>) -> Self {
        Self {
            registries: (0..=workers).map(|_| Arc::default()).collect(),
            log: LogWriter::start(log),
            tls,
        }
    }

    pub(crate) fn for_worker(&self, index: usize) -> WorkerTelemetry {
        WorkerTelemetry {
            registry: self.registries.get(index).cloned().unwrap_or_default(),
            log: self.log.clone(),
        }
    }

    /// For the thread beside the workers.
    pub(crate) fn for_dns(&self) -> DnsMetrics {
        DnsMetrics::new(self.registries.last().cloned().unwrap_or_default())
    }

    /// Waits until the access log is written as far as workers handed it over.
    pub(crate) async fn flush_log(&self) {
        if let Some(log) = &self.log {
            log.flush(Duration::from_secs(1)).await;
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut all = Registry::merged(&self.registries);
        if let Some(leaf) = self.tls.leaf() {
            let expiry = leaf.not_after.duration_since(SystemTime::UNIX_EPOCH);
            all.gauge(&series::LEAF_EXPIRY, expiry.unwrap_or_default().as_secs());
        }
        if let Some(log) = &self.log {
            all.counter(&series::LOG_DROPPED, log.dropped());
        }
        if let Some(dropped) = crate::stderr::dropped() {
            all.counter(&series::ERRORS_DROPPED, dropped);
        }
        text::encode(&all)
    }
}
