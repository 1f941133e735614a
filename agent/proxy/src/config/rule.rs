//! The rules of a route.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::{Retries, RetryOn};
use mesh_policy::{Feature, Features, RequestFacts, RequestMatcher};
use mesh_proto::config as form;

use super::{Cluster, invalid, limit};
use crate::ApplyError;

/// One rule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: Arc<str>,
    matchers: Vec<RequestMatcher>,
    /// Cluster names; the weights are made cumulative: a draw below one goes to
    /// that cluster.
    pub(crate) to: Vec<(String, u64)>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retries: Option<RetryRule>,
}

impl Rule {
    pub(super) fn compile(
        place: &str,
        form: &form::Rule,
        clusters: &BTreeMap<String, Arc<Cluster>>,
        features: &Features,
    ) -> Result<Self, ApplyError> {
        let place = format!("{place}: rule {}", form.name);
        let feature = |feature: Feature| ApplyError::Feature {
            place: place.clone(),
            feature: feature.to_string(),
        };
        if form.retries.is_some() && !features.has(Feature::Retries) {
            return Err(feature(Feature::Retries));
        }
        let asks_query = form.matches.iter().any(|one| !one.query.is_empty());
        if asks_query && !features.has(Feature::Query) {
            return Err(feature(Feature::Query));
        }
        let matchers = form
            .matches
            .iter()
            .map(|one| RequestMatcher::compile(one).map_err(|error| invalid(&place, error)))
            .collect::<Result<_, _>>()?;
        let mut sum = 0;
        let mut to = Vec::with_capacity(form.to.len());
        for one in &form.to {
            if !clusters.contains_key(&one.cluster) {
                return Err(invalid(
                    &place,
                    format!("the cluster {:?} is not there", one.cluster),
                ));
            }
            sum += u64::from(one.weight);
            to.push((one.cluster.clone(), sum));
        }
        if sum == 0 {
            return Err(invalid(&place, "no destination has a weight"));
        }
        Ok(Self {
            name: Arc::from(form.name.as_str()),
            matchers,
            to,
            timeout: limit(form.timeout),
            retries: form.retries.as_ref().map(RetryRule::compile),
        })
    }

    /// Whether it is for this request.
    pub(crate) fn matches(&self, request: &RequestFacts<'_>) -> bool {
        self.matchers.is_empty() || self.matchers.iter().any(|one| one.matches(request))
    }
}

/// When a request is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RetryRule {
    pub(crate) attempts: u32,
    pub(crate) per_try_timeout: Option<Duration>,
    on: Vec<RetryOn>,
    status_codes: Vec<u16>,
}

/// What became of a try, as far as a retry rule looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TryOutcome {
    /// An answer began.
    Answer {
        /// Its status.
        status: u16,
        /// Its gRPC status, if the head has one.
        grpc: Option<u32>,
    },
    /// No connection could be made; nothing was sent.
    ConnectFailure,
    /// The peer said that it did not process it.
    Refused,
    /// The connection or stream ended before an answer began.
    Reset,
    /// The try's own time was over.
    Timeout,
}

impl RetryRule {
    fn compile(form: &Retries) -> Self {
        let on = match form.on.is_empty() && form.status_codes.is_empty() {
            true => vec![RetryOn::ConnectFailure, RetryOn::RefusedStream],
            false => form.on.clone(),
        };
        Self {
            attempts: form.attempts,
            per_try_timeout: form.per_try_timeout.and_then(limit),
            on,
            status_codes: form.status_codes.clone(),
        }
    }

    /// Whether such a try is tried again.
    pub(crate) fn wants(&self, outcome: TryOutcome) -> bool {
        self.on.iter().any(|on| holds(*on, outcome))
            || matches!(outcome, TryOutcome::Answer { status, .. } if self.status_codes.contains(&status))
    }
}

fn holds(on: RetryOn, outcome: TryOutcome) -> bool {
    use TryOutcome::{Answer, ConnectFailure, Refused, Reset, Timeout};
    let grpc = |code: u32| matches!(outcome, Answer { grpc: Some(it), .. } if it == code);
    match on {
        RetryOn::ServerError => match outcome {
            Answer { status, .. } => (500..600).contains(&status),
            _ => true,
        },
        RetryOn::GatewayError => matches!(
            outcome,
            Answer {
                status: 502..=504,
                ..
            }
        ),
        RetryOn::Reset => matches!(outcome, Reset | Refused | Timeout),
        RetryOn::ConnectFailure => outcome == ConnectFailure,
        RetryOn::RefusedStream => outcome == Refused,
        RetryOn::Retriable4xx => matches!(outcome, Answer { status: 409, .. }),
        RetryOn::Cancelled => grpc(1),
        RetryOn::DeadlineExceeded => grpc(4),
        RetryOn::ResourceExhausted => grpc(8),
        RetryOn::Internal => grpc(13),
        RetryOn::Unavailable => grpc(14),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(on: &[RetryOn], status_codes: &[u16]) -> RetryRule {
        RetryRule::compile(&Retries {
            attempts: 2,
            per_try_timeout: None,
            on: on.to_vec(),
            status_codes: status_codes.to_vec(),
        })
    }

    fn answer(status: u16) -> TryOutcome {
        TryOutcome::Answer { status, grpc: None }
    }

    #[test]
    fn without_conditions_only_what_never_arrived() {
        let rule = rule(&[], &[]);
        assert!(rule.wants(TryOutcome::ConnectFailure));
        assert!(rule.wants(TryOutcome::Refused));
        assert!(!rule.wants(TryOutcome::Reset));
        assert!(!rule.wants(answer(503)));
    }

    #[test]
    fn conditions() {
        let rule5 = rule(&[RetryOn::ServerError], &[]);
        assert!(rule5.wants(answer(500)) && rule5.wants(TryOutcome::Timeout));
        assert!(!rule5.wants(answer(499)));
        let codes = rule(&[], &[429]);
        assert!(codes.wants(answer(429)) && !codes.wants(TryOutcome::ConnectFailure));
        let gateway = rule(&[RetryOn::GatewayError], &[]);
        assert!(gateway.wants(answer(504)) && !gateway.wants(answer(500)));
        let grpc = rule(&[RetryOn::Unavailable], &[]);
        let unavailable = TryOutcome::Answer {
            status: 200,
            grpc: Some(14),
        };
        assert!(grpc.wants(unavailable) && !grpc.wants(answer(200)));
    }
}
