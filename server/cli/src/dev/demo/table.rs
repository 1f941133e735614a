//! What happens, as a live table of at most 80 columns.

use std::fmt::Write as _;
use std::time::Instant;

use super::traffic::{Call, Log, Outcome, Seen};

const WIDTH: usize = 80;

/// The table's lines.
pub(crate) fn lines(calls: &[Call], log: &Log, now: Instant) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<26} {:>6}  {:>8}  {}",
        "CALL", "RATE", "MEDIAN", "WHAT CAME (LAST 5 S)"
    )];
    for call in calls {
        let seen = log.seen(call.service, now);
        let name = format!("frontend -> {}", call.service);
        let median = seen
            .median
            .map(|time| format!("{:.1} ms", time.as_secs_f64() * 1e3));
        let mut line = format!(
            "{name:<26} {:>4.0}/s  {:>8}  ",
            seen.rate,
            median.unwrap_or_else(|| "-".to_owned())
        );
        line.push_str(&outcomes(&seen));
        lines.push(line);
        lines.extend(reasons(&seen));
    }
    lines.iter().map(|line| cut(line)).collect()
}

/// `v1 90 %  v2 10 %`, `denied 100 %`.
fn outcomes(seen: &Seen) -> String {
    let total: usize = seen.outcomes.values().sum();
    if total == 0 {
        return "no call yet".to_owned();
    }
    let mut denied = 0;
    let mut failed = 0;
    let mut text = String::new();
    let percent = |count: usize| (count as f64 * 100.0 / total as f64).round();
    for (outcome, count) in &seen.outcomes {
        match outcome {
            Outcome::Answered(version) => {
                let _ = write!(text, "{version} {} %  ", percent(*count));
            }
            Outcome::Denied(_) => denied += count,
            Outcome::Failed(_) => failed += count,
        }
    }
    for (name, count) in [("denied", denied), ("failed", failed)] {
        if count > 0 {
            let _ = write!(text, "{name} {} %  ", percent(count));
        }
    }
    text.trim_end().to_owned()
}

/// Why calls were denied or failed, a line each.
fn reasons(seen: &Seen) -> Vec<String> {
    let reason = |outcome: &Outcome| match outcome {
        Outcome::Answered(_) => None,
        Outcome::Denied(reason) | Outcome::Failed(reason) => Some(format!("    {reason}")),
    };
    seen.outcomes.keys().filter_map(reason).take(3).collect()
}

fn cut(line: &str) -> String {
    if line.chars().count() <= WIDTH {
        return line.to_owned();
    }
    line.chars().take(WIDTH - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn says_what_came() {
        let seen = Seen {
            outcomes: BTreeMap::from([
                (Outcome::Answered("v1".to_owned()), 90),
                (Outcome::Answered("v2".to_owned()), 9),
                (Outcome::Denied("intention a => b (deny)".to_owned()), 1),
            ]),
            median: None,
            rate: 20.0,
        };
        assert_eq!(outcomes(&seen), "v1 90 %  v2 9 %  denied 1 %");
        assert_eq!(reasons(&seen), ["    intention a => b (deny)"]);
        assert_eq!(outcomes(&Seen::default()), "no call yet");
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        assert_eq!(cut(&"x".repeat(200)).chars().count(), WIDTH);
    }
}
