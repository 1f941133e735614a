//! What a connection allows.

/// What a connection allows the other side. Sizes are in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Streams that it may have open at a time, where it is the client.
    pub streams: u32,
    /// What may be under way unread on a stream; at least 65,535.
    pub stream_window: u32,
    /// The same on all streams together; at least 65,535.
    pub connection_window: u32,
    /// What a frame may hold, and what our own hold at most if the other side
    /// allows it; at least 16,384.
    pub frame: u32,
    /// The size of a head with what RFC 9113 (6.5.2) adds for each field.
    pub header_bytes: usize,
    /// Streams that it may give up, or break, more than it finishes. They come
    /// again with [`crate::Connection::replenish`].
    pub resets: u32,
    /// Frames that bring nothing (pings, settings, empty ones, unknown ones) more
    /// than those that do. They come again in the same way.
    pub idle_frames: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            streams: 100,
            stream_window: 1024 * 1024,
            connection_window: 8 * 1024 * 1024,
            frame: 64 * 1024,
            header_bytes: 64 * 1024,
            resets: 100,
            idle_frames: 10_000,
        }
    }
}
