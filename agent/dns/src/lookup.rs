//! A question of the sidecar's own, for the few names that it has to find.

use std::net::IpAddr;

use crate::name::Name;
use crate::question::{Header, QR, RD, number};
use crate::{HEADER, INTERNET, kind};

/// Addresses that are read of an answer at most.
const MOST: usize = 16;

/// Asks for records of a name.
#[must_use]
pub fn ask(name: &Name, kind: u16) -> Vec<u8> {
    let mut message = Vec::new();
    for part in [0, RD, 1, 0, 0, 0] {
        message.extend_from_slice(&u16::to_be_bytes(part));
    }
    message.extend_from_slice(name.wire());
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&INTERNET.to_be_bytes());
    message
}

/// The addresses in an answer, of whatever name: it may have led through others.
/// None where it says that there is none, and where it is damaged.
#[must_use]
pub fn addresses_in(answer: &[u8]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let _ = read(answer, &mut found);
    found
}

fn read(message: &[u8], found: &mut Vec<IpAddr>) -> Option<()> {
    let header = Header::read(message)?;
    if header.flags & QR == 0 || header.flags & 0xf != 0 {
        return None;
    }
    let mut at = HEADER;
    for _ in 0..header.questions {
        at = Name::skip(message, at)? + 4;
    }
    for _ in 0..header.answers {
        at = Name::skip(message, at)?;
        let (kind, class) = (number(message, at)?, number(message, at + 2)?);
        let end = at + 10 + usize::from(number(message, at + 8)?);
        let data = message.get(at + 10..end)?;
        if class == INTERNET && found.len() < MOST {
            let address = match kind {
                kind::A => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
                kind::AAAA => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
                _ => None,
            };
            found.extend(address);
        }
        at = end;
    }
    Some(())
}
