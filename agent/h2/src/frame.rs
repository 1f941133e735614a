//! Frames (RFC 9113, section 4 and 6).

/// What stands before each frame's payload, in bytes.
pub(crate) const HEAD: usize = 9;
/// What a client says first.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest frame, until the settings say otherwise.
pub(crate) const DEFAULT_FRAME: u32 = 16_384;
pub(crate) const LARGEST_FRAME: u32 = (1 << 24) - 1;
/// A window, until the settings say otherwise.
pub(crate) const DEFAULT_WINDOW: u32 = 65_535;
pub(crate) const LARGEST_WINDOW: u32 = (1 << 31) - 1;
/// The last stream that there can be.
pub(crate) const LARGEST_ID: u32 = (1 << 31) - 1;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const PRIORITY: u8 = 0x20;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    Unknown,
}

impl Kind {
    fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::Reset,
            4 => Self::Settings,
            5 => Self::PushPromise,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            _ => Self::Unknown,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Headers => 1,
            Self::Priority => 2,
            Self::Reset => 3,
            Self::Settings => 4,
            Self::PushPromise => 5,
            Self::Ping => 6,
            Self::GoAway => 7,
            Self::WindowUpdate => 8,
            Self::Continuation => 9,
            Self::Unknown => 0xff,
        }
    }
}

/// What stands before a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) length: usize,
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) id: u32,
}

impl Head {
    #[inline]
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, id @ ..] = bytes.first_chunk::<HEAD>()?;
        Some(Self {
            length: usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c),
            kind: Kind::of(*kind),
            flags: *flags,
            id: u32::from_be_bytes(*id) & LARGEST_ID,
        })
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation)] // of 24 bits
    pub(crate) fn bytes(self) -> [u8; HEAD] {
        let [i, j, k, l] = self.id.to_be_bytes();
        [
            (self.length >> 16) as u8,
            (self.length >> 8) as u8,
            self.length as u8,
            self.kind.byte(),
            self.flags,
            i,
            j,
            k,
            l,
        ]
    }

    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A number of four bytes, which may be all that there is.
pub(crate) fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().copied().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn there_and_back(length in 0usize..1 << 24, kind in 0u8..10, flags: u8, id in 0u32..1 << 31) {
            let head = Head { length, kind: Kind::of(kind), flags, id };
            prop_assert_eq!(Head::read(&head.bytes()), Some(head));
        }
    }
}
