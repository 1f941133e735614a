//! A service by itself.

use super::{MOST, Notes};
use crate::{Duration, Service, check_label};

pub(super) fn check(service: &Service, notes: &mut Notes) {
    if let Err(error) = service.key().check() {
        notes.error(error);
    }
    if service.connect_timeout.is_some_and(Duration::is_zero) {
        notes.error("connect_timeout: must be more than 0");
    }
    if service.subsets.len() > MOST {
        let count = service.subsets.len();
        notes.error(format!("{count} subsets; at most {MOST} are taken"));
    }
    for (name, subset) in &service.subsets {
        if let Err(error) = check_label(name) {
            notes.error(format!("subset {name}: {error}"));
        }
        if subset.meta.is_empty() && subset.tags.is_empty() && !subset.only_passing {
            notes.warn(format!(
                "subset {name}: has no condition, so it is the whole service"
            ));
        }
    }
    if let Some(name) = &service.default_subset
        && !service.subsets.contains_key(name)
    {
        notes.error(format!(
            "default_subset: `{name}` is not defined; add subset \"{name}\" {{ … }}"
        ));
    }
    if let Some(detection) = &service.outlier_detection {
        if detection.consecutive_5xx == 0 {
            notes.error("outlier_detection: consecutive_5xx must be 1 or more");
        }
        if detection.base_ejection_time.is_some_and(Duration::is_zero) {
            notes.error("outlier_detection: base_ejection_time must be more than 0");
        }
        if let Some(percent) = detection.max_ejection_percent
            && !(1..=100).contains(&percent)
        {
            notes.error(format!(
                "outlier_detection: max_ejection_percent {percent} is not between 1 and 100"
            ));
        }
        if !service.protocol.is_http() {
            notes.warn(
                "outlier_detection: the service speaks tcp, where only failed connections count",
            );
        }
    }
}
