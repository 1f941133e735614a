//! A domain name in a message.

use std::fmt;

/// The longest name in its wire form, the last zero included (RFC 1035, 2.3.4).
pub const MAX_NAME: usize = 255;

/// The longest label.
const MAX_LABEL: usize = 63;

/// A domain name, in the case in which it was written.
#[derive(Clone, PartialEq, Eq)]
pub struct Name {
    /// Labels, each after its length, and a zero.
    wire: Vec<u8>,
}

impl Name {
    /// Reads the name at `at` in a message: the name, and where what follows it
    /// begins. `None`: it is not one.
    ///
    /// A pointer (RFC 1035, 4.1.4) must lead to before where this part of the
    /// name began, and not into the header; so each step goes back, and there is
    /// an end.
    #[must_use]
    pub fn read(message: &[u8], at: usize) -> Option<(Self, usize)> {
        let mut wire = Vec::new();
        let (mut at, mut began) = (at, at);
        let mut after = None;
        loop {
            let length = *message.get(at)?;
            match length {
                0 => {
                    wire.push(0);
                    return Some((Self { wire }, after.unwrap_or(at + 1)));
                }
                1..=63 => {
                    let end = at + 1 + usize::from(length);
                    wire.extend_from_slice(message.get(at..end)?);
                    if wire.len() >= MAX_NAME {
                        return None; // there is no room for the zero
                    }
                    at = end;
                }
                0xc0.. => {
                    let low = *message.get(at + 1)?;
                    let to = usize::from(length & 0x3f) << 8 | usize::from(low);
                    after = after.or(Some(at + 2));
                    if to >= began || to < crate::HEADER {
                        return None;
                    }
                    (at, began) = (to, to);
                }
                _ => return None, // no form that exists
            }
        }
    }

    /// Where what follows the name at `at` begins, without a look at where its
    /// pointers lead.
    #[must_use]
    pub(crate) fn skip(message: &[u8], mut at: usize) -> Option<usize> {
        let began = at;
        loop {
            let length = *message.get(at)?;
            match length {
                0 => return Some(at + 1),
                1..=63 => at += 1 + usize::from(length),
                0xc0.. => return Some(at + 2),
                _ => return None,
            }
            if at - began >= MAX_NAME {
                return None;
            }
        }
    }

    /// The name of these labels. `None`: they make none.
    #[must_use]
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut wire = Vec::new();
        for label in labels {
            let length = u8::try_from(label.len()).ok()?;
            if label.is_empty() || label.len() > MAX_LABEL {
                return None;
            }
            wire.push(length);
            wire.extend_from_slice(label.as_bytes());
        }
        wire.push(0);
        (wire.len() <= MAX_NAME).then_some(Self { wire })
    }

    /// Its labels.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.wire.as_slice();
        std::iter::from_fn(move || {
            let (length, more) = rest.split_first()?;
            let (label, after) = more.split_at_checked(usize::from(*length))?;
            rest = after;
            (!label.is_empty()).then_some(label)
        })
    }

    /// Its wire form, without pointers.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// Whether both are one name: case is no difference.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.wire.eq_ignore_ascii_case(&other.wire)
    }
}

/// For logs: what is no letter, digit, `-` or `_` is written as `?`.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut any = false;
        for label in self.labels() {
            for byte in label {
                let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
                write!(f, "{}", if plain { char::from(*byte) } else { '?' })?;
            }
            f.write_str(".")?;
            any = true;
        }
        match any {
            true => Ok(()),
            false => f.write_str("."),
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
