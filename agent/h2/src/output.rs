//! What is to be written.
//!
//! Small things stand in one buffer. Large pieces of bodies stay where they are,
//! each with its place in the buffer, so that they are not copied.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use crate::frame::{HEAD, Head, Kind};

/// From this size on a piece is not copied.
const LARGE: usize = 4 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub struct Output {
    buffer: Vec<u8>,
    /// How much of the buffer was written.
    at: usize,
    /// Before which place of the buffer each comes.
    large: VecDeque<(usize, Bytes)>,
    /// What is there altogether.
    length: usize,
}

impl Output {
    /// Bytes that are to be written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether it has a buffer: one may be given to it while it has none.
    #[must_use]
    pub fn has_buffer(&self) -> bool {
        self.buffer.capacity() > 0
    }

    /// Gives it a buffer, if it has none.
    pub fn give_buffer(&mut self, buffer: Vec<u8>) {
        if self.buffer.capacity() == 0 && buffer.is_empty() {
            self.buffer = buffer;
        }
    }

    /// Takes its buffer, if all is written.
    pub fn take_buffer(&mut self) -> Option<Vec<u8>> {
        (self.length == 0).then(|| std::mem::take(&mut self.buffer))
    }

    /// The first pieces of it, in `slices`; how many there are.
    pub fn pieces<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut at = self.at;
        let mut count = 0;
        let mut large = self.large.iter();
        let mut slots = slices.iter_mut();
        loop {
            let next = large.next();
            let until = next.map_or(self.buffer.len(), |(place, _)| *place);
            let parts = [
                self.buffer.get(at..until).unwrap_or_default(),
                next.map_or(&[][..], |(_, bytes)| bytes),
            ];
            for part in parts.into_iter().filter(|part| !part.is_empty()) {
                let Some(slot) = slots.next() else {
                    return count;
                };
                *slot = IoSlice::new(part);
                count += 1;
            }
            if next.is_none() {
                return count;
            }
            at = until;
        }
    }

    /// So many bytes were written.
    pub fn advance(&mut self, bytes: usize) {
        self.length = self.length.saturating_sub(bytes);
        let mut left = bytes;
        while let Some((place, piece)) = self.large.front_mut() {
            let before = (*place - self.at).min(left);
            self.at += before;
            left -= before;
            let of_it = piece.len().min(left);
            piece.advance(of_it);
            left -= of_it;
            if self.at < *place || !piece.is_empty() {
                return;
            }
            self.large.pop_front();
        }
        self.at += left;
        if self.length == 0 {
            self.buffer.clear();
            self.at = 0;
        }
    }

    /// All that is there; for tests and small tools.
    pub fn take(&mut self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.length);
        while self.length > 0 {
            let mut slices = [IoSlice::new(&[])];
            self.pieces(&mut slices);
            let piece = slices.first().map_or(0, |slice| {
                all.extend_from_slice(slice);
                slice.len()
            });
            self.advance(piece);
        }
        all
    }

    /// A frame with little in it.
    pub(crate) fn frame(&mut self, kind: Kind, flags: u8, id: u32, payload: &[u8]) {
        let head = Head {
            length: payload.len(),
            kind,
            flags,
            id,
        };
        self.append(&head.bytes());
        self.append(payload);
    }

    /// A frame of a body.
    pub(crate) fn data(&mut self, flags: u8, id: u32, data: Bytes) {
        if data.len() < LARGE {
            return self.frame(Kind::Data, flags, id, &data);
        }
        let head = Head {
            length: data.len(),
            kind: Kind::Data,
            flags,
            id,
        };
        self.append(&head.bytes());
        self.length += data.len();
        self.large.push_back((self.buffer.len(), data));
    }

    /// A head: what `write` writes, in as many frames as it takes.
    pub(crate) fn block(
        &mut self,
        flags: u8,
        id: u32,
        largest: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        use crate::frame::END_HEADERS;
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; HEAD]);
        write(&mut self.buffer);
        let length = self.buffer.len() - start - HEAD;
        if length > largest {
            let block = self.buffer.split_off(start).split_off(HEAD);
            let mut kind = Kind::Headers;
            let mut flags = flags;
            let mut pieces = block.chunks(largest).peekable();
            while let Some(piece) = pieces.next() {
                let last = if pieces.peek().is_none() {
                    END_HEADERS
                } else {
                    0
                };
                self.frame(kind, flags | last, id, piece);
                (kind, flags) = (Kind::Continuation, 0);
            }
            return;
        }
        self.length += length + HEAD;
        let head = Head {
            length,
            kind: Kind::Headers,
            flags: flags | END_HEADERS,
            id,
        };
        if let Some(place) = self.buffer.get_mut(start..start + HEAD) {
            place.copy_from_slice(&head.bytes());
        }
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        self.buffer.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However it is written, the bytes and their order stay.
        #[test]
        fn pieces_are_in_order(
            sizes in proptest::collection::vec(0usize..3 * LARGE, 0..12),
            steps in proptest::collection::vec((1usize..5, 1usize..2 * LARGE), 1..200),
        ) {
            let mut output = Output::default();
            let mut expected = Vec::new();
            for (id, size) in sizes.iter().enumerate() {
                let data = vec![u8::try_from(id).unwrap_or(0); *size];
                let head = Head { length: *size, kind: Kind::Data, flags: 0, id: 1 };
                expected.extend_from_slice(&head.bytes());
                expected.extend_from_slice(&data);
                output.data(0, 1, Bytes::from(data));
            }
            let mut written = Vec::new();
            for (count, most) in steps {
                prop_assert_eq!(output.len(), expected.len() - written.len());
                let mut slices = [IoSlice::new(&[]); 4];
                let found = output.pieces(&mut slices[..count.min(4)]);
                let all: Vec<u8> = slices[..found].iter().flat_map(|slice| slice.to_vec()).collect();
                let now = &all[..all.len().min(most)];
                written.extend_from_slice(now);
                let now = now.len();
                output.advance(now);
            }
            written.extend(output.take());
            prop_assert_eq!(written, expected);
            prop_assert!(output.is_empty());
        }
    }
}
