//! Engines: they read and write HTTP, and know nothing of the mesh.
//!
//! [`h1`] speaks HTTP/1.1, and [`mesh_h2`] knows HTTP/2. What they share with the rest is
//! [`crate::http::Call`] and [`crate::http::Answer`]; another engine needs to
//! give these and no more.

mod abort;
mod crew;
pub(crate) mod greeting;
pub(crate) mod h1;
mod h2_body;
pub(crate) mod h2_client;
mod h2_link;
pub(crate) mod h2_server;
pub(crate) mod sniff;

use std::time::Duration;

use tokio::time::Instant;

use crate::http::Call;

/// What a serving engine allows.
#[derive(Clone, Debug)]
pub(crate) struct ServeLimits {
    pub(crate) streams: u32,
    pub(crate) headers: usize,
    pub(crate) header_bytes: usize,
    /// How long a connection may be without a request, and a head (or the
    /// beginning of HTTP/2) may take; of HTTP/1.1 also how long nothing of an
    /// answer may be taken.
    pub(crate) head: Option<Duration>,
    /// Whoever is at the other end has proved nothing: no patience beyond that.
    pub(crate) strangers: bool,
    /// From when on nothing new is taken on a connection, and when it is cut.
    pub(crate) until: Option<(Instant, Instant)>,
}

/// Why a call has no answer.
pub(crate) struct SendError {
    pub(crate) kind: SendErrorKind,
    /// What happened, in words.
    pub(crate) what: String,
    /// The call, if nothing of it was sent.
    pub(crate) call: Option<Box<Call>>,
}

/// How far a call that has no answer got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendErrorKind {
    /// The other side did not process it, and says so (or it was not sent).
    Refused,
    /// The connection or the stream ended, after it may have been processed.
    Reset,
    /// The other side's bytes are not HTTP.
    Malformed,
    /// The call's own body broke.
    Body,
}

/// HTTP/2 windows: what may be under way unread.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// What one DATA frame may hold. Large ones cost less for each byte; one
/// delays the others on its connection by less than 0.1 ms.
const FRAME: u32 = 64 * 1024;
/// Streams that may be given up in ten seconds beside those that are finished.
/// One connection carries the calls of many: when they all give up at once (a
/// timeout, an application that ends), that is no attack, and what others do on
/// it must not end with it. Whoever is at the other end has proved its identity
/// or is our own application.
const RESETS: u32 = 64 * 1024;
/// The same for strangers.
const STRANGERS_RESETS: u32 = 1024;

/// What a connection of HTTP/2 allows.
fn h2_config(header_bytes: usize) -> mesh_h2::Config {
    mesh_h2::Config {
        stream_window: STREAM_WINDOW,
        connection_window: CONNECTION_WINDOW,
        frame: FRAME,
        header_bytes,
        resets: RESETS,
        ..mesh_h2::Config::default()
    }
}
