//! The agent as a whole: a server and proxies as tests play them, over real sockets and TLS.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod doors;
mod leaves;
mod native;
mod proxies;
mod reads;
mod restart;
mod revoked;
mod servers;
mod support;
mod transparent;
mod workloads;
