//! Facts and a registration in, the config of a proxy out: a pure function.
//!
//! The agent compiles the configs of its own proxies, so the cost grows with a
//! node's proxies and not with the mesh. [`wire`] says two things at once: which
//! topics the proxy hangs on (the routes of its upstreams may lead to further
//! services), and its config, once each of them has had a first answer. A proxy
//! is never wired from a part of what it needs. What a transparent proxy was
//! asked for besides comes into its config as the answers come.
#![forbid(unsafe_code)]

mod called;
mod clusters;
mod facts;
mod ingress;
mod terminating;
mod transparent;
mod wire;

pub use facts::{FactError, FactStore};
pub use transparent::{DNS_PORT, OUTBOUND_PORT, Wants};
pub use wire::{Input, Wired, wire};
