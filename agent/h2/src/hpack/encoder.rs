//! Writes header blocks.
//!
//! What is said for the second time goes into the dynamic table, and takes a
//! byte from then on; what differs with each message (a trace's id, a date
//! that ticks, a path) never does. Text is not put in the Huffman code: between
//! two sidecars bytes are cheaper than that.

use http::header::{self, HeaderName, HeaderValue};

use super::{ENTRY_OVERHEAD, TABLE_SIZE, integer, statics};

/// Places that are looked at for a field; a power of two.
const SLOTS: usize = 128;
const SEEN: usize = 64;

/// Writes the header blocks of a connection.
pub(crate) struct Encoder {
    /// In the order in which they were kept, the oldest first; each has a number
    /// that counts up.
    entries: std::collections::VecDeque<Entry>,
    /// The number of the first of them.
    oldest: u32,
    /// What they cost together, and may cost.
    size: usize,
    most: usize,
    /// The sizes that the other side must be told of: the least since the last
    /// block, and the present one.
    resized: Option<(usize, usize)>,
    /// By the hash of a field: its number.
    slots: Box<[Slot; SLOTS]>,
    /// Hashes of what was said once.
    seen: Box<[u32; SEEN]>,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    hash: u32,
    number: u32,
}

struct Entry {
    text: Box<[u8]>,
    /// How much of the text is the name.
    name: usize,
}

impl Entry {
    fn size(&self) -> usize {
        self.text.len() + ENTRY_OVERHEAD
    }

    fn is(&self, name: &[u8], value: &[u8]) -> bool {
        self.text.len() == name.len() + value.len()
            && self
                .text
                .split_at_checked(self.name)
                .is_some_and(|(own, rest)| own == name && rest == value)
    }
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self {
            entries: std::collections::VecDeque::new(),
            oldest: 0,
            size: 0,
            most: TABLE_SIZE,
            resized: None,
            slots: Box::new([Slot::default(); SLOTS]),
            seen: Box::new([0; SEEN]),
        }
    }

    /// The other side keeps as much as this at most.
    pub(crate) fn set_table_size(&mut self, most: usize) {
        let most = most.min(TABLE_SIZE);
        if most == self.most && self.resized.is_none() {
            return;
        }
        let least = self.resized.map_or(most, |(least, _)| least.min(most));
        self.resized = Some((least, most));
        self.most = most;
        self.evict(most);
    }

    /// Before each block: says what the table's size is now.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some((least, most)) = self.resized.take() {
            if least < most {
                integer::write(out, 0x20, 5, least);
            }
            integer::write(out, 0x20, 5, most);
        }
    }

    /// A field of the static table.
    pub(crate) fn fixed(out: &mut Vec<u8>, index: u8) {
        out.push(0x80 | index);
    }

    /// A header.
    pub(crate) fn header(&mut self, out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
        let (bytes, text) = (value.as_bytes().trim_ascii(), name.as_str());
        if value.is_sensitive() || is_secret(name) {
            // Never kept by whoever passes it on either (RFC 7541, 7.1.3).
            return written(out, 0x10, statics::index_of(text), text.as_bytes(), bytes);
        }
        self.field(out, text.as_bytes(), bytes, |text| {
            std::str::from_utf8(text).map_or(0, statics::index_of)
        });
    }

    /// A field, whose name is at `place` of the static table, or nowhere if that
    /// gives 0.
    pub(crate) fn field(
        &mut self,
        out: &mut Vec<u8>,
        name: &[u8],
        value: &[u8],
        place: impl FnOnce(&[u8]) -> usize,
    ) {
        let hash = hash(name, value);
        let slot = self.slot(hash);
        if slot.hash == hash
            && let Some(age) = self.newer_than(slot.number)
            && let Some(entry) = self
                .entries
                .get(slot.number.wrapping_sub(self.oldest) as usize)
            && entry.is(name, value)
        {
            return integer::write(out, 0x80, 7, statics::COUNT + 1 + age);
        }
        let index = place(name);
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        // Said again, and not more than a part of the table.
        if self.saw(hash) && size <= self.most / 4 {
            written(out, 0x40, index, name, value);
            self.keep(hash, name, value, size);
        } else {
            written(out, 0, index, name, value);
        }
    }

    /// How many entries were kept after this one, if it still is.
    fn newer_than(&self, number: u32) -> Option<usize> {
        let at = number.wrapping_sub(self.oldest) as usize;
        self.entries.len().checked_sub(at + 1)
    }

    fn keep(&mut self, hash: u32, name: &[u8], value: &[u8], size: usize) {
        self.evict(self.most - size);
        let mut text = Vec::with_capacity(name.len() + value.len());
        text.extend_from_slice(name);
        text.extend_from_slice(value);
        #[allow(clippy::cast_possible_truncation)] // a table of 4 KiB holds 128
        let number = self.oldest.wrapping_add(self.entries.len() as u32);
        self.entries.push_back(Entry {
            text: text.into_boxed_slice(),
            name: name.len(),
        });
        self.size += size;
        if let Some(slot) = self.slots.get_mut(slot_of(hash)) {
            *slot = Slot { hash, number };
        }
    }

    fn evict(&mut self, room: usize) {
        while self.size > room {
            let Some(entry) = self.entries.pop_front() else {
                self.size = 0;
                return;
            };
            self.size -= entry.size();
            self.oldest = self.oldest.wrapping_add(1);
        }
    }

    fn slot(&self, hash: u32) -> Slot {
        self.slots.get(slot_of(hash)).copied().unwrap_or_default()
    }

    /// Whether it was said before, as far as that is remembered.
    fn saw(&mut self, hash: u32) -> bool {
        match self.seen.get_mut((hash >> 16) as usize % SEEN) {
            Some(seen) => std::mem::replace(seen, hash) == hash,
            None => false,
        }
    }
}

