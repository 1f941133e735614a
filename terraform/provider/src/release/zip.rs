//! A zip with one program in it, stored as it is.

/// What is in every header: version 2.0, no flags, stored, 1 January 1980, so that the same
/// program makes the same archive.
const COMMON: [u8; 10] = [20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
/// Made under Unix.
const MADE_BY: [u8; 2] = [20, 3];
/// A file that may be executed: `-rwxr-xr-x`.
const MODE: u32 = 0o100_755 << 16;

/// An archive in which `bytes` are a program of that name. Nothing of ours is beyond the 4 GiB
/// that its lengths can tell.
pub(super) fn of_one(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 512);
    let length = (bytes.len() as u32).to_le_bytes();
    let mut facts = COMMON.to_vec();
    facts.extend(crc32(bytes).to_le_bytes());
    facts.extend(length);
    facts.extend(length);
    facts.extend((name.len() as u16).to_le_bytes());
    facts.extend([0, 0]);

    out.extend(b"PK\x03\x04");
    out.extend(&facts);
    out.extend(name.as_bytes());
    out.extend(bytes);

    let directory = (out.len() as u32).to_le_bytes();
    out.extend(b"PK\x01\x02");
    out.extend(MADE_BY);
    out.extend(&facts);
    // No comment, first disk, no internal attributes, and it begins at 0.
    out.extend([0; 6]);
    out.extend(MODE.to_le_bytes());
    out.extend([0; 4]);
    out.extend(name.as_bytes());

    let size = (out.len() as u32 - u32::from_le_bytes(directory)).to_le_bytes();
    out.extend(b"PK\x05\x06");
    out.extend([0, 0, 0, 0, 1, 0, 1, 0]);
    out.extend(size);
    out.extend(directory);
    out.extend([0, 0]);
    out
}

/// The checksum of zip archives (CRC-32 of ISO 3309), byte by byte.
fn crc32(bytes: &[u8]) -> u32 {
    let table: [u32; 256] = std::array::from_fn(|at| {
        (0..8).fold(at as u32, |crc, _| match crc & 1 {
            1 => crc >> 1 ^ 0xedb8_8320,
            _ => crc >> 1,
        })
    });
    !bytes.iter().fold(!0, |crc: u32, byte| {
        let at = (crc ^ u32::from(*byte)) & 0xff;
        crc >> 8 ^ table.get(at as usize).copied().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_known_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }
}
