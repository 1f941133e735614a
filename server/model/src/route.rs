//! A route: for one service, ordered rules.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::default_namespace;
use crate::{Duration, Key, RequestMatch, is_default};

/// The `route` block of one service. The first rule that matches decides; what
/// no rule matches goes to the whole service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The namespace of the service.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// The service's name.
    pub name: String,
    /// The rules, in order.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rules: Vec<Rule>,
}

impl Route {
    /// The key of its service.
    pub fn key(&self) -> Key {
        Key::new(&self.namespace, &self.name)
    }
}

/// One rule of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name, unique in the route: it stands in errors, logs and metrics.
    pub name: String,
    /// Alternatives: one of these must match. Empty: every request matches.
    #[serde(default, rename = "match", skip_serializing_if = "is_default")]
    pub matches: Vec<RequestMatch>,
    /// Where the request goes; weights sum to 100. Empty: the whole service.
    #[serde(default, skip_serializing_if = "is_default")]
    pub to: Vec<Destination>,
    /// The whole of a request, retries included. `None`: the service's
    /// `request_timeout`; zero: none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeout: Option<Duration>,
    /// When a request is tried again. `None`: never.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retries: Option<Retries>,
}

/// One of the places where a rule sends requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// The service; `None` is the route's own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub service: Option<Key>,
    /// A subset of that service; `None` is the whole of it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub subset: Option<String>,
    /// Its part of the requests.
    #[serde(default, skip_serializing_if = "Weight::is_full")]
    pub weight: Weight,
}

/// A part of 100, in steps of 0.01; written as a number: `90`, `33.33`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u32);

/// A weight that is none.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("weight {0} is not between 0 and 100")]
pub struct WeightError(f64);

impl Weight {
    /// All of the requests.
    pub const FULL: Self = Self(10_000);

    /// A weight of hundredths of one part of 100; 10,000 is all.
    pub fn from_hundredths(hundredths: u32) -> Result<Self, WeightError> {
        match hundredths <= 10_000 {
            true => Ok(Self(hundredths)),
            false => Err(WeightError(f64::from(hundredths) / 100.0)),
        }
    }

    /// A weight as it is written, 0 to 100; rounded to a hundredth.
    pub fn from_percent(percent: f64) -> Result<Self, WeightError> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(WeightError(percent));
        }
        Ok(Self((percent * 100.0).round() as u32))
    }

    /// In hundredths of one part of 100.
    pub fn hundredths(self) -> u32 {
        self.0
    }

    fn is_full(&self) -> bool {
        *self == Self::FULL
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self::FULL
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole}"),
            (whole, part) if part % 10 == 0 => write!(f, "{whole}.{}", part / 10),
            (whole, part) => write!(f, "{whole}.{part:02}"),
        }
    }
}

impl Serialize for Weight {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.is_multiple_of(100) {
            true => serializer.serialize_u32(self.0 / 100),
            false => serializer.serialize_f64(f64::from(self.0) / 100.0),
        }
    }
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_percent(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// When a request is tried again, each time on another instance where there
/// is one. Only a request whose body was buffered is ever replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retries {
    /// How often at most, beyond the first try; 1 or more.
    pub attempts: u32,
    /// How long one try may take. `None`: as long as the whole may.
    #[serde(default, skip_serializing_if = "is_default")]
    pub per_try_timeout: Option<Duration>,
    /// What is tried again. Empty together with `status_codes`:
    /// `connect-failure` and `refused-stream`, which never reached the
    /// application.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on: Vec<RetryOn>,
    /// Answers with these codes are tried again.
    #[serde(default, skip_serializing_if = "is_default")]
    pub status_codes: Vec<u16>,
}

/// What may be tried again. The words are Envoy's, which Consul's and Istio's
/// users know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    /// An answer of 500 to 599, or none at all (reset, timeout of a try).
    #[serde(rename = "5xx")]
    ServerError,
    /// An answer of 502, 503 or 504.
    GatewayError,
    /// The connection ended before the answer began.
    Reset,
    /// No connection could be made.
    ConnectFailure,
    /// The stream was refused before it was processed.
    RefusedStream,
    /// An answer of 409.
    #[serde(rename = "retriable-4xx")]
    Retriable4xx,
    /// gRPC status 1.
    Cancelled,
    /// gRPC status 4.
    DeadlineExceeded,
    /// gRPC status 8.
    ResourceExhausted,
    /// gRPC status 13.
    Internal,
    /// gRPC status 14.
    Unavailable,
}

impl RetryOn {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::ServerError,
        Self::GatewayError,
        Self::Reset,
        Self::ConnectFailure,
        Self::RefusedStream,
        Self::Retriable4xx,
        Self::Cancelled,
        Self::DeadlineExceeded,
        Self::ResourceExhausted,
        Self::Internal,
        Self::Unavailable,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServerError => "5xx",
            Self::GatewayError => "gateway-error",
            Self::Reset => "reset",
            Self::ConnectFailure => "connect-failure",
            Self::RefusedStream => "refused-stream",
            Self::Retriable4xx => "retriable-4xx",
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::ResourceExhausted => "resource-exhausted",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
        }
    }

    /// Reads what [`Self::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|on| on.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn weights() {
        for (text, hundredths, again) in [
            ("90", 9000, "90"),
            ("33.33", 3333, "33.33"),
            ("0.5", 50, "0.5"),
            ("100", 10000, "100"),
        ] {
            let weight: Weight = serde_json::from_str(text).unwrap();
            assert_eq!(weight.hundredths(), hundredths);
            assert_eq!(weight.to_string(), again);
            assert_eq!(serde_json::to_string(&weight).unwrap(), again);
        }
        for text in ["-1", "100.1", "1e9"] {
            assert!(serde_json::from_str::<Weight>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn retry_words_are_one_in_json_and_hcl() {
        for on in RetryOn::ALL {
            assert_eq!(serde_json::to_value(on).unwrap(), on.as_str());
            assert_eq!(RetryOn::parse(on.as_str()), Some(on));
        }
    }
}
