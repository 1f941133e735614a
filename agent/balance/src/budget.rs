//! How many retries are allowed, so that they do not make an overload worse.
//!
//! When everything fails, retries multiply the load just when it should fall. A
//! budget allows them as a part of the requests of the last seconds, and a few
//! more, so that a service with little traffic can retry too.

use std::time::Duration;

/// A limit on retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetConfig {
    /// Retries, in percent of requests.
    pub percent: u32,
    /// So many retries a second are allowed besides.
    pub min_per_second: u32,
    /// Over how much time it is reckoned.
    pub window: Duration,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self {
            percent: 20,
            min_per_second: 10,
            window: Duration::from_secs(10),
        }
    }
}

/// Into how many parts the window is cut. What is older than the window goes
/// part by part.
const PARTS: usize = 10;

/// One retry, in the unit of the account: a request brings `percent`.
const RETRY: u64 = 100;

/// Counts requests, and allows a retry as long as the retries of the window that
/// ends now are at most `percent` of its requests and `min_per_second` for each
/// of its seconds.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    config: BudgetConfig,
    /// For each part of the window, what requests brought and retries took.
    brought: [u64; PARTS],
    taken: [u64; PARTS],
    /// The number of the newest part since time 0.
    newest: u64,
}

impl RetryBudget {
    /// A budget without a past.
    pub fn new(config: BudgetConfig) -> Self {
        Self {
            config,
            brought: [0; PARTS],
            taken: [0; PARTS],
            newest: 0,
        }
    }

    /// A request (not a retry) begins.
    pub fn request(&mut self, now: Duration) {
        let part = self.advance(now);
        let brought = &mut self.brought[part];
        *brought = brought.saturating_add(u64::from(self.config.percent));
    }

    /// Whether a retry may be made. If so, it is counted.
    pub fn try_retry(&mut self, now: Duration) -> bool {
        let part = self.advance(now);
        let minimum = (self.config.window.as_millis() as u64)
            .saturating_mul(u64::from(self.config.min_per_second))
            / (1000 / RETRY);
        let brought = self
            .brought
            .iter()
            .fold(minimum, |sum, n| sum.saturating_add(*n));
        let taken: u64 = self.taken.iter().sum();
        if brought < taken.saturating_add(RETRY) {
            return false;
        }
        self.taken[part] += RETRY;
        true
    }

    /// Forgets what is older than the window; gives the part of this moment.
    fn advance(&mut self, now: Duration) -> usize {
        let length = (self.config.window.as_nanos() / PARTS as u128).max(1);
        let part = u64::try_from(now.as_nanos() / length).unwrap_or(u64::MAX);
        let passed = part.saturating_sub(self.newest).min(PARTS as u64);
        self.newest = self.newest.max(part);
        for ago in 0..passed {
            let old = ((self.newest - ago) % PARTS as u64) as usize;
            self.brought[old] = 0;
            self.taken[old] = 0;
        }
        (self.newest % PARTS as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn config(percent: u32, min_per_second: u32) -> BudgetConfig {
        BudgetConfig {
            percent,
            min_per_second,
            window: Duration::from_secs(10),
        }
    }

    fn retries(budget: &mut RetryBudget, now: Duration) -> usize {
        (0..100_000).take_while(|_| budget.try_retry(now)).count()
    }

    #[test]
    fn a_part_of_the_requests_and_a_minimum() {
        let now = Duration::from_secs(100);
        let mut budget = RetryBudget::new(config(20, 0));
        assert_eq!(retries(&mut budget, now), 0);
        for _ in 0..1000 {
            budget.request(now);
        }
        assert_eq!(retries(&mut budget, now), 200);

        let mut budget = RetryBudget::new(config(20, 3));
        assert_eq!(retries(&mut budget, now), 30);
        for _ in 0..4 {
            budget.request(now);
        }
        assert_eq!(retries(&mut budget, now), 0, "0.8 of a retry");
        budget.request(now);
        assert_eq!(retries(&mut budget, now), 1);
    }

    #[test]
    fn requests_count_for_one_window() {
        let mut budget = RetryBudget::new(config(50, 0));
        budget.request(Duration::from_secs(0));
        budget.request(Duration::from_secs(0));
        assert!(budget.try_retry(Duration::from_millis(9_999)));
        budget.request(Duration::from_secs(20));
        budget.request(Duration::from_secs(20));
        assert!(!budget.try_retry(Duration::from_secs(30)));
        // And what was taken is forgotten like what was brought.
        budget.request(Duration::from_secs(31));
        budget.request(Duration::from_secs(31));
        assert!(budget.try_retry(Duration::from_secs(31)));
    }

    #[test]
    fn time_that_goes_back_is_the_latest() {
        let mut budget = RetryBudget::new(config(100, 0));
        budget.request(Duration::from_secs(50));
        assert!(budget.try_retry(Duration::from_secs(1)));
        assert!(!budget.try_retry(Duration::MAX));
    }

    #[test]
    fn odd_configurations() {
        let mut budget = RetryBudget::new(BudgetConfig {
            percent: u32::MAX,
            min_per_second: u32::MAX,
            window: Duration::MAX,
        });
        for _ in 0..10 {
            budget.request(Duration::MAX);
        }
        assert!(budget.try_retry(Duration::MAX));
        let mut budget = RetryBudget::new(BudgetConfig {
            percent: 20,
            min_per_second: 10,
            window: Duration::ZERO,
        });
        assert!(!budget.try_retry(Duration::from_secs(1)));
    }

    proptest! {
        /// When a retry is allowed, the window is within the budget.
        #[test]
        fn never_over_the_budget(
            percent in 0u32..100,
            min_per_second in 0u32..3,
            steps in prop::collection::vec((0u64..1500, 0usize..30, 0usize..30), 1..60),
        ) {
            let mut budget = RetryBudget::new(config(percent, min_per_second));
            let mut now = Duration::ZERO;
            let mut history = Vec::new();
            for (wait, requests, tries) in steps {
                now += Duration::from_millis(wait);
                for _ in 0..requests {
                    budget.request(now);
                }
                let retries = (0..tries).filter(|_| budget.try_retry(now)).count();
                history.push((now, requests, retries));
                // Parts of a second: a window less one part is always whole.
                let recent = || history.iter().filter(|(at, ..)| *at + Duration::from_secs(9) > now);
                let longest = history.iter().filter(|(at, ..)| *at + Duration::from_secs(10) > now);
                let retried: usize = recent().map(|(.., retries)| retries).sum();
                let requested: usize = longest.map(|(_, requests, _)| requests).sum();
                let allowed = requested * percent as usize / 100 + 10 * min_per_second as usize;
                prop_assert!(retries == 0 || retried <= allowed, "{retried} of {allowed}");
            }
        }
    }
}
