//! Why a stream or a connection ended, and whether another one may be tried.

use std::fmt;
use std::io;
use std::sync::Arc;

/// Why a stream was reset, as it stands on the wire. Codes that we do not know
/// are kept and mean "something failed".
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResetCode(pub u32);

impl ResetCode {
    /// The other side has no more use for the stream (it was dropped).
    pub const CANCELLED: Self = Self(0);
    /// The stream was not processed at all: it may be tried elsewhere.
    pub const REFUSED: Self = Self(1);
    /// The source may not call this destination.
    pub const DENIED: Self = Self(2);
    /// The application behind the destination cannot be reached.
    pub const UNREACHABLE: Self = Self(3);
    /// Something failed at the other side.
    pub const FAILED: Self = Self(4);
}

impl fmt::Display for ResetCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::CANCELLED => f.write_str("cancelled"),
            Self::REFUSED => f.write_str("refused"),
            Self::DENIED => f.write_str("denied"),
            Self::UNREACHABLE => f.write_str("unreachable"),
            Self::FAILED => f.write_str("failed"),
            Self(code) => write!(f, "code {code}"),
        }
    }
}

impl fmt::Debug for ResetCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResetCode({self})")
    }
}

/// Why a side ended the connection, as it stands in a GOAWAY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    /// No error: the side drains.
    pub const NONE: Self = Self(0);
    /// The other side broke a rule of the wire form.
    pub const PROTOCOL: Self = Self(1);
    /// The other side sent more than it had credit for.
    pub const FLOW_CONTROL: Self = Self(2);
    /// The other side makes us answer more than it reads.
    pub const EXCESS: Self = Self(3);
}

/// A rule of the wire form that the other side broke. It ends the connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The first bytes are not ours.
    #[error("the first bytes are not those of mesh/1")]
    BadMagic,
    /// The first frame was another one.
    #[error("the first frame is not SETTINGS")]
    SettingsNotFirst,
    /// SETTINGS came again.
    #[error("a second SETTINGS")]
    SecondSettings,
    /// A frame is longer than the limit.
    #[error(
        "a frame of type {kind} with {length} bytes: at most {} are allowed",
        crate::MAX_PAYLOAD
    )]
    FrameTooLong {
        /// The frame's type.
        kind: u8,
        /// Its payload's length.
        length: usize,
    },
    /// A payload does not fit its type.
    #[error("a frame of type {kind} cannot have {length} bytes")]
    BadLength {
        /// The frame's type.
        kind: u8,
        /// Its payload's length.
        length: usize,
    },
    /// A type that we do not know, and may not skip.
    #[error("a frame of type {kind}, which is not known")]
    UnknownType {
        /// The frame's type.
        kind: u8,
    },
    /// A frame of a stream came without one.
    #[error("a frame of type {kind} on stream 0")]
    NeedsStream {
        /// The frame's type.
        kind: u8,
    },
    /// A frame of the connection came on a stream.
    #[error("a frame of type {kind} on stream {id}: it belongs to stream 0")]
    NeedsConnection {
        /// The frame's type.
        kind: u8,
        /// The stream.
        id: u32,
    },
    /// The reason in a GOAWAY is not UTF-8.
    #[error("a GOAWAY whose reason is not UTF-8")]
    ReasonNotText,
    /// A WINDOW of nothing, or of more than there can be.
    #[error("stream {id}: a WINDOW of {credit}")]
    BadCredit {
        /// The stream, 0 for the connection.
        id: u32,
        /// The credit in the frame.
        credit: u32,
    },
    /// Credits add up to more than there can be.
    #[error("stream {id}: more credit than 2^31 - 1")]
    TooMuchCredit {
        /// The stream, 0 for the connection.
        id: u32,
    },
    /// More data than there was credit for.
    #[error("stream {id}: {length} bytes, with credit for {credit}")]
    NoCredit {
        /// The stream, 0 for the connection.
        id: u32,
        /// The frame's length.
        length: usize,
        /// The credit that was left.
        credit: usize,
    },
    /// A frame of a stream that was never opened.
    #[error("stream {id} was never opened")]
    NotOpened {
        /// The stream.
        id: u32,
    },
    /// OPEN with an id that is not odd and higher than all before.
    #[error("stream {id} cannot be opened: ids are odd and go up, the last one was {last}")]
    BadId {
        /// The stream.
        id: u32,
        /// The highest id so far.
        last: u32,
    },
    /// OPEN from a server, or after the client's GOAWAY.
    #[error("stream {id} cannot be opened by this side, or not any more")]
    MayNotOpen {
        /// The stream.
        id: u32,
    },
    /// Data or FIN after FIN.
    #[error("stream {id}: a frame after FIN")]
    AfterFin {
        /// The stream.
        id: u32,
    },
    /// A later GOAWAY promised more than an earlier one.
    #[error("a GOAWAY with last stream {last}, after one with {before}")]
    GoAwayGrew {
        /// The id in this frame.
        last: u32,
        /// The id in the one before.
        before: u32,
    },
    /// The other side makes us answer and does not read the answers.
    #[error("{0} bytes of answers wait: the other side does not read them")]
    Excess(usize),
}

