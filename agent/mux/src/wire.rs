//! The wire form: what `docs/reference/mesh-1.md` says, as constants and codecs.
//!
//! A frame is at most 16 KiB with its header, so that a full one is exactly one
//! TLS record.

use crate::error::Violation;

/// The ALPN token. An incompatible form gets another one.
pub const ALPN: &[u8] = b"mesh/1";

/// The first bytes that each side sends.
pub(crate) const MAGIC: [u8; 8] = *b"mesh/1\r\n";

/// Length of a frame header.
pub(crate) const HEADER: usize = 9;

/// The longest payload of a frame, in bytes: with its header, one TLS record.
pub const MAX_PAYLOAD: usize = 16_384 - HEADER;

/// The longest metadata of a stream, in bytes.
pub const MAX_METADATA: usize = 4096;

/// The longest reason in a GOAWAY, in bytes. A longer one is cut.
pub(crate) const MAX_REASON: usize = 512;

/// What a sender may send on a new stream before it hears a WINDOW.
pub(crate) const INITIAL_STREAM_WINDOW: usize = 32 * 1024;

/// What a sender may send on a new connection before it hears a WINDOW.
pub(crate) const INITIAL_CONNECTION_WINDOW: usize = 1024 * 1024;

/// The most credit that a sender may ever hold.
pub(crate) const MAX_CREDIT: usize = (1 << 31) - 1;

/// How many streams a client may have open before it knows the server's limit.
pub(crate) const INITIAL_MAX_STREAMS: usize = 128;

/// The highest stream id. A client that used it drains the connection.
pub(crate) const MAX_STREAM_ID: u32 = (1 << 31) - 1;

/// A type with this bit is skipped by who does not know it.
const IGNORABLE: u8 = 0x80;

/// The setting: how many streams the other side may have open.
const SETTING_MAX_STREAMS: u16 = 1;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Settings = 0,
    Open = 1,
    Data = 2,
    Fin = 3,
    Reset = 4,
    Window = 5,
    Ping = 6,
    Pong = 7,
    GoAway = 8,
}

/// One frame, with its payload checked against its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// The sender's settings: the streams that it allows, if it says.
    Settings {
        max_streams: Option<u32>,
    },
    Open {
        id: u32,
        metadata: &'a [u8],
    },
    Data {
        id: u32,
        bytes: &'a [u8],
    },
    Fin {
        id: u32,
    },
    Reset {
        id: u32,
        code: u32,
    },
    /// Credit, for a stream or (id 0) the connection.
    Window {
        id: u32,
        credit: u32,
    },
    Ping([u8; 8]),
    Pong([u8; 8]),
    GoAway {
        last: u32,
        code: u32,
        reason: &'a str,
    },
    /// A type that we do not know and may skip.
    Ignored,
}

/// A frame header, with only its length checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) id: u32,
}

impl Header {
    /// Parses a header, and refuses a length over the limit at once, so that no
    /// peer makes us wait for (and hold) an overlong frame.
    pub(crate) fn parse(bytes: &[u8; HEADER]) -> Result<Self, Violation> {
        let [l0, l1, l2, kind, _flags, i0, i1, i2, i3] = *bytes;
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        if length > MAX_PAYLOAD {
            return Err(Violation::FrameTooLong { kind, length });
        }
        Ok(Self {
            length,
            kind,
            id: u32::from_be_bytes([i0, i1, i2, i3]),
        })
    }

