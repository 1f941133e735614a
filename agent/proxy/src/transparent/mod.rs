//! Calls of the application to any address, redirected here by the kernel, and
//! its DNS.
//!
//! What the application asks for first, a name or a virtual address, becomes a
//! *want*: the agent is told the whole set of them, and the next config answers.
//! Until then the question or the connection is held, for a moment and not too
//! many of them. Both sides meet in [`Transparency`], which all threads share:
//! workers have the redirected connections, a thread of its own has DNS, so that
//! a name is answered while a worker is busy, and whoever feeds the plane has the
//! wants and the questions for others.

mod answers;
mod asks;
mod dns;
mod lookup;
mod mark;
mod original;
mod redirected;
mod resolver;
mod thread;
mod wanted;

use std::sync::Arc;

use tokio::sync::watch;

pub(crate) use answers::Answers;
pub use asks::Ask;
pub(crate) use asks::Questions;
pub(crate) use dns::{Sockets, bind};
pub(crate) use mark::{Marking, Own};
pub use original::OriginalDestination;
pub(crate) use redirected::{RedirectedView, serve};
pub(crate) use thread::Thread;
pub use wanted::Want;
pub(crate) use wanted::Wanted;

use crate::Options;
use crate::telemetry::DnsMetrics;

/// What all threads of a transparent plane share.
pub(crate) struct Transparency {
    pub(crate) marking: Marking,
    pub(crate) wanted: Arc<Wanted>,
    /// What is known; none while the config is not transparent.
    pub(crate) answers: watch::Sender<Option<Arc<Answers>>>,
    pub(crate) questions: Questions,
    pub(crate) metrics: DnsMetrics,
}

impl Transparency {
    pub(crate) fn new(options: &Options, metrics: DnsMetrics) -> Self {
        Self {
            marking: Marking::default(),
            wanted: Arc::default(),
            answers: watch::Sender::new(None),
            questions: Questions::new(options.asks.clone()),
            metrics,
        }
    }
}
