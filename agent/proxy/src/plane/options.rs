//! What a data plane is started with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mesh_policy::Features;
use tokio::sync::mpsc;

use crate::transparent::{Ask, OriginalDestination};

/// What a data plane is started with; none of it changes while it runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many workers (threads) there are; at least 1.
    pub concurrency: usize,
    /// Where the access log goes.
    pub access_log: AccessLog,
    /// What this build, or the build that a test plays, understands.
    pub features: Features,
    /// How much of anything is taken.
    pub limits: Limits,
    /// Where the workers' random numbers begin; `None`: anywhere. A test sets
    /// it.
    pub seed: Option<u64>,
    /// Who is told what a transparent plane asks; `None`: nobody, so that it
    /// knows what its config says and no more.
    pub asks: Option<mpsc::UnboundedSender<Ask>>,
    /// Who says where redirected connections were going. A test does.
    pub original: OriginalDestination,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            concurrency: 1,
            access_log: AccessLog::Off,
            features: Features::default(),
            limits: Limits::default(),
            seed: None,
            asks: None,
            original: OriginalDestination::Kernel,
        }
    }
}

/// Where the access log goes: a line of JSON for each request and connection.
#[derive(Clone, Default)]
pub enum AccessLog {
    /// Nowhere.
    #[default]
    Off,
    /// To standard output.
    Stdout,
    /// To a function, which gets some whole lines at a time, on a thread where
    /// it may block.
    To(LogSink),
}

/// Takes some whole lines at a time.
pub type LogSink = Arc<dyn Fn(&[u8]) + Send + Sync>;

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "Off",
            Self::Stdout => "Stdout",
            Self::To(_) => "To(..)",
        })
    }
}

/// How much of anything is taken.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections of each listener on each worker; the next waits in the
    /// kernel.
    pub connections: usize,
    /// Requests or streams at once on one connection.
    pub streams: u32,
    /// Headers of a request or an answer.
    pub headers: usize,
    /// Bytes of all headers of a request or an answer.
    pub header_bytes: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long the head of a request may take from its first byte on (or from
    /// the connection's beginning).
    pub head: Duration,
    /// How long the whole of a request to an exposed path may take.
    pub exposed: Duration,
    /// How long an idle connection is kept: kept-alive HTTP/1.1 connections to
    /// the application and to peers, and peers' warm connections.
    pub idle: Duration,
    /// How long a byte stream may be silent in both directions.
    pub stream_idle: Duration,
    /// How long streams may go on after the peer's certificate has expired;
    /// new ones are not begun on that connection.
    pub expiry_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16 * 1024,
            streams: 4096,
            headers: 128,
            header_bytes: 64 * 1024,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            exposed: Duration::from_secs(60),
            idle: Duration::from_secs(90),
            stream_idle: Duration::from_secs(8 * 3600),
            expiry_grace: Duration::from_secs(600),
        }
    }
}
