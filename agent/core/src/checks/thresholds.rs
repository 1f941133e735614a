//! How many results in a row make a state (as Consul's `StatusHandler` counts).

use mesh_model::{CheckDefinition, Status};

/// The results in a row of one check.
#[derive(Debug, Default)]
pub(super) struct Thresholds {
    successes: u32,
    failures: u32,
}

impl Thresholds {
    /// Takes a result. `Some`: what the check is from now on; `None`: it stays as it was.
    pub(super) fn observe(&mut self, check: &CheckDefinition, result: Status) -> Option<Status> {
        if result != Status::Critical {
            self.successes = self.successes.saturating_add(1);
            self.failures = 0;
            return (self.successes >= check.success_before_passing).then_some(result);
        }
        self.failures = self.failures.saturating_add(1);
        self.successes = 0;
        if self.failures >= check.failures_before_critical {
            return Some(Status::Critical);
        }
        let warns = check.failures_before_warning;
        (warns > 0 && self.failures >= warns).then_some(Status::Warning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_model::{CheckKind, Duration};

    fn states(limits: (u32, u32, u32), results: &str) -> String {
        let check = CheckDefinition {
            id: "a".into(),
            name: "a".into(),
            kind: CheckKind::Ttl {
                ttl: Duration::ZERO,
            },
            interval: Duration::ZERO,
            timeout: Duration::ZERO,
            initial: None,
            success_before_passing: limits.0,
            failures_before_warning: limits.1,
            failures_before_critical: limits.2,
        };
        let mut thresholds = Thresholds::default();
        let result = |c| match c {
            'p' => Status::Passing,
            'w' => Status::Warning,
            _ => Status::Critical,
        };
        let shown = |status: Option<Status>| match status {
            Some(Status::Passing) => 'p',
            Some(Status::Warning) => 'w',
            Some(Status::Critical) => 'c',
            None => '.',
        };
        results
            .chars()
            .map(|c| shown(thresholds.observe(&check, result(c))))
            .collect()
    }

    #[test]
    fn without_limits_every_result_counts() {
        assert_eq!(states((0, 0, 0), "pcwcp"), "pcwcp");
        assert_eq!(states((1, 0, 1), "pcwcp"), "pcwcp");
    }

    #[test]
    fn results_must_come_in_a_row() {
        assert_eq!(states((3, 0, 0), "ppcpppp"), "..c..pp");
        assert_eq!(states((0, 0, 3), "pccpccccp"), "p..p..ccp");
        assert_eq!(states((0, 2, 4), "pcccccp"), "p.wwccp");
    }
}
