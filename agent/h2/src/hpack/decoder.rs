//! Reads header blocks.

use std::collections::VecDeque;

use http::HeaderName;

use super::field::{Field, Name};
use super::{ENTRY_OVERHEAD, HpackError, TABLE_SIZE, integer, statics};
use crate::huffman;

/// Reads the header blocks of a connection.
pub(crate) struct Decoder {
    /// The newest is first.
    entries: VecDeque<Entry>,
    /// What they cost together.
    size: usize,
    /// What they may cost.
    most: usize,
    /// What the other side may make of `most`.
    allowed: usize,
    /// Where strings are decoded.
    name: Vec<u8>,
    value: Vec<u8>,
    /// Names that came in full: a field that differs with each head is not kept, and
    /// its name comes again and again.
    names: Names,
}

struct Entry {
    field: Field,
    size: usize,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            most: TABLE_SIZE,
            allowed: TABLE_SIZE,
            name: Vec::new(),
            value: Vec::new(),
            names: Names::default(),
        }
    }

    /// Reads a whole block, and gives out each field with its size (RFC 9113,
    /// 6.5.2).
    pub(crate) fn block(
        &mut self,
        mut input: &[u8],
        mut take: impl FnMut(usize, Taken<'_>),
    ) -> Result<(), HpackError> {
        let mut begun = false;
        while let Some(first) = input.first().copied() {
            if first & 0x80 != 0 {
                let index = integer::read(&mut input, 7)?;
                self.indexed(index, &mut take)?;
            } else if first & 0xc0 == 0x40 {
                self.literal(&mut input, 6, true, &mut take)?;
            } else if first & 0xe0 == 0x20 {
                let most = integer::read(&mut input, 5)?;
                if begun || most > self.allowed {
                    return Err(HpackError::TableSize);
                }
                self.resize(most);
                continue; // several may stand at the beginning
            } else {
                self.literal(&mut input, 4, false, &mut take)?;
            }
            begun = true;
        }
        Ok(())
    }

    fn indexed(
        &self,
        index: usize,
        take: &mut impl FnMut(usize, Taken<'_>),
    ) -> Result<(), HpackError> {
        if let Some(place) = index.checked_sub(statics::COUNT + 1) {
            let entry = self.entries.get(place).ok_or(HpackError::Index)?;
            take(entry.size, Taken::Kept(&entry.field));
            return Ok(());
        }
        let field = statics::field(index).ok_or(HpackError::Index)?;
        let value = match &field {
            Field::Header(_, value) => value.len(),
            Field::Method(method) => method.as_str().len(),
            Field::Path(path) => path.as_str().len(),
            Field::Scheme(scheme) => scheme.as_str().len(),
            _ => 3,
        };
        take(
            field.name().length() + value + ENTRY_OVERHEAD,
            Taken::New(field),
        );
        Ok(())
    }

    fn literal(
        &mut self,
        input: &mut &[u8],
        prefix: u32,
        keep: bool,
        take: &mut impl FnMut(usize, Taken<'_>),
    ) -> Result<(), HpackError> {
        let name = match integer::read(input, prefix)? {
            0 => self.names.of(string(input, &mut self.name)?),
            index => match index.checked_sub(statics::COUNT + 1) {
                None => statics::name(index).ok_or(HpackError::Index)?,
                Some(place) => self
                    .entries
                    .get(place)
                    .ok_or(HpackError::Index)?
                    .field
                    .name(),
            },
        };
        let value = string(input, &mut self.value)?;
        let size = name.length() + value.len() + ENTRY_OVERHEAD;
        let field = name.with(value);
        if !keep {
            take(size, Taken::New(field));
            return Ok(());
        }
        take(size, Taken::Kept(&field));
        self.insert(Entry { field, size });
        Ok(())
    }

    /// What the table costs.
    pub(crate) fn table_size(&self) -> usize {
        self.size
    }

    /// Keeps a field; one that is too large only empties the table.
    fn insert(&mut self, entry: Entry) {
        let room = self.most.saturating_sub(entry.size);
        self.evict(room);
        if entry.size <= self.most {
            self.size += entry.size;
            self.entries.push_front(entry);
        }
    }

    fn resize(&mut self, most: usize) {
        self.most = most;
        self.evict(most);
    }

    /// Forgets the oldest until it is no more than this.
    fn evict(&mut self, room: usize) {
        while self.size > room {
            match self.entries.pop_back() {
                Some(entry) => self.size -= entry.size,
                None => self.size = 0,
            }
        }
    }
}

/// Names that are remembered, and how long they may be.
const NAMES: usize = 8;
const LONGEST_NAME: usize = 64;

/// The last names that came in full.
#[derive(Default)]
struct Names {
    known: [Option<HeaderName>; NAMES],
    /// Whose place the next one takes.
    next: usize,
}

impl Names {
    fn of(&mut self, text: &[u8]) -> Name {
        let mut known = self.known.iter().flatten();
        if let Some(name) = known.find(|name| name.as_str().as_bytes() == text) {
            return Name::Header(name.clone());
        }
        let name = Name::of(text);
        if let Name::Header(new) = &name
            && text.len() <= LONGEST_NAME
            && let Some(place) = self.known.get_mut(self.next)
        {
            *place = Some(new.clone());
            self.next = (self.next + 1) % NAMES;
        }
        name
    }
}

/// A field that was read.
pub(crate) enum Taken<'a> {
    New(Field),
    /// It stays in the table.
    Kept(&'a Field),
}

impl Taken<'_> {
    pub(crate) fn into_field(self) -> Field {
        match self {
            Self::New(field) => field,
            Self::Kept(field) => field.clone(),
        }
    }
}

/// Reads a string; one in the Huffman code is decoded into `decoded`.
fn string<'a, 'i: 'a>(
    input: &mut &'i [u8],
    decoded: &'a mut Vec<u8>,
) -> Result<&'a [u8], HpackError> {
    let first = input.first().copied().ok_or(HpackError::Short)?;
    let length = integer::read(input, 7)?;
    let (text, rest) = input.split_at_checked(length).ok_or(HpackError::Short)?;
    *input = rest;
    if first & 0x80 == 0 {
        return Ok(text);
    }
    decoded.clear();
    huffman::decode(text, decoded).map_err(|_| HpackError::Huffman)?;
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text
            .chars()
            .filter_map(|char| char.to_digit(16))
            .map(|digit| u8::try_from(digit).unwrap())
            .collect();
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    }

    fn fields(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, HpackError> {
        let mut all = Vec::new();
        decoder.block(block, |_, taken| {
            all.push(match taken.into_field() {
                Field::Authority(text) => format!(":authority: {text}"),
                Field::Method(text) => format!(":method: {text}"),
                Field::Path(text) => format!(":path: {text}"),
                Field::Scheme(text) => format!(":scheme: {text}"),
                Field::Status(text) => format!(":status: {}", text.as_str()),
                Field::Protocol(text) => format!(":protocol: {text:?}"),
                Field::Header(name, value) => format!("{name}: {}", value.to_str().unwrap()),
                Field::Bad(length) => format!("bad {length}"),
            });
        })?;
        Ok(all)
    }

    /// RFC 7541, C.3 and C.4: requests, without and with the Huffman code.
    #[test]
    fn requests_of_the_rfc() {
        let plain = [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ];
        let coded = [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ];
        for blocks in [plain, coded] {
            let mut decoder = Decoder::new();
            let first = fields(&mut decoder, &hex(blocks[0])).unwrap();
            let same = [":method: GET", ":scheme: http", ":path: /"];
            let authority = ":authority: www.example.com";
            assert_eq!(first, [&same[..], &[authority]].concat());
            assert_eq!(decoder.size, 57);
            let second = fields(&mut decoder, &hex(blocks[1])).unwrap();
            assert_eq!(
                second,
                [&same[..], &[authority, "cache-control: no-cache"]].concat()
            );
            assert_eq!(decoder.size, 110);
            let third = fields(&mut decoder, &hex(blocks[2])).unwrap();
            assert_eq!(
                third,
                [
                    ":method: GET",
                    ":scheme: https",
                    ":path: /index.html",
                    authority,
                    "custom-key: custom-value"
                ]
            );
            assert_eq!(decoder.size, 164);
        }
    }

    /// RFC 7541, C.5 and C.6: answers, in a table of 256 bytes.
    #[test]
    fn answers_of_the_rfc() {
        let plain = [
            "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54\
             6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
            "4803333037c1c0bf",
            "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f\
             3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076\
             657273696f6e3d31",
        ];
        let coded = [
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad1718\
             63c78f0b97c8e9ae82ae43d3",
            "4883640effc1c0bf",
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7\
             b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
        ];
        for blocks in [plain, coded] {
            let mut decoder = Decoder::new();
            decoder.resize(256);
            let first = fields(&mut decoder, &hex(blocks[0])).unwrap();
            let date = "date: Mon, 21 Oct 2013 20:13:21 GMT";
            let location = "location: https://www.example.com";
            let private = "cache-control: private";
            assert_eq!(first, [":status: 302", private, date, location]);
            assert_eq!(decoder.size, 222);
            let second = fields(&mut decoder, &hex(blocks[1])).unwrap();
            assert_eq!(second, [":status: 307", private, date, location]);
            let third = fields(&mut decoder, &hex(blocks[2])).unwrap();
            let cookie = "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
            assert_eq!(
                third,
                [
                    ":status: 200",
                    private,
                    "date: Mon, 21 Oct 2013 20:13:22 GMT",
                    location,
                    "content-encoding: gzip",
                    cookie
                ]
            );
            assert_eq!(decoder.size, 215);
        }
    }

    #[test]
    fn what_breaks_the_connection() {
        for (block, error) in [
            (&[0x80][..], HpackError::Index),
            (&[0xbe], HpackError::Index),
            (&[0x7e, 0x00], HpackError::Index),
            (&[0x40, 0x05, b'a'], HpackError::Short),
            (&[0x82, 0x20], HpackError::TableSize), // not at the beginning
            (&[0x3f, 0xe2, 0x1f], HpackError::TableSize), // 4097
            (&[0x00, 0x81, 0x18, 0x00], HpackError::Huffman),
        ] {
            assert_eq!(fields(&mut Decoder::new(), block), Err(error), "{block:x?}");
        }
        // 0, and back to what is allowed.
        let mut decoder = Decoder::new();
        fields(&mut decoder, &[0x20, 0x3f, 0xe1, 0x1f, 0x82]).unwrap();
        assert_eq!(decoder.most, 4096);
    }

    #[test]
    fn what_may_not_be_sent_is_kept_as_that() {
        let mut decoder = Decoder::new();
        let block = [&[0x40, 0x01][..], b"A", &[0x01], b"b", &[0xbe]].concat();
        assert_eq!(fields(&mut decoder, &block).unwrap(), ["bad 1", "bad 1"]);
        assert_eq!(decoder.size, 34);
    }

    #[test]
    fn names_in_full_are_what_they_say() {
        let mut decoder = Decoder::new();
        for round in 0..2 {
            for number in 0..NAMES + 3 {
                let name = format!("x-{number:02}");
                let block = [&[0x00, 0x04][..], name.as_bytes(), &[0x01], b"b"].concat();
                let expected = [format!("{name}: b")];
                assert_eq!(fields(&mut decoder, &block).unwrap(), expected, "{round}");
            }
        }
        let path = [&[0x00, 0x05][..], b":path", &[0x02], b"/a"].concat();
        assert_eq!(fields(&mut decoder, &path).unwrap(), [":path: /a"]);
    }

    #[test]
    fn one_that_is_too_large_empties_the_table() {
        let mut decoder = Decoder::new();
        decoder.resize(64);
        let block = [&[0x40, 0x01][..], b"a", &[0x01], b"b"].concat();
        fields(&mut decoder, &block).unwrap();
        assert_eq!(decoder.entries.len(), 1);
        let large = [&[0x40, 0x01][..], b"a", &[0x20], &[b'b'; 32]].concat();
        fields(&mut decoder, &large).unwrap();
        assert_eq!((decoder.entries.len(), decoder.size), (0, 0));
    }
}
