//! Names of headers that were read before.
//!
//! Both sides of a sidecar say the same few names in every message. To find one among those that
//! were read costs a third of reading it.

use std::cell::RefCell;

use http::HeaderName;
use http::header::InvalidHeaderName;

/// Names that a thread remembers, and how long they may be.
const PLACES: usize = 64;
const LONGEST: usize = 40;

/// A name as it came, and what it is.
type Known = Option<(Box<[u8]>, HeaderName)>;

thread_local! {
    static KNOWN: RefCell<[Known; PLACES]> = const { RefCell::new([const { None }; PLACES]) };
}

/// Reads a name.
pub(super) fn read(text: &[u8]) -> Result<HeaderName, InvalidHeaderName> {
    let ([first, .., last], ..=LONGEST) = (text, text.len()) else {
        return HeaderName::from_bytes(text);
    };
    let at = text.len() * 7 + usize::from(*first) * 3 + usize::from(*last);
    KNOWN.with_borrow_mut(|known| {
        let Some(place) = known.get_mut(at % PLACES) else {
            return HeaderName::from_bytes(text);
        };
        if let Some((came, name)) = place
            && **came == *text
        {
            return Ok(name.clone());
        }
        let name = HeaderName::from_bytes(text)?;
        *place = Some((text.into(), name.clone()));
        Ok(name)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever was read before, a name is what it is.
        #[test]
        fn as_without_memory(names in proptest::collection::vec("[A-Ca-c_ -]{0,3}|.{0,60}", 1..200)) {
            for name in names {
                let expected = HeaderName::from_bytes(name.as_bytes());
                prop_assert_eq!(read(name.as_bytes()).ok(), expected.ok());
            }
        }
    }
}
