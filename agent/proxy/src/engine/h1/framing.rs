//! Where a body ends (RFC 9112, 6 and 7).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;

use super::Malformed;
use super::head::header_map;

/// How a body's end is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Exact(u64),
    Chunked,
    UntilEnd,
}

/// Bytes of chunk extensions that are read over in one body.
const EXTENSIONS: usize = 16 * 1024;
/// Digits of a chunk's size.
const DIGITS: u8 = 15;
/// From this size on a piece stays in what was read; of a smaller one that would hold too much
/// for too long.
const SHARED: usize = 16 * 1024;
/// Bytes and number of trailers.
const TRAILER_BYTES: usize = 16 * 1024;
const TRAILERS: usize = 100;

/// Reads a body.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    extensions: usize,
    trailers: Option<HeaderMap>,
}

#[derive(Debug)]
enum State {
    Exact(u64),
    UntilEnd,
    Size {
        size: u64,
        digits: u8,
    },
    /// Blanks after a size.
    Blank(u64),
    Extension(u64),
    SizeLf(u64),
    Chunk(u64),
    ChunkCr,
    ChunkLf,
    Trailers(Vec<u8>),
    Done,
    /// What followed could be read in more than one way.
    Broken(Malformed),
}

impl Decoder {
    pub(super) fn new(length: Length) -> Self {
        let state = match length {
            Length::Exact(0) => State::Done,
            Length::Exact(length) => State::Exact(length),
            Length::Chunked => State::Size { size: 0, digits: 0 },
            Length::UntilEnd => State::UntilEnd,
        };
        Self {
            state,
            extensions: 0,
            trailers: None,
        }
    }

    /// Nothing comes any more, but for trailers that were not taken.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// What followed cannot be read, or did not come.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.state, State::Broken(_))
    }

    /// The connection failed within the body.
    pub(super) fn fail(&mut self) {
        self.state = State::Broken(Malformed::Rule("the connection failed within the body"));
    }

    /// What is missing, where that is known.
    pub(super) fn missing(&self) -> Option<u64> {
        match self.state {
            State::Exact(missing) => Some(missing),
            State::Done => Some(0),
            _ => None,
        }
    }

    pub(super) fn has_trailers(&self) -> bool {
        self.trailers.is_some()
    }

    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    /// Takes from the front of `input` what belongs to the body; gives back the
    /// data in it.
    ///
    /// After an error there are errors only: nothing is known of where the next
    /// message begins.
    pub(super) fn take(&mut self, input: &mut &[u8]) -> Result<Bytes, Malformed> {
        match &mut self.state {
            State::Done => Ok(Bytes::new()),
            State::Broken(error) => Err(*error),
            State::UntilEnd => Ok(Bytes::copy_from_slice(std::mem::take(input))),
            State::Exact(missing) => {
                let most = usize::try_from(*missing).unwrap_or(usize::MAX);
                let data = front(input, most);
                *missing -= data.len() as u64;
                if *missing == 0 {
                    self.state = State::Done;
                }
                Ok(Bytes::copy_from_slice(data))
            }
            _ => self.take_chunks(input).inspect_err(|error| {
                self.state = State::Broken(*error);
            }),
        }
    }

    /// The same of what was read on its own, of which a large piece is not copied.
    pub(super) fn take_shared(&mut self, input: &mut Bytes) -> Result<Bytes, Malformed> {
        let most = match &self.state {
            State::Exact(missing) => usize::try_from(*missing).unwrap_or(usize::MAX),
            State::UntilEnd => usize::MAX,
            _ => 0,
        };
        let length = most.min(input.len());
        if length < SHARED {
            let mut rest = input.as_ref();
            let taken = self.take(&mut rest);
            let used = input.len() - rest.len();
            input.advance(used);
            return taken;
        }
        let data = input.split_to(length);
        if let State::Exact(missing) = &mut self.state {
            *missing -= length as u64;
            if *missing == 0 {
                self.state = State::Done;
            }
        }
        Ok(data)
    }

    /// No more comes.
    pub(super) fn end(&mut self) -> Result<(), Malformed> {
        match self.state {
            State::UntilEnd | State::Done => {
                self.state = State::Done;
                Ok(())
            }
            _ => {
                let error = Malformed::Rule("the connection ended within the body");
                self.state = State::Broken(error);
                Err(error)
            }
        }
    }

    fn take_chunks(&mut self, input: &mut &[u8]) -> Result<Bytes, Malformed> {
        let mut data = BytesMut::new();
        while !input.is_empty() && !self.is_done() {
            if let State::Chunk(missing) = &mut self.state {
                let most = usize::try_from(*missing).unwrap_or(usize::MAX);
                if data.capacity() == 0 {
                    data.reserve(input.len().min(most));
                }
                let piece = front(input, most);
                *missing -= piece.len() as u64;
                data.put_slice(piece);
                if *missing == 0 {
                    self.state = State::ChunkCr;
                }
                continue;
            }
            if let [byte] = *front(input, 1) {
                self.step(byte)?;
            }
        }
        Ok(data.freeze())
    }

    /// One byte of what is around the data.
    fn step(&mut self, byte: u8) -> Result<(), Malformed> {
        self.state = match (&mut self.state, byte) {
            (State::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                if *digits == DIGITS {
                    return Err(Malformed::Rule("a chunk is larger than anything"));
                }
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                State::Size {
                    size: *size << 4 | u64::from(digit),
                    digits: *digits + 1,
                }
            }
            (State::Size { digits: 0, .. }, _) => {
                return Err(Malformed::Rule("a chunk has no size"));
            }
            (State::Size { size, .. } | State::Blank(size) | State::Extension(size), b'\r') => {
                State::SizeLf(*size)
            }
            (State::Size { size, .. } | State::Blank(size), b';') => State::Extension(*size),
            // A size behind it would be another's.
            (State::Size { size, .. } | State::Blank(size), b' ' | b'\t') => {
                let size = *size;
                self.one_more()?;
                State::Blank(size)
            }
            (State::Extension(size), b'\t' | b' '..=0x7e | 0x80..) => {
                let size = *size;
                self.one_more()?;
                State::Extension(size)
            }
            (State::SizeLf(0), b'\n') => State::Trailers(Vec::new()),
            (State::SizeLf(size), b'\n') => State::Chunk(*size),
            (State::ChunkCr, b'\r') => State::ChunkLf,
            (State::ChunkLf, b'\n') => State::Size { size: 0, digits: 0 },
            (State::Trailers(bytes), _) => {
                if bytes.len() >= TRAILER_BYTES {
                    return Err(Malformed::TooLarge);
                }
                if byte == b'\n' && bytes.last() != Some(&b'\r') {
                    return Err(Malformed::Rule("a line that ends with LF alone"));
                }
                bytes.push(byte);
                if bytes != b"\r\n" && !bytes.ends_with(b"\r\n\r\n") {
                    return Ok(());
                }
                let bytes = Bytes::from(std::mem::take(bytes));
                self.trailers = trailers(&bytes)?;
                State::Done
            }
            _ => return Err(Malformed::Rule("chunks that are none")),
        };
        Ok(())
    }

    /// One more byte that is read over.
    fn one_more(&mut self) -> Result<(), Malformed> {
        self.extensions += 1;
        match self.extensions > EXTENSIONS {
            true => Err(Malformed::Rule("too many chunk extensions")),
            false => Ok(()),
        }
    }
}