    /// Reads the payload as what the header says it is.
    pub(crate) fn frame<'a>(&self, payload: &'a [u8]) -> Result<Frame<'a>, Violation> {
        let bad_length = || Violation::BadLength {
            kind: self.kind,
            length: payload.len(),
        };
        let id = self.id;
        match self.kind {
            k if k == Kind::Data as u8 => match payload {
                [] => Err(bad_length()),
                bytes => Ok(Frame::Data {
                    id: self.stream()?,
                    bytes,
                }),
            },
            k if k == Kind::Window as u8 => {
                let credit = u32::from_be_bytes(payload.try_into().map_err(|_| bad_length())?);
                if credit == 0 || credit as usize > MAX_CREDIT {
                    return Err(Violation::BadCredit { id, credit });
                }
                Ok(Frame::Window { id, credit })
            }
            k if k == Kind::Open as u8 => {
                if payload.len() > MAX_METADATA {
                    return Err(bad_length());
                }
                Ok(Frame::Open {
                    id: self.stream()?,
                    metadata: payload,
                })
            }
            k if k == Kind::Fin as u8 => match payload {
                [] => Ok(Frame::Fin { id: self.stream()? }),
                _ => Err(bad_length()),
            },
            k if k == Kind::Reset as u8 => Ok(Frame::Reset {
                id: self.stream()?,
                code: u32::from_be_bytes(payload.try_into().map_err(|_| bad_length())?),
            }),
            k if k == Kind::Ping as u8 => {
                self.connection()?;
                Ok(Frame::Ping(payload.try_into().map_err(|_| bad_length())?))
            }
            k if k == Kind::Pong as u8 => {
                self.connection()?;
                Ok(Frame::Pong(payload.try_into().map_err(|_| bad_length())?))
            }
            k if k == Kind::GoAway as u8 => {
                self.connection()?;
                let (last, rest) = payload.split_first_chunk().ok_or_else(bad_length)?;
                let (code, reason) = rest.split_first_chunk().ok_or_else(bad_length)?;
                if reason.len() > MAX_REASON {
                    return Err(bad_length());
                }
                Ok(Frame::GoAway {
                    last: u32::from_be_bytes(*last),
                    code: u32::from_be_bytes(*code),
                    reason: std::str::from_utf8(reason).map_err(|_| Violation::ReasonNotText)?,
                })
            }
            k if k == Kind::Settings as u8 => {
                self.connection()?;
                let (settings, rest) = payload.as_chunks::<6>();
                if !rest.is_empty() {
                    return Err(bad_length());
                }
                let mut max_streams = None;
                for [s0, s1, v0, v1, v2, v3] in settings {
                    if u16::from_be_bytes([*s0, *s1]) == SETTING_MAX_STREAMS {
                        max_streams = Some(u32::from_be_bytes([*v0, *v1, *v2, *v3]));
                    }
                }
                Ok(Frame::Settings { max_streams })
            }
            k if k & IGNORABLE != 0 => Ok(Frame::Ignored),
            kind => Err(Violation::UnknownType { kind }),
        }
    }

    /// The id of a frame that belongs to a stream.
    pub(crate) fn stream(&self) -> Result<u32, Violation> {
        match self.id {
            0 => Err(Violation::NeedsStream { kind: self.kind }),
            id => Ok(id),
        }
    }

    /// Checks a frame that belongs to the connection.
    fn connection(&self) -> Result<(), Violation> {
        match self.id {
            0 => Ok(()),
            id => Err(Violation::NeedsConnection {
                kind: self.kind,
                id,
            }),
        }
    }
}

/// The header of a frame. `length` is at most [`MAX_PAYLOAD`].
pub(crate) fn header(kind: Kind, id: u32, length: usize) -> [u8; HEADER] {
    debug_assert!(length <= MAX_PAYLOAD);
    let [_, l0, l1, l2] = (length as u32).to_be_bytes();
    let [i0, i1, i2, i3] = id.to_be_bytes();
    [l0, l1, l2, kind as u8, 0, i0, i1, i2, i3]
}

/// Appends a frame whose payload is at hand.
pub(crate) fn put(buf: &mut Vec<u8>, kind: Kind, id: u32, payload: &[u8]) {
    buf.extend_from_slice(&header(kind, id, payload.len()));
    buf.extend_from_slice(payload);
}

/// Appends a RESET.
pub(crate) fn put_reset(buf: &mut Vec<u8>, id: u32, code: u32) {
    put(buf, Kind::Reset, id, &code.to_be_bytes());
}

/// Appends a WINDOW. `credit` is at most [`MAX_CREDIT`].
pub(crate) fn put_window(buf: &mut Vec<u8>, id: u32, credit: usize) {
    debug_assert!(credit > 0 && credit <= MAX_CREDIT);
    put(buf, Kind::Window, id, &(credit as u32).to_be_bytes());
}

