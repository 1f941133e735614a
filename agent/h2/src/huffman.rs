//! The static Huffman code of HPACK (RFC 7541, appendix B).
//!
//! It is canonical: the codes of a length count up in the order of their
//! symbols, and each length goes on where the one before ended. So the lengths
//! say all.

/// How many bits each byte takes.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11,
    10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8,
    15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5,
    6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23,
    23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21,
    23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25,
    26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26,
    28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

const SHORTEST: usize = 5;
const LONGEST: usize = 30;
/// Codes up to this length are looked up at once.
const QUICK: usize = 9;

struct Tables {
    /// Symbols in the order of their codes.
    symbols: [u8; 256],
    /// By length: the first code that is longer, at the left of 32 bits.
    limit: [u32; LONGEST + 1],
    /// By length: what is added to a code to have its place in `symbols`.
    offset: [i32; LONGEST + 1],
    /// By the next bits: the symbol, and how many bits it takes; 0 if more.
    quick: [(u8, u8); 1 << QUICK],
    /// What each byte is written as.
    #[cfg_attr(not(test), allow(dead_code))]
    codes: [u32; 256],
}

static TABLES: Tables = tables();

#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // numbers below 2^30
const fn tables() -> Tables {
    let mut new = Tables {
        symbols: [0; 256],
        limit: [0; LONGEST + 1],
        offset: [0; LONGEST + 1],
        quick: [(0, 0); 1 << QUICK],
        codes: [0; 256],
    };
    let mut length = SHORTEST;
    let mut place = 0;
    let mut code: u32 = 0;
    while length <= LONGEST {
        new.offset[length] = place as i32 - code as i32;
        let mut symbol = 0;
        while symbol < 256 {
            if LENGTHS[symbol] as usize == length {
                new.symbols[place] = symbol as u8;
                new.codes[symbol] = code;
                if length <= QUICK {
                    let first = (code as usize) << (QUICK - length);
                    let mut at = first;
                    while at < first + (1 << (QUICK - length)) {
                        new.quick[at] = (symbol as u8, length as u8);
                        at += 1;
                    }
                }
                code += 1;
                place += 1;
            }
            symbol += 1;
        }
        new.limit[length] = code << (32 - length);
        code <<= 1;
        length += 1;
    }
    new
}

/// What was decoded is not what the code allows: bits beyond the end that are
/// no padding, or the symbol that stands for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadHuffman;

/// Decodes all of it to the end of `out`.
pub(crate) fn decode(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), BadHuffman> {
    out.reserve(bytes.len() * 8 / SHORTEST + 1);
    let mut held: u64 = 0; // the next bits, at the left
    let mut bits = 0;
    let mut rest = bytes.iter();
    loop {
        while bits <= 56 {
            let Some(byte) = rest.next() else { break };
            held |= u64::from(*byte) << (56 - bits);
            bits += 8;
        }
        let (symbol, length) = match next(held) {
            Some(found) if found.1 <= bits => found,
            // Less than a byte of ones, and no more (RFC 7541, 5.2).
            _ if bits < 8 && held == u64::MAX.checked_shl(64 - bits).unwrap_or(0) => return Ok(()),
            _ => return Err(BadHuffman),
        };
        out.push(symbol);
        held <<= length;
        bits -= length;
    }
}

/// The symbol at the left, and its length.
#[inline]
#[allow(clippy::cast_possible_truncation)] // of parts that are that small
fn next(held: u64) -> Option<(u8, u32)> {
    let quick = (held >> (64 - QUICK)) as usize;
    let (symbol, length) = TABLES.quick.get(quick).copied()?;
    if length > 0 {
        return Some((symbol, u32::from(length)));
    }
    let left = (held >> 32) as u32;
    let limits = TABLES.limit.iter().enumerate().skip(QUICK + 1);
    for (length, limit) in limits {
        if left < *limit {
            let code = (left >> (32 - length)).cast_signed();
            let place = usize::try_from(code + TABLES.offset.get(length)?).ok()?;
            return Some((*TABLES.symbols.get(place)?, length as u32));
        }
    }
    None
}

/// Encodes. Our own heads are not: between two sidecars bytes are cheaper.
#[cfg(test)]
pub(crate) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    let mut held: u64 = 0;
    let mut bits = 0;
    for byte in bytes {
        let length = u32::from(LENGTHS[usize::from(*byte)]);
        held = held << length | u64::from(TABLES.codes[usize::from(*byte)]);
        bits += length;
        while bits >= 8 {
            bits -= 8;
            out.push((held >> bits & 0xff) as u8);
        }
    }
    if bits > 0 {
        out.push((held << (8 - bits) & 0xff) as u8 | 0xff >> bits);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn decoded(bytes: &[u8]) -> Result<Vec<u8>, BadHuffman> {
        let mut out = Vec::new();
        decode(bytes, &mut out).map(|()| out)
    }

    /// RFC 7541, C.4.
    #[test]
    fn of_the_rfc() {
        let encoded = [
            0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
        ];
        assert_eq!(decoded(&encoded).unwrap(), b"www.example.com");
        let mut out = Vec::new();
        encode(b"www.example.com", &mut out);
        assert_eq!(out, encoded);
    }

    #[test]
    fn what_is_no_padding() {
        assert_eq!(decoded(&[]).unwrap(), b"");
        assert_eq!(decoded(&[0x1f]).unwrap(), b"a"); // 00011 and three ones
        assert_eq!(decoded(&[0x18]), Err(BadHuffman)); // zeros after it
        assert_eq!(decoded(&[0xff]), Err(BadHuffman)); // a whole byte of it
        assert_eq!(decoded(&[0x1f, 0xff]), Err(BadHuffman));
        assert_eq!(decoded(&[0xff; 4]), Err(BadHuffman)); // the end's own symbol
        assert_eq!(decoded(&[0xff; 9]), Err(BadHuffman));
    }

    proptest! {
        #[test]
        fn there_and_back(bytes: Vec<u8>) {
            let mut out = Vec::new();
            encode(&bytes, &mut out);
            prop_assert_eq!(decoded(&out).unwrap(), bytes);
        }

        /// What decodes is what encodes to it: there is one form of each.
        #[test]
        fn one_form(bytes: Vec<u8>) {
            if let Ok(text) = decoded(&bytes) {
                let mut out = Vec::new();
                encode(&text, &mut out);
                prop_assert_eq!(out, bytes);
            }
        }
    }
}
