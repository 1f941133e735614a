//! What a set learns about one endpoint, and how long it holds it against it.

use std::time::Duration;

/// When an endpoint that fails requests is left alone (ejected).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlier {
    /// After how many failures in a row: 5xx answers, broken connections,
    /// timeouts and failed connects. 0 counts as 1.
    pub consecutive_failures: u32,
    /// How long the first ejection lasts; the n-th lasts n times as long. For
    /// each such time that an endpoint was in use again, one is forgiven.
    pub base_ejection_time: Duration,
    /// No ejection lasts longer (nor shorter than the first).
    pub max_ejection_time: Duration,
    /// How many of the endpoints that could be used may be ejected together, in
    /// percent. One always may.
    pub max_ejection_percent: u32,
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 50,
        }
    }
}

impl Outlier {
    /// How many of so many endpoints may be ejected together.
    pub(crate) fn allowed(&self, endpoints: usize) -> usize {
        let percent = self.max_ejection_percent.min(100) as usize;
        (endpoints * percent / 100).max(1)
    }
}

/// How long an endpoint that cannot be connected to is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avoidance {
    /// After the first failure; each further one doubles it.
    pub base: Duration,
    /// At most.
    pub max: Duration,
}

impl Default for Avoidance {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(500),
            max: Duration::from_secs(30),
        }
    }
}

impl Avoidance {
    fn after(&self, failures: u32) -> Duration {
        let factor = 1u32 << failures.saturating_sub(1).min(31);
        self.base.saturating_mul(factor).min(self.max)
    }
}

/// What happened to one endpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    /// Failures in a row.
    pub(crate) failures: u32,
    pub(crate) ejected_until: Option<Duration>,
    /// How many ejections are not forgiven.
    ejections: u32,
    /// When the last ejection ended.
    returned: Duration,

    /// Connects that failed in a row. While there are any, only one request at
    /// a time tries.
    connect_failures: u32,
    /// When the last one failed.
    connect_failed: Option<Duration>,
    pub(crate) avoided_until: Option<Duration>,
}

impl Record {
    /// Whether it may take requests.
    pub(crate) fn is_up(&self) -> bool {
        self.ejected_until.is_none() && self.avoided_until.is_none()
    }

    /// When something changes by itself.
    pub(crate) fn next_change(&self) -> Option<Duration> {
        match (self.ejected_until, self.avoided_until) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Ends what is over. Says whether an ejection is.
    pub(crate) fn expire(&mut self, now: Duration) -> bool {
        if self.avoided_until.is_some_and(|until| until <= now) {
            self.avoided_until = None;
        }
        match self.ejected_until {
            Some(until) if until <= now => {
                self.ejected_until = None;
                self.returned = until;
                self.failures = 0;
                true
            }
            _ => false,
        }
    }

    /// A request goes to the endpoint. The first one after an avoidance is a
    /// trial: until it got through, no other follows.
    pub(crate) fn picked(&mut self, avoidance: &Avoidance, now: Duration) {
        if self.connect_failures > 0 && self.avoided_until.is_none() {
            self.avoided_until = Some(now.saturating_add(avoidance.after(self.connect_failures)));
        }
    }

    /// A connect failed. What began before the last failure tells nothing new:
    /// a hundred connects that fail together are one failure.
    pub(crate) fn connect_failed(&mut self, avoidance: &Avoidance, began: Duration, now: Duration) {
        if self.connect_failed.is_none_or(|last| began > last) {
            self.connect_failures = self.connect_failures.saturating_add(1);
            self.connect_failed = Some(now);
            self.avoided_until = Some(now.saturating_add(avoidance.after(self.connect_failures)));
        }
    }

    /// A connection came about, unless it did before the last failure.
    pub(crate) fn connected(&mut self, began: Duration) {
        if self.connect_failed.is_none_or(|last| began > last) {
            self.connect_failures = 0;
            self.connect_failed = None;
            self.avoided_until = None;
        }
    }

    /// A request failed. Says whether the endpoint is to be ejected, if the
    /// others allow it.
    pub(crate) fn failed(&mut self, outlier: &Outlier, began: Duration) -> bool {
        if self.ejected_until.is_some() || began < self.returned {
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        self.failures >= outlier.consecutive_failures.max(1)
    }

    pub(crate) fn eject(&mut self, outlier: &Outlier, now: Duration) {
        let base = outlier.base_ejection_time.max(Duration::from_millis(1));
        let in_use = now.saturating_sub(self.returned);
        let forgiven = in_use.as_nanos() / base.as_nanos();
        let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX);
        self.ejections = self.ejections.saturating_sub(forgiven) + 1;
        let time = base
            .saturating_mul(self.ejections)
            .min(outlier.max_ejection_time.max(base));
        self.ejected_until = Some(now.saturating_add(time));
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }
}
