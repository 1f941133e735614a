//! The feed: facts down to agents, catalog and acks up, one stream an agent.
//!
//! Facts are made of the state when they are sent, not when something changes: however slow an
//! agent is, what waits for it is a set of topics, and it gets the newest answer to each. A topic
//! is either *dirty* (to be sent) or *watched* (its index is as sent, and the state wakes us when it
//! rises). A mark says that none is dirty as of a version.

mod catalog;
mod facts;
mod registry;
mod service;
mod session;
mod subscriptions;

pub(crate) use facts::Facts;
pub(crate) use registry::Registry;
pub(crate) use service::{FeedService, certified};

/// Topics that one agent may ask for.
pub(crate) const MAX_TOPICS: usize = 8192;
/// The longest message of an agent, in bytes.
pub(crate) const MAX_MESSAGE: usize = 4 << 20;
/// The longest message to an agent, in bytes.
pub(crate) const MAX_FACT: usize = 64 << 20;
