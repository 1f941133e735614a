//! Servers among themselves, beside Raft: who belongs to which cluster, who is heard, what the
//! proxies run.

mod client;
mod gather;
mod service;

pub(crate) use client::{PeerClients, connector};
pub(crate) use gather::{Gathered, gather};
pub(crate) use service::{PeerService, authorize_raft};
