//! What Prometheus scrapes at `/metrics`.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// The server's metrics.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// By route and status code.
    pub(crate) api_requests: IntCounterVec,
    pub(crate) api_seconds: Histogram,
    pub(crate) blocking_queries: IntGauge,
    pub(crate) write_seconds: Histogram,
    /// By outcome: ok, refused, failed.
    pub(crate) writes: IntCounterVec,
    pub(crate) feed_streams: IntGauge,
    /// By kind: whole, unchanged.
    pub(crate) feed_facts: IntCounterVec,
    pub(crate) feed_marks: IntCounter,
    /// By outcome: ok, refused, failed; passed_on: another server signed.
    pub(crate) ca_signs: IntCounterVec,
    pub(crate) ca_root_expiry: IntGauge,
    pub(crate) ca_intermediate_expiry: IntGauge,
    pub(crate) ca_roots: IntGauge,
    pub(crate) ca_rotating: IntGauge,
    pub(crate) ca_sign_seconds: Histogram,
    /// 1: this server has the key that opens the CA's keys.
    pub(crate) ca_opens: IntGauge,
    /// Nothing where this server has no Vault.
    pub(crate) ca_vault_up: IntGaugeVec,
    pub(crate) ca_vault_token_seconds: IntGaugeVec,
    /// By kind: unavailable, limited, denied.
    pub(crate) ca_vault_failures: IntCounterVec,
    /// Nothing where the CA is not in AWS.
    pub(crate) ca_aws_up: IntGaugeVec,
    /// By kind: unavailable, limited, denied.
    pub(crate) ca_aws_failures: IntCounterVec,
    /// By state: alive, silent.
    pub(crate) nodes: IntGaugeVec,
    pub(crate) leases: IntGauge,
    pub(crate) raft_leader: IntGauge,
    pub(crate) raft_term: IntGauge,
    pub(crate) raft_applied: IntGauge,
    pub(crate) raft_last_log: IntGauge,
    pub(crate) raft_last_contact: IntGauge,
    pub(crate) raft_voters: IntGauge,
    pub(crate) healthy: IntGauge,
    pub(crate) state_index: IntGauge,
    pub(crate) watches: IntGauge,
}

const SECONDS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

impl Metrics {
    /// The error is a mistake in the names below, and only that.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let make = Maker(&registry);
        Ok(Self {
            api_requests: make.counters("api_requests_total", "HTTP requests", &["route", "code"])?,
            api_seconds: make.histogram("api_seconds", "Time of HTTP requests but blocking ones")?,
            blocking_queries: make.gauge("api_blocking_queries", "Blocking queries that wait")?,
            write_seconds: make.histogram("write_seconds", "From a command to its commit")?,
            writes: make.counters("writes_total", "Commands proposed here", &["outcome"])?,
            feed_streams: make.gauge("feed_streams", "Agents connected to this server")?,
            feed_facts: make.counters("feed_facts_total", "Facts sent to agents", &["kind"])?,
            feed_marks: make.counter("feed_marks_total", "Marks sent to agents")?,
            ca_signs: make.counters("ca_signs_total", "Leaves asked for", &["outcome"])?,
            ca_root_expiry: make.gauge(
                "ca_root_expiry_timestamp_seconds",
                "When the root that signs ends",
            )?,
            ca_intermediate_expiry: make.gauge(
                "ca_intermediate_expiry_timestamp_seconds",
                "When the intermediate ends",
            )?,
            ca_roots: make.gauge("ca_roots", "Roots that the mesh trusts")?,
            ca_rotating: make.gauge("ca_rotating", "1: a change of the root waits for proxies")?,
            ca_opens: make.gauge(
                "ca_opens",
                "1: this server has the key that the CA's private keys are sealed with",
            )?,
            ca_sign_seconds: make.histogram("ca_sign_seconds", "Time for a leaf to be signed")?,
            ca_vault_up: make.gauges(
                "ca_vault_up",
                "1: Vault answers, and this server is logged in",
                &["address"],
            )?,
            ca_vault_token_seconds: make.gauges(
                "ca_vault_token_seconds",
                "How long the token for Vault is good; without a value: for ever, or none",
                &["address"],
            )?,
            ca_vault_failures: make.counters(
                "ca_vault_failures_total",
                "Requests to Vault that failed",
                &["kind"],
            )?,
            ca_aws_up: make.gauges(
                "ca_aws_up",
                "1: AWS answers, and the CA there is active",
                &["arn"],
            )?,
            ca_aws_failures: make.counters(
                "ca_aws_failures_total",
                "Requests to AWS Private CA that failed",
                &["kind"],
            )?,
            nodes: make.gauges("nodes", "Nodes in the catalog", &["state"])?,
            leases: make.gauge("leases", "Nodes whose lease this server, as leader, holds")?,
            raft_leader: make.gauge("raft_is_leader", "Whether this server leads")?,
            raft_term: make.gauge("raft_term", "The term")?,
            raft_applied: make.gauge("raft_applied_index", "The last applied entry")?,
            raft_last_log: make.gauge("raft_last_log_index", "The last entry in the log")?,
            raft_last_contact: make.gauge(
                "raft_last_contact_milliseconds",
                "Age of the last word from the leader (of a majority's, on the leader); -1: none yet",
            )?,
            raft_voters: make.gauge("raft_voters", "Members with a vote")?,
            healthy: make.gauge("healthy", "1: this server takes writes")?,
            state_index: make.gauge("state_index", "The state's index")?,
            watches: make.gauge("state_watches", "Watches that wait")?,
            registry,
        })
    }

    /// The text that Prometheus reads.
    pub(crate) fn text(&self) -> String {
        let encoded = TextEncoder::new().encode_to_string(&self.registry.gather());
        encoded.unwrap_or_else(|error| format!("# {error}\n"))
    }
}

struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn register<C: prometheus::core::Collector + Clone + 'static>(
        &self,
        collector: C,
    ) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::new(full(name), help)?)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(Opts::new(full(name), help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::new(full(name), help)?)
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(Opts::new(full(name), help), labels)?)
    }

    fn histogram(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        let opts = HistogramOpts::new(full(name), help).buckets(SECONDS.to_vec());
        self.register(Histogram::with_opts(opts)?)
    }
}

fn full(name: &str) -> String {
    format!("meshctl_server_{name}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_name_is_good() {
        let metrics = Metrics::new().unwrap();
        metrics
            .api_requests
            .with_label_values(&["/v1/x", "200"])
            .inc();
        let text = metrics.text();
        assert!(text.contains("meshctl_server_api_requests_total{code=\"200\",route=\"/v1/x\"} 1"));
    }
}
