//! Prometheus' text form, version 0.0.4.

use std::fmt::Write;

use super::registry::{Merged, Metric};
use super::value::{BOUNDS, Distribution};

pub(super) fn encode(all: &Merged) -> String {
    let mut out = String::with_capacity(16 * 1024);
    for (metric, series) in &all.counters {
        head(&mut out, metric, "counter");
        for (labels, value) in series {
            line(&mut out, metric, "", labels, None, value);
        }
    }
    for (metric, series) in &all.gauges {
        head(&mut out, metric, "gauge");
        for (labels, value) in series {
            line(&mut out, metric, "", labels, None, value);
        }
    }
    for (metric, series) in &all.histograms {
        head(&mut out, metric, "histogram");
        for (labels, value) in series {
            histogram(&mut out, metric, labels, value);
        }
    }
    out
}

fn head(out: &mut String, metric: &Metric, kind: &str) {
    let Metric { name, help, .. } = metric;
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn histogram(out: &mut String, metric: &Metric, labels: &[String], value: &Distribution) {
    let mut sum = 0;
    for (at, count) in value.buckets.iter().enumerate() {
        sum += count;
        let bound = BOUNDS.get(at).map(|bound| seconds(*bound));
        let bound = bound.as_deref().unwrap_or("+Inf");
        line(out, metric, "_bucket", labels, Some(bound), &sum);
    }
    line(out, metric, "_sum", labels, None, &seconds(value.micros));
    line(out, metric, "_count", labels, None, &sum);
}

fn line(
    out: &mut String,
    metric: &Metric,
    suffix: &str,
    labels: &[String],
    bound: Option<&str>,
    value: &dyn std::fmt::Display,
) {
    let _ = write!(out, "{}{suffix}", metric.name);
    let pairs = metric
        .labels
        .iter()
        .copied()
        .zip(labels.iter().map(String::as_str));
    let mut before = '{';
    for (name, value) in pairs.chain(bound.map(|bound| ("le", bound))) {
        let _ = write!(out, "{before}{name}=\"");
        escape(out, value);
        out.push('"');
        before = ',';
    }
    if before == ',' {
        out.push('}');
    }
    let _ = writeln!(out, " {value}");
}

fn escape(out: &mut String, value: &str) {
    for char in value.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            char => out.push(char),
        }
    }
}

fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::registry::Registry;
    use super::*;

    static REQUESTS: Metric = Metric {
        name: "mesh_requests_total",
        help: "Requests.",
        labels: &["source", "code"],
    };
    static DURATION: Metric = Metric {
        name: "mesh_request_duration_seconds",
        help: "How long they took.",
        labels: &[],
    };

    #[test]
    fn form() {
        let registry = Arc::new(Registry::default());
        registry.counter(&REQUESTS, &["web", "200"]).add(7);
        registry.counter(&REQUESTS, &["a\"b\\c\nd", "404"]).inc();
        registry
            .histogram(&DURATION, &[])
            .observe(Duration::from_micros(700));
        registry
            .histogram(&DURATION, &[])
            .observe(Duration::from_secs(60));
        insta::assert_snapshot!(encode(&Registry::merged(&[registry])));
    }
}
