//! The nouns of the mesh: types, validation, HCL and JSON.
//!
//! One word for one thing, the same in HCL, JSON, Rust, the CLI and the docs.
//! Every type here is a *wire form*: it stands in Raft's log, in snapshots, in
//! the streams and in the HTTP API. Two rules let these forms grow:
//!
//! 1. A field that has its default value is not written.
//! 2. A reader refuses a field that it does not know.
//!
//! Together they say "unknown means no": whoever uses a new condition is not
//! understood by an older part, which then refuses (a policy denies, a route
//! keeps its last good form) instead of ignoring the condition; whoever does
//! not use it is understood by all. What is only informative goes to `meta`.
#![forbid(unsafe_code)]

pub mod bexpr;
pub mod config;
pub mod consul;
pub mod fuzz;
pub mod hcl;
pub mod instance;
pub mod render;
pub mod validate;

mod catalog;
mod diagnostic;
mod duration;
mod entry;
mod fields;
mod gateway;
mod intention;
mod matching;
mod mesh;
mod name;
mod path;
mod registration;
mod route;
mod row;
mod serial;
mod service;
mod tls;
mod tree;
mod virtual_address;
mod words;

pub use catalog::{Check, Instance, Node, NodeState, ProxyEndpoint, Status, Weights};
pub use diagnostic::{Diagnostic, Diagnostics, Located, Place};
pub use duration::{Duration, DurationError};
pub use entry::{Entry, EntryKey, Kind, UnknownKind};
pub use gateway::{
    Edge, ExposedService, Gateway, GatewayKind, Ingress, IngressTls, LinkedService, Listener,
    Terminating,
};
pub use intention::{Action, Intention, IntentionRule, Permission};
pub use matching::{
    HeaderMatch, MatchError, PathMatch, QueryMatch, RequestMatch, StringMatch, parse_methods,
};
pub use mesh::{Mesh, Outbound};
pub use name::{DEFAULT_NAMESPACE, Key, NameError, WILDCARD, check_label, check_name};
pub use path::{PathError, normalize_path};
pub use registration::{
    CheckDefinition, CheckKind, ExposePath, GatewayRegistration, ProxyMode, ProxyRegistration,
    Registration, Sidecar, TaggedAddress, Upstream,
};
pub use route::{Destination, Retries, RetryOn, Route, Rule, Weight, WeightError};
pub use row::{Row, Version};
pub use serial::serial_number;
pub use service::{LoadBalancer, OutlierDetection, Protocol, Service, Subset};
pub use tls::{CipherSuite, KeyExchange, TlsPolicy, TlsVersion};
pub use virtual_address::{NotVirtual, VirtualAddress};

/// For `skip_serializing_if`: whether a value is its type's default.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