fn trailers(bytes: &Bytes) -> Result<Option<HeaderMap>, Malformed> {
    if bytes.as_ref() == b"\r\n" {
        return Ok(None);
    }
    let mut headers = [httparse::EMPTY_HEADER; TRAILERS];
    match httparse::parse_headers(bytes, &mut headers) {
        Ok(httparse::Status::Complete((_, headers))) => header_map(bytes, headers).map(Some),
        _ => Err(Malformed::Rule("trailers that are none")),
    }
}

/// Splits off the front, at most so many bytes.
fn front<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (front, rest) = input.split_at(input.len().min(most));
    *input = rest;
    front
}

/// Writes a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Encoder {
    length: Length,
    trailers: bool,
}

/// A body is longer or shorter than its head says.
#[derive(Debug)]
pub(super) struct WrongLength;

impl Encoder {
    /// `trailers`: whether the other side expects some; else they are left out.
    pub(super) fn new(length: Length, trailers: bool) -> Self {
        Self { length, trailers }
    }

    /// Whether data goes out as it is.
    pub(super) fn is_plain(self) -> bool {
        self.length != Length::Chunked
    }

    /// Counts data that goes out as it is.
    pub(super) fn count(&mut self, bytes: usize) -> Result<(), WrongLength> {
        if let Length::Exact(missing) = &mut self.length {
            *missing = missing.checked_sub(bytes as u64).ok_or(WrongLength)?;
        }
        Ok(())
    }

    /// Puts data where it is written from.
    pub(super) fn put(&mut self, out: &mut Vec<u8>, data: &[u8]) -> Result<(), WrongLength> {
        if data.is_empty() {
            return Ok(()); // as a chunk it would be the end
        }
        if self.is_plain() {
            self.count(data.len())?;
            out.extend_from_slice(data);
            return Ok(());
        }
        let mut size = [0; 16];
        out.extend_from_slice(hexadecimal(data.len(), &mut size));
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// The end; trailers go out where they can.
    pub(super) fn finish(
        &mut self,
        out: &mut Vec<u8>,
        trailers: Option<&HeaderMap>,
    ) -> Result<(), WrongLength> {
        match self.length {
            Length::Exact(0) | Length::UntilEnd => Ok(()),
            Length::Exact(_) => Err(WrongLength),
            Length::Chunked => {
                out.extend_from_slice(b"0\r\n");
                if let Some(trailers) = trailers.filter(|_| self.trailers) {
                    super::head::put_trailers(out, trailers);
                }
                out.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }
}

fn hexadecimal(mut number: usize, digits: &mut [u8; 16]) -> &[u8] {
    let mut at = digits.len();
    for digit in digits.iter_mut().rev() {
        at -= 1;
        *digit = b"0123456789abcdef"
            .get(number & 15)
            .copied()
            .unwrap_or(b'0');
        number >>= 4;
        if number == 0 {
            break;
        }
    }
    digits.get(at..).unwrap_or_default()
}

/// Reads chunks in pieces of two sizes, which must come to the same.
pub(crate) fn fuzz(data: &[u8]) {
    let read = |size: usize| {
        let mut decoder = Decoder::new(Length::Chunked);
        let mut got = Vec::new();
        for piece in data.chunks(size) {
            let mut rest = piece;
            while !rest.is_empty() && !decoder.is_done() {
                got.extend_from_slice(&decoder.take(&mut rest).map_err(drop)?);
            }
        }
        Ok::<_, ()>((got, decoder.is_done(), decoder.take_trailers()))
    };
    assert_eq!(read(1), read(data.len().max(1)), "depends on the reads");
}