impl Violation {
    /// How a GOAWAY says it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoCredit { .. } | Self::TooMuchCredit { .. } => ErrorCode::FLOW_CONTROL,
            Self::Excess(_) => ErrorCode::EXCESS,
            _ => ErrorCode::PROTOCOL,
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// A side drained, and all streams have ended.
    #[error("drained")]
    Drained,
    /// The other side closed while no stream was open.
    #[error("closed by the other side")]
    PeerClosed,
    /// The other side ended the connection with an error.
    #[error("ended by the other side with error {}: {reason}", code.0)]
    PeerError {
        /// Its code.
        code: ErrorCode,
        /// Its words: from outside, at most 512 bytes.
        reason: Arc<str>,
    },
    /// The bytes ended while streams were open, or inside a frame.
    #[error("the connection ended in the middle")]
    Lost,
    /// The transport failed.
    #[error("the connection failed: {0}")]
    Io(Arc<io::Error>),
    /// The other side was silent, and did not answer a PING in time.
    #[error("the other side does not answer")]
    KeepaliveTimeout,
    /// The other side broke a rule.
    #[error("the other side broke the protocol: {0}")]
    Violation(Violation),
    /// The [`Driver`](crate::Driver) was dropped before its end.
    #[error("the connection was dropped")]
    Dropped,
}

impl CloseReason {
    /// Whether the connection ended as it should: no stream was cut.
    pub fn is_clean(&self) -> bool {
        matches!(self, Self::Drained | Self::PeerClosed)
    }
}

/// What ended a stream. It is the inner error of the [`io::Error`] that reading
/// or writing gives; [`StreamError::of`] finds it there.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The other side reset it.
    #[error("stream reset by the other side: {0}")]
    Reset(ResetCode),
    /// The other side did not look at it (it drains, or has too many streams).
    #[error("stream not taken by the other side")]
    NotProcessed,
    /// The connection ended first.
    #[error("stream cut: {0}")]
    Connection(CloseReason),
    /// This side has shut its writing down.
    #[error("stream written after its shutdown")]
    AfterShutdown,
}

impl StreamError {
    /// The cause of an error of a [`Stream`](crate::Stream).
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// Whether the other side is known not to have processed any of the stream,
    /// so that all of it may be sent elsewhere.
    pub fn is_safe_to_retry(&self) -> bool {
        matches!(self, Self::NotProcessed)
    }
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match &error {
            StreamError::Reset(_) => io::ErrorKind::ConnectionReset,
            StreamError::NotProcessed => io::ErrorKind::ConnectionRefused,
            StreamError::Connection(_) => io::ErrorKind::ConnectionAborted,
            StreamError::AfterShutdown => io::ErrorKind::BrokenPipe,
        };
        Self::new(kind, error)
    }
}

/// Why a stream could not be opened. Nothing of it was sent.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The connection drains: open on another one.
    #[error("the connection drains")]
    Draining,
    /// The connection has ended: open on another one.
    #[error("the connection is closed: {0}")]
    Closed(CloseReason),
    /// All streams are in use, and enough callers wait for one already.
    #[error("{waiting} callers wait for a free stream already")]
    Busy {
        /// How many wait.
        waiting: usize,
    },
    /// The metadata is over the limit: no connection would take it.
    #[error(
        "metadata of {length} bytes: at most {} are allowed",
        crate::MAX_METADATA
    )]
    MetadataTooLong {
        /// Its length.
        length: usize,
    },
}

impl OpenError {
    /// Whether the same stream may be opened on another connection.
    pub fn is_safe_to_retry(&self) -> bool {
        !matches!(self, Self::MetadataTooLong { .. })
    }
}