/// What a guess at it must not be confirmed by a length.
fn is_secret(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::AUTHORIZATION | header::PROXY_AUTHORIZATION | header::COOKIE | header::SET_COOKIE
    )
}

/// A field in full; `kind` says whether it is kept.
fn written(out: &mut Vec<u8>, kind: u8, index: usize, name: &[u8], value: &[u8]) {
    let prefix = if kind == 0x40 { 6 } else { 4 };
    integer::write(out, kind, prefix, index);
    if index == 0 {
        string(out, name);
    }
    string(out, value);
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    integer::write(out, 0, 7, text.len());
    out.extend_from_slice(text);
}

/// The slot of a hash, whose lowest bit says nothing.
fn slot_of(hash: u32) -> usize {
    (hash >> 1) as usize % SLOTS
}

/// Who makes two the same loses the table's use, and nothing else.
fn hash(name: &[u8], value: &[u8]) -> u32 {
    let mut state = (name.len() as u64) << 32 | value.len() as u64;
    for text in [name, value] {
        let (words, rest) = text.as_chunks::<8>();
        for word in words {
            state = mixed(state, u64::from_le_bytes(*word));
        }
        // What is left, with what stands before it if there is enough.
        let last = match text.last_chunk::<8>() {
            Some(last) => u64::from_le_bytes(*last),
            None => (rest.iter().rev()).fold(0, |all, byte| all << 8 | u64::from(*byte)),
        };
        state = mixed(state, last);
    }
    #[allow(clippy::cast_possible_truncation)] // the upper half of it
    let folded = (state >> 32) as u32;
    folded | 1 // 0 is nothing
}

#[inline]
fn mixed(state: u64, word: u64) -> u64 {
    (state.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::super::decoder::Decoder;
    use super::super::field::Field;
    use super::*;

    fn encoded(encoder: &mut Encoder, fields: &[(String, String)]) -> Vec<u8> {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            encoder.header(&mut out, &name, &HeaderValue::from_str(value).unwrap());
        }
        out
    }

    fn decoded(decoder: &mut Decoder, block: &[u8]) -> Vec<(String, String)> {
        let mut all = Vec::new();
        decoder
            .block(block, |_, taken| match taken.into_field() {
                Field::Header(name, value) => {
                    all.push((name.to_string(), value.to_str().unwrap().to_owned()));
                }
                other => panic!("{other:?}"),
            })
            .unwrap();
        all
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn what_is_said_again_takes_a_byte() {
        let mut encoder = Encoder::new();
        let same = [pair("user-agent", "wrk"), pair("x-other", "one")];
        let lengths = [(); 3].map(|()| encoded(&mut encoder, &same).len());
        assert_eq!(lengths, [6 + 13, 5 + 13, 2]);
        // What differs each time is not kept.
        for number in 0..9 {
            encoded(
                &mut encoder,
                &[pair("x-trace", &format!("number-{number}"))],
            );
        }
        assert_eq!(encoder.entries.len(), 2);
        // Neither is what is secret.
        for _ in 0..3 {
            let block = encoded(&mut encoder, &[pair("authorization", "secret")]);
            assert_eq!(block[0] & 0xf0, 0x10);
        }
        assert_eq!(encoder.entries.len(), 2);
    }

    #[test]
    fn the_table_is_as_large_as_the_other_side_says() {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        let same = [pair("x-a", "1")];
        for _ in 0..3 {
            decoded(&mut decoder, &encoded(&mut encoder, &same));
        }
        encoder.set_table_size(0);
        encoder.set_table_size(1 << 20);
        let block = encoded(&mut encoder, &same);
        assert_eq!(block[..4], [0x20, 0x3f, 0xe1, 0x1f]); // 0, then 4096
        assert_eq!(decoded(&mut decoder, &block), same);
        assert_eq!(encoder.entries.len(), 1);
    }

    proptest! {
        /// Whatever is said, and however the table's size changes, the other
        /// side reads the same.
        #[test]
        fn there_and_back(
            blocks in proptest::collection::vec(
                (
                    proptest::collection::vec((0usize..9, "[!-~]{0,40}", 0usize..6), 0..12),
                    proptest::option::of(0usize..400),
                ),
                0..40,
            )
        ) {
            const NAMES: [&str; 9] = [
                "x-a", "x-b", "user-agent", "accept", "te-x", "cookie", "x-long-name-of-a-header", "age", "via",
            ];
            let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
            for (fields, size) in blocks {
                if let Some(size) = size {
                    encoder.set_table_size(size);
                }
                // Few values, so that they are said again; or one that is new.
                let fields: Vec<_> = fields
                    .into_iter()
                    .map(|(name, new, known)| match known {
                        0 => pair(NAMES[name], &new),
                        _ => pair(NAMES[name], &"value".repeat(known * known)),
                    })
                    .collect();
                let block = encoded(&mut encoder, &fields);
                prop_assert_eq!(decoded(&mut decoder, &block), fields);
                prop_assert!(encoder.size <= encoder.most);
            }
        }
    }
}
