//! The plugin in real network namespaces, with real rules and sockets.
//!
//! These need root, iptables and iproute2, and end at once without; tests/unit/run
//! names them then. Nothing of the host's own network is touched: a namespace is
//! a thread's, without a name, and gone with it.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod flow;
mod load;
mod world;
