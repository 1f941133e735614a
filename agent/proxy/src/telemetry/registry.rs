//! The series of one worker, by metric and labels.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::value::{Counter, Distribution, Gauge, Histogram};

/// A metric: a name, and what people should know about it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) labels: &'static [&'static str],
}

/// Series of a metric on a worker at most. Sources and codes come from
/// outside; what is beyond goes to a series whose labels all are `other`.
const MAX_SERIES: usize = 2_000;

type Series<T> = BTreeMap<Vec<String>, T>;
type Family<T> = BTreeMap<&'static Metric, Series<T>>;

/// The series of one worker. The worker keeps handles of them; the lock is
/// taken for a new one, and by a scrape.
#[derive(Default)]
pub(crate) struct Registry {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    counters: Family<Arc<Counter>>,
    gauges: Family<Arc<Gauge>>,
    histograms: Family<Arc<Histogram>>,
}

impl Registry {
    pub(crate) fn counter(&self, metric: &'static Metric, labels: &[&str]) -> Arc<Counter> {
        series(&mut self.lock().counters, metric, labels)
    }

    pub(crate) fn gauge(&self, metric: &'static Metric, labels: &[&str]) -> Arc<Gauge> {
        series(&mut self.lock().gauges, metric, labels)
    }

    pub(crate) fn histogram(&self, metric: &'static Metric, labels: &[&str]) -> Arc<Histogram> {
        series(&mut self.lock().histograms, metric, labels)
    }

    /// What all workers counted together.
    pub(crate) fn merged(all: &[Arc<Self>]) -> Merged {
        let mut sum = Merged::default();
        for one in all {
            let inner = one.lock();
            for (metric, series) in &inner.counters {
                let family = sum.counters.entry(metric).or_default();
                for (labels, counter) in series {
                    *family.entry(labels.clone()).or_default() += counter.value();
                }
            }
            for (metric, series) in &inner.gauges {
                let family = sum.gauges.entry(metric).or_default();
                for (labels, gauge) in series {
                    *family.entry(labels.clone()).or_default() += gauge.value();
                }
            }
            for (metric, series) in &inner.histograms {
                let family = sum.histograms.entry(metric).or_default();
                for (labels, histogram) in series {
                    family
                        .entry(labels.clone())
                        .or_default()
                        .add(&histogram.read());
                }
            }
        }
        sum
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn series<T: Default>(
    family: &mut Family<Arc<T>>,
    metric: &'static Metric,
    labels: &[&str],
) -> Arc<T> {
    let series = family.entry(metric).or_default();
    let mut key: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
    if series.len() >= MAX_SERIES && !series.contains_key(&key) {
        key.fill("other".to_owned());
    }
    series.entry(key).or_default().clone()
}

/// What was read of all registries.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    pub(super) counters: Family<u64>,
    pub(super) gauges: Family<u64>,
    pub(super) histograms: Family<Distribution>,
}

impl Merged {
    /// Adds a gauge without labels.
    pub(super) fn gauge(&mut self, metric: &'static Metric, value: u64) {
        self.gauges
            .entry(metric)
            .or_default()
            .insert(Vec::new(), value);
    }

    /// Adds a counter without labels.
    pub(super) fn counter(&mut self, metric: &'static Metric, value: u64) {
        self.counters
            .entry(metric)
            .or_default()
            .insert(Vec::new(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static METRIC: Metric = Metric {
        name: "m",
        help: "h",
        labels: &["source"],
    };

    #[test]
    fn series_are_bounded() {
        let registry = Registry::default();
        for index in 0..MAX_SERIES + 10 {
            registry.counter(&METRIC, &[&index.to_string()]).inc();
        }
        let merged = Registry::merged(&[Arc::new(registry)]);
        let series = &merged.counters[&METRIC];
        assert_eq!(series.len(), MAX_SERIES + 1);
        assert_eq!(series[&vec!["other".to_owned()]], 10);
    }

    #[test]
    fn workers_add_up() {
        let both = [Arc::new(Registry::default()), Arc::new(Registry::default())];
        both[0].counter(&METRIC, &["a"]).add(2);
        both[1].counter(&METRIC, &["a"]).add(3);
        let merged = Registry::merged(&both);
        assert_eq!(merged.counters[&METRIC][&vec!["a".to_owned()]], 5);
    }
}
