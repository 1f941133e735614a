//! What one side allows and how patient it is.

use std::time::Duration;

use crate::wire::{INITIAL_CONNECTION_WINDOW, INITIAL_STREAM_WINDOW, MAX_CREDIT};

/// Limits and times of one side of a connection.
///
/// What a connection holds at most: `connection_window` bytes that arrived and
/// were not read, `write_buffer` bytes that were written and not sent, and, at
/// a server, `accept_backlog` times 4 KiB of metadata.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many streams may be open together. At a server: those that it
    /// serves, more are refused (and may be tried elsewhere). At a client: its
    /// own limit beside the server's.
    pub max_streams: usize,
    /// How many callers may wait for a free stream at a client.
    pub max_pending_opens: usize,
    /// How many streams may wait at a server to be accepted; more are refused.
    pub accept_backlog: usize,
    /// The largest window of one stream, in bytes: what may arrive before it is
    /// read. A stream begins at 32 KiB, and grows to this while its reader
    /// keeps up. Less than 32 KiB counts as 32 KiB.
    pub stream_window: usize,
    /// The window of all streams together, in bytes. Half of it is for streams
    /// that grow, so that no growth takes the first 32 KiB from a new stream.
    /// Less than 1 MiB counts as 1 MiB.
    pub connection_window: usize,
    /// How many bytes may wait to be sent before writers must wait.
    pub write_buffer: usize,
    /// After how much silence of the other side a PING is sent; `None`: never.
    pub keepalive_interval: Option<Duration>,
    /// How long the answer to that PING may take.
    pub keepalive_timeout: Duration,
    /// How long the end of a connection may take: the last frames out, and the
    /// other side's end in.
    pub close_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_streams: 4096,
            max_pending_opens: 1024,
            accept_backlog: 1024,
            stream_window: 1024 * 1024,
            connection_window: 16 * 1024 * 1024,
            write_buffer: 512 * 1024,
            keepalive_interval: Some(Duration::from_secs(15)),
            keepalive_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// The same with every size within what the wire form allows.
    pub(crate) fn clamped(mut self) -> Self {
        self.max_streams = self.max_streams.clamp(1, u32::MAX as usize);
        self.stream_window = self.stream_window.clamp(INITIAL_STREAM_WINDOW, MAX_CREDIT);
        self.connection_window =
            (self.connection_window).clamp(INITIAL_CONNECTION_WINDOW, MAX_CREDIT);
        self.write_buffer = self.write_buffer.max(1024);
        self
    }
}