/// Appends a GOAWAY; a reason that is too long is cut at a character.
pub(crate) fn put_goaway(buf: &mut Vec<u8>, last: u32, code: u32, reason: &str) {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = &reason[..end];
    buf.extend_from_slice(&header(Kind::GoAway, 0, 8 + reason.len()));
    buf.extend_from_slice(&last.to_be_bytes());
    buf.extend_from_slice(&code.to_be_bytes());
    buf.extend_from_slice(reason.as_bytes());
}

/// Appends what a side sends first: the magic bytes and its SETTINGS.
pub(crate) fn put_preface(buf: &mut Vec<u8>, max_streams: u32) {
    buf.extend_from_slice(&MAGIC);
    let [s0, s1] = SETTING_MAX_STREAMS.to_be_bytes();
    let [v0, v1, v2, v3] = max_streams.to_be_bytes();
    put(buf, Kind::Settings, 0, &[s0, s1, v0, v1, v2, v3]);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Frame<'_>, Violation> {
        let (head, payload) = bytes.split_first_chunk::<HEADER>().unwrap();
        Header::parse(head)?.frame(payload)
    }

    /// The bytes of each frame, which a later version must still send.
    #[test]
    fn known_bytes() {
        let mut buf = Vec::new();
        put_preface(&mut buf, 1024);
        assert_eq!(
            buf,
            b"mesh/1\r\n\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x04\x00"
        );
        buf.clear();
        put(&mut buf, Kind::Open, 3, b"x");
        assert_eq!(buf, b"\x00\x00\x01\x01\x00\x00\x00\x00\x03x");
        buf.clear();
        put_window(&mut buf, 0, 65536);
        assert_eq!(buf, b"\x00\x00\x04\x05\x00\x00\x00\x00\x00\x00\x01\x00\x00");
        buf.clear();
        put_goaway(&mut buf, 7, 1, "no");
        assert_eq!(
            buf,
            b"\x00\x00\x0a\x08\x00\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x01no"
        );
    }

    #[test]
    fn a_full_frame_is_one_tls_record() {
        let mut buf = Vec::new();
        put(&mut buf, Kind::Data, 1, &[0; MAX_PAYLOAD]);
        assert_eq!(buf.len(), 16_384);
    }

    #[test]
    fn types_that_are_not_known() {
        assert_eq!(parse(&[0, 0, 0, 0x90, 0, 0, 0, 0, 0]), Ok(Frame::Ignored));
        assert_eq!(
            parse(&[0, 0, 0, 0x10, 0, 0, 0, 0, 0]),
            Err(Violation::UnknownType { kind: 0x10 })
        );
    }

    #[test]
    fn settings_skip_what_is_not_known() {
        let settings = [
            0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 9, 1, 2, 3, 4, 0, 1, 0, 0, 0, 5,
        ];
        assert_eq!(
            parse(&settings),
            Ok(Frame::Settings {
                max_streams: Some(5)
            })
        );
    }

    #[test]
    fn bad_frames() {
        let too_long = [0, 0x40, 0, 2, 0, 0, 0, 0, 1];
        let empty_data = [0, 0, 0, 2, 0, 0, 0, 0, 1];
        let data_of_nothing = [0, 0, 1, 2, 0, 0, 0, 0, 0, 1];
        let ping_of_a_stream = [0, 0, 8, 6, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8];
        let no_credit = [0, 0, 4, 5, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        let too_much_credit = [0, 0, 4, 5, 0, 0, 0, 0, 1, 0x80, 0, 0, 0];
        let short_goaway = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let odd_settings = [0, 0, 1, 0, 0, 0, 0, 0, 0, 1];
        for bytes in [
            &too_long[..],
            &empty_data,
            &data_of_nothing,
            &ping_of_a_stream,
            &no_credit,
            &too_much_credit,
            &short_goaway,
            &odd_settings,
        ] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let mut buf = Vec::new();
        put_goaway(&mut buf, 0, 1, &"ä".repeat(MAX_REASON));
        let Frame::GoAway { reason, .. } = parse(&buf).unwrap() else {
            panic!("a GOAWAY");
        };
        assert_eq!(reason, "ä".repeat(MAX_REASON / 2));
    }
}
