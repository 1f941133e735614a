//! Cuts a byte stream into frames, wherever the reads happened to end.
//!
//! Whole frames are handed on where they lie in the read buffer; only one that
//! a read cut in two is gathered, in a buffer that goes when the frame is whole.

use crate::error::Violation;
use crate::wire::{Frame, HEADER, Header, MAGIC};

/// The state between two reads.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    greeted: bool,
    partial: Vec<u8>,
}

impl Decoder {
    /// Takes what was read and calls `on` for each frame in it.
    pub(crate) fn feed(
        &mut self,
        mut input: &[u8],
        mut on: impl FnMut(Frame<'_>) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        while !input.is_empty() {
            if self.partial.is_empty() {
                input = self.take_whole(input, &mut on)?;
                self.partial.extend_from_slice(input);
                return Ok(());
            }
            let need = self.need()?;
            let (more, rest) = input.split_at(input.len().min(need - self.partial.len()));
            self.partial.extend_from_slice(more);
            input = rest;
            // With the header whole, need() tells how long the frame is.
            if self.partial.len() == need && self.need()? == need {
                let partial = std::mem::take(&mut self.partial);
                self.take_whole(&partial, &mut on)?;
            }
        }
        Ok(())
    }

    /// Whether the bytes so far end between two frames.
    pub(crate) fn is_between_frames(&self) -> bool {
        self.partial.is_empty()
    }

    /// Hands on all that is whole; the rest is less than one frame.
    fn take_whole<'a>(
        &mut self,
        mut input: &'a [u8],
        on: &mut impl FnMut(Frame<'_>) -> Result<(), Violation>,
    ) -> Result<&'a [u8], Violation> {
        if !self.greeted {
            let start = &input[..input.len().min(MAGIC.len())];
            if !MAGIC.starts_with(start) {
                return Err(Violation::BadMagic);
            }
            let Some(rest) = input.strip_prefix(&MAGIC) else {
                return Ok(input);
            };
            self.greeted = true;
            input = rest;
        }
        while let Some((head, rest)) = input.split_first_chunk::<HEADER>() {
            let header = Header::parse(head)?;
            let Some((payload, rest)) = rest.split_at_checked(header.length) else {
                break;
            };
            on(header.frame(payload)?)?;
            input = rest;
        }
        Ok(input)
    }

    /// How many bytes `partial` must have before something can be said.
    fn need(&self) -> Result<usize, Violation> {
        if !self.greeted {
            return Ok(MAGIC.len());
        }
        match self.partial.first_chunk::<HEADER>() {
            None => Ok(HEADER),
            Some(head) => Ok(HEADER + Header::parse(head)?.length),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{self, Kind};

    proptest! {
        /// Frames come out the same, wherever the reads end.
        #[test]
        fn any_cut_gives_the_same_frames(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8),
            cuts in prop::collection::vec(1usize..64, 1..20),
        ) {
            let mut bytes = Vec::new();
            wire::put_preface(&mut bytes, 5);
            for (i, payload) in payloads.iter().enumerate() {
                wire::put(&mut bytes, Kind::Data, i as u32 + 1, payload);
                wire::put(&mut bytes, Kind::Fin, i as u32 + 1, &[]);
            }
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at(rest.len().min(*cut));
                decoder.feed(now, |frame| {
                    if let Frame::Data { bytes, .. } = frame {
                        seen.push(bytes.to_vec());
                    }
                    Ok(())
                }).unwrap();
                rest = later;
                if rest.is_empty() { break; }
            }
            prop_assert_eq!(seen, payloads);
            prop_assert!(decoder.is_between_frames());
        }
    }

    #[test]
    fn a_wrong_greeting_is_refused_at_its_first_wrong_byte() {
        let mut decoder = Decoder::default();
        decoder.feed(b"me", |_| Ok(())).unwrap();
        let error = decoder
            .feed(b"t", |_| Ok(()))
            .and_then(|()| decoder.feed(b"h/1\r\n", |_| Ok(())));
        assert_eq!(error, Err(Violation::BadMagic));
        assert_eq!(
            Decoder::default().feed(b"GET / HTTP/1.1\r\n", |_| Ok(())),
            Err(Violation::BadMagic)
        );
    }

    #[test]
    fn an_overlong_frame_is_refused_before_its_payload() {
        let mut decoder = Decoder::default();
        decoder.feed(&MAGIC, |_| Ok(())).unwrap();
        decoder.feed(&[0xff, 0xff], |_| Ok(())).unwrap();
        let error = decoder.feed(&[0xff, 2, 0, 0, 0, 0, 1], |_| Ok(()));
        assert!(matches!(error, Err(Violation::FrameTooLong { .. })));
    }
}
