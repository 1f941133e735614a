//! The feed: facts down to agents, catalog and acks up, one stream an agent.
//!
//! Facts are made of the state when they are sent, not when something changes: however slow an
//! agent is, what waits for it is a set of topics, and it gets the newest answer to each. A topic
//! is either *dirty* (to be sent) or *watched* (its index is as sent, and the state wakes us when it
//! rises). A mark says that none is dirty as of a version.

use mesh_proto::servers::v1 as wire;
use mesh_proto::servers::v1::from_agent::Message;

mod catalog;
mod facts;
mod read;
mod registry;
mod service;
mod session;
mod subscriptions;

pub(crate) use facts::Facts;
pub(crate) use mesh_proto::servers::{MAX_FROM_AGENT as MAX_MESSAGE, MAX_TOPICS};
pub(crate) use registry::Registry;
pub(crate) use service::{FeedService, certified};

/// Reads whatever a message holds; for fuzzing.
pub(crate) fn read_any(message: wire::FromAgent) {
    match message.message {
        Some(Message::Catalog(change)) => {
            if let Ok(change) = catalog::read_change("n1", change.change) {
                let command = change.command("n1", 1);
                let bytes = mesh_state::Envelope::new(1, command).encode();
                assert!(bytes.is_ok(), "a change cannot be proposed");
            }
        }
        Some(Message::Subscribe(subscribe)) => {
            for held in subscribe.add {
                let topic: Result<mesh_proto::fact::Topic, _> = held.topic.parse();
                if let Ok(topic) = topic {
                    // An address has several forms, and is written in one.
                    assert_eq!(topic.to_string().parse(), Ok(topic));
                }
            }
        }
        Some(Message::Proxies(report)) => {
            let registry = Registry::new("s1");
            if let Some(place) = registry.open("n1", 1) {
                registry.reported(&place, report.proxies);
                registry.statuses();
            }
        }
        _ => {}
    }
}

/// The longest message to an agent, in bytes.
pub(crate) const MAX_FACT: usize = 64 << 20;
