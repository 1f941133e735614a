//! Integers and strings of HPACK (RFC 7541, 5).

use super::HpackError;

/// More than any length or place here, and so that nothing overflows.
const MOST: usize = 1 << 24;

/// Reads an integer whose first byte has `prefix` bits of it.
#[inline]
pub(crate) fn read(input: &mut &[u8], prefix: u32) -> Result<usize, HpackError> {
    let mask = (1usize << prefix) - 1;
    let first = usize::from(byte(input)?) & mask;
    if first < mask {
        return Ok(first);
    }
    let mut value = mask;
    let mut shift = 0;
    loop {
        let next = byte(input)?;
        value += usize::from(next & 0x7f) << shift;
        shift += 7;
        if value > MOST || shift > 28 {
            return Err(HpackError::Integer);
        }
        if next & 0x80 == 0 {
            return Ok(value);
        }
    }
}

/// Takes the next byte.
#[inline]
fn byte(input: &mut &[u8]) -> Result<u8, HpackError> {
    let (first, rest) = input.split_first().ok_or(HpackError::Short)?;
    *input = rest;
    Ok(*first)
}

/// Writes an integer, with `flags` in the first byte beside its `prefix` bits.
#[inline]
#[allow(clippy::cast_possible_truncation)] // each is masked, or smaller than the mask
pub(crate) fn write(out: &mut Vec<u8>, flags: u8, prefix: u32, value: usize) {
    let mask = (1usize << prefix) - 1;
    if value < mask {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// RFC 7541, C.1.
    #[test]
    fn of_the_rfc() {
        for (prefix, value, bytes) in [
            (5, 10, &[0x0a][..]),
            (5, 1337, &[0x1f, 0x9a, 0x0a]),
            (8, 42, &[0x2a]),
        ] {
            let mut out = Vec::new();
            write(&mut out, 0, prefix, value);
            assert_eq!(out, bytes);
            assert_eq!(read(&mut &bytes[..], prefix).unwrap(), value);
        }
    }

    #[test]
    fn bounds() {
        let endless = [0xff; 12];
        assert_eq!(read(&mut &endless[..], 7), Err(HpackError::Integer));
        assert_eq!(read(&mut &[0x7f, 0x80][..], 7), Err(HpackError::Short));
        assert_eq!(read(&mut &[][..], 7), Err(HpackError::Short));
    }

    proptest! {
        #[test]
        fn there_and_back(prefix in 1u32..=8, value in 0usize..1 << 24) {
            let mut out = Vec::new();
            write(&mut out, 0, prefix, value);
            prop_assert_eq!(read(&mut &out[..], prefix).unwrap(), value);
        }
    }
}
