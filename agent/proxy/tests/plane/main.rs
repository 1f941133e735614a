//! The data plane, whole: real sockets, real handshakes, two proxies and more
//! in one process, and applications at both ends.
#![allow(clippy::unwrap_used)]

mod broken;
mod change;
mod drain;
mod fairness;
mod foreign;
mod go_peer;
mod grpc;
mod http;
mod ingress;
mod limits;
mod native;
mod policy;
mod retry;
mod revoked;
mod stream;
mod support;
mod telemetry;
mod terminating;
mod tls;
mod transparent;
mod transparent_dns;
mod transparent_rules;
mod upgrade;
