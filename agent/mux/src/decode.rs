//! Cuts a byte stream into frames, wherever the reads happened to end.
//!
//! Frames are handed on where they lie in what was read. Of DATA what there is
//! is handed on, be it a part; another frame that a read cut in two is gathered,
//! in a buffer that goes when the frame is whole.

use crate::error::Violation;
use crate::wire::{Frame, HEADER, Header, Kind, MAGIC};

/// The state between two reads.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    greeted: bool,
    partial: Vec<u8>,
    /// The stream of a DATA frame of which some has not come, and how much.
    missing: Option<(u32, usize)>,
}

impl Decoder {
    /// Takes what was read and calls `on` for each frame in it; for a part of a
    /// DATA frame as if it were one.
    pub(crate) fn feed(
        &mut self,
        mut input: &[u8],
        mut on: impl FnMut(Frame<'_>) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        while !input.is_empty() {
            if let Some((id, missing)) = self.missing {
                let (bytes, rest) = input.split_at(input.len().min(missing));
                let missing = missing - bytes.len();
                self.missing = (missing > 0).then_some((id, missing));
                on(Frame::Data { id, bytes })?;
                input = rest;
                continue;
            }
            if self.partial.is_empty() {
                input = self.take_whole(input, &mut on)?;
                if self.missing.is_none() {
                    self.partial.extend_from_slice(input);
                    return Ok(());
                }
                continue;
            }
            let need = self.need()?;
            let (more, rest) = input.split_at(input.len().min(need - self.partial.len()));
            self.partial.extend_from_slice(more);
            input = rest;
            // With the header whole, need() tells how much of the frame must be there.
            if self.partial.len() == need && self.need()? == need {
                let partial = std::mem::take(&mut self.partial);
                self.take_whole(&partial, &mut on)?;
            }
        }
        Ok(())
    }

    /// Whether the bytes so far end between two frames.
    pub(crate) fn is_between_frames(&self) -> bool {
        self.partial.is_empty() && self.missing.is_none()
    }

    /// Hands on all that is whole; the rest is less than one frame, or the part of one of DATA
    /// that is there.
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
            let Some((payload, after)) = rest.split_at_checked(header.length) else {
                if header.kind == Kind::Data as u8 {
                    self.missing = Some((header.stream()?, header.length));
                    return Ok(rest);
                }
                break;
            };
            on(header.frame(payload)?)?;
            input = after;
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
            Some(head) => Ok(match Header::parse(head)? {
                header if header.kind == Kind::Data as u8 => HEADER,
                header => HEADER + header.length,
            }),
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
        /// What frames carry comes out the same, wherever the reads end.
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
            let mut seen = vec![Vec::new(); payloads.len()];
            let mut ends = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at(rest.len().min(*cut));
                decoder.feed(now, |frame| {
                    match frame {
                        Frame::Data { id, bytes } => {
                            assert!(!bytes.is_empty());
                            seen[id as usize - 1].extend_from_slice(bytes);
                        }
                        Frame::Fin { id } => {
                            ends.push((id, seen[id as usize - 1].len()));
                        }
                        _ => {}
                    }
                    Ok(())
                }).unwrap();
                rest = later;
                if rest.is_empty() { break; }
            }
            let whole = payloads.iter().zip(1..).map(|(payload, id)| (id, payload.len()));
            prop_assert_eq!(ends, whole.collect::<Vec<_>>());
            prop_assert_eq!(seen, payloads);
            prop_assert!(decoder.is_between_frames());
        }
    }

    #[test]
    fn a_part_of_data_is_handed_on() {
        let mut bytes = Vec::new();
        wire::put_preface(&mut bytes, 5);
        wire::put(&mut bytes, Kind::Data, 1, &[7; 100]);
        let mut decoder = Decoder::default();
        let mut parts = Vec::new();
        for read in bytes.chunks(bytes.len() - 40) {
            decoder
                .feed(read, |frame| {
                    if let Frame::Data { id: 1, bytes } = frame {
                        parts.push(bytes.len());
                    }
                    Ok(())
                })
                .unwrap();
            assert_eq!(decoder.is_between_frames(), parts.len() == 2);
        }
        assert_eq!(parts, [60, 40]);
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
