//! Why a stream or a connection ends.

use std::fmt;

use crate::hpack::HpackError;

/// An error code of RFC 9113, section 7.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reason(pub u32);

impl Reason {
    /// Nothing is wrong.
    pub const NO_ERROR: Self = Self(0);
    /// A rule was broken.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// Something broke within whoever says it.
    pub const INTERNAL_ERROR: Self = Self(2);
    /// More was sent than there was room for.
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    /// A frame for a stream that is over.
    pub const STREAM_CLOSED: Self = Self(5);
    /// A frame of a size that it may not have.
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    /// Nothing of it was processed.
    pub const REFUSED_STREAM: Self = Self(7);
    /// It is not needed any more.
    pub const CANCEL: Self = Self(8);
    /// Heads cannot be read any more.
    pub const COMPRESSION_ERROR: Self = Self(9);
    /// The other side makes work without use.
    pub const ENHANCE_YOUR_CALM: Self = Self(11);

    fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "NO_ERROR",
            1 => "PROTOCOL_ERROR",
            2 => "INTERNAL_ERROR",
            3 => "FLOW_CONTROL_ERROR",
            4 => "SETTINGS_TIMEOUT",
            5 => "STREAM_CLOSED",
            6 => "FRAME_SIZE_ERROR",
            7 => "REFUSED_STREAM",
            8 => "CANCEL",
            9 => "COMPRESSION_ERROR",
            10 => "CONNECT_ERROR",
            11 => "ENHANCE_YOUR_CALM",
            12 => "INADEQUATE_SECURITY",
            13 => "HTTP_1_1_REQUIRED",
            _ => return None,
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error {}", self.0),
        }
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A rule that the other side broke; the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} ({reason})")]
pub struct Violation {
    /// What is told to it.
    pub reason: Reason,
    /// In words.
    pub what: &'static str,
}

impl Violation {
    pub(crate) fn new(reason: Reason, what: &'static str) -> Self {
        Self { reason, what }
    }

    pub(crate) fn protocol(what: &'static str) -> Self {
        Self::new(Reason::PROTOCOL_ERROR, what)
    }

    pub(crate) fn size(what: &'static str) -> Self {
        Self::new(Reason::FRAME_SIZE_ERROR, what)
    }

    pub(crate) fn calm(what: &'static str) -> Self {
        Self::new(Reason::ENHANCE_YOUR_CALM, what)
    }
}

impl From<HpackError> for Violation {
    fn from(error: HpackError) -> Self {
        let what = match error {
            HpackError::Short => "a header block ends within a field",
            HpackError::Integer => "a number in a header block is too large",
            HpackError::Index => "a header block names a place where nothing is",
            HpackError::Huffman => "a string in a header block is not in the Huffman code",
            HpackError::TableSize => "a header block changes the table's size as it may not",
        };
        Self::new(Reason::COMPRESSION_ERROR, what)
    }
}

/// Why a stream is over before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetBy {
    /// The other side said so.
    Peer(Reason),
    /// The other side broke a rule on it: which, in words.
    Malformed(&'static str),
    /// The other side goes, and has not processed it.
    Unprocessed(Reason),
}

impl fmt::Display for ResetBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(reason) => write!(f, "the stream was reset: {reason}"),
            Self::Malformed(what) => write!(f, "malformed: {what}"),
            Self::Unprocessed(reason) => write!(f, "the connection was closing: {reason}"),
        }
    }
}
