//! W3C Trace Context: <https://www.w3.org/TR/trace-context/>, level 1.
//!
//! The proxy takes part as a hop: it keeps the trace, and puts a span id of its
//! own where the caller's was. A request that comes without a trace begins one.
//! It is marked as sampled: the access log records every request, and a tracer
//! in the application that follows its parent then does what it would do at the
//! root of a trace.

use http::HeaderName;
use http::{HeaderMap, HeaderValue};
use rand::RngCore;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `00-<32 hex>-<16 hex>-<2 hex>`.
const LENGTH: usize = 55;

/// A trace's id: 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceId([u8; 32]);

impl TraceId {
    pub(crate) fn as_str(&self) -> &str {
        // Only ever made of hex digits.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Puts this hop into the trace of a request, or begins one.
pub(crate) fn continue_trace(headers: &mut HeaderMap, random: &mut impl RngCore) -> TraceId {
    let mut parents = headers.get_all(&TRACEPARENT).iter();
    let parent = match (parents.next(), parents.next()) {
        (Some(one), None) => read(one.as_bytes()),
        _ => None,
    };
    let mut text = [b'-'; LENGTH];
    text[..2].copy_from_slice(b"00");
    let (trace, flags) = match parent {
        Some(found) => found,
        None => {
            // It belongs to the parent that cannot be read.
            if headers.keys().any(|name| *name == TRACESTATE) {
                headers.remove(&TRACESTATE);
            }
            let mut id = [0; 32];
            id[..16].copy_from_slice(&hex(random));
            id[16..].copy_from_slice(&hex(random));
            (id, *b"01")
        }
    };
    text[3..35].copy_from_slice(&trace);
    text[36..52].copy_from_slice(&hex(random));
    text[53..].copy_from_slice(&flags);
    if let Ok(value) = HeaderValue::from_bytes(&text) {
        headers.insert(TRACEPARENT, value);
    }
    TraceId(trace)
}

/// The trace's id and the flags.
fn read(text: &[u8]) -> Option<([u8; 32], [u8; 2])> {
    let (version, rest) = (text.get(..2)?, text.get(LENGTH..)?);
    let known = version == b"00" && rest.is_empty();
    // Of a later version what we know is read, and the rest is not ours.
    let later = is_hex(version) && version != b"ff" && version != b"00";
    if !(known || later && (rest.is_empty() || rest[0] == b'-')) {
        return None;
    }
    if [2, 35, 52].iter().any(|at| text.get(*at) != Some(&b'-')) {
        return None;
    }
    let trace: [u8; 32] = text.get(3..35)?.try_into().ok()?;
    let span = text.get(36..52)?;
    let flags: [u8; 2] = text.get(53..55)?.try_into().ok()?;
    let is_zero = |id: &[u8]| id.iter().all(|digit| *digit == b'0');
    let fine =
        is_hex(&trace) && is_hex(span) && is_hex(&flags) && !is_zero(&trace) && !is_zero(span);
    // Of the flags level 1 knows one bit; the others are not passed on.
    let sampled =
        flags[1].is_ascii_digit() && flags[1] & 1 == 1 || matches!(flags[1], b'b' | b'd' | b'f');
    fine.then_some((trace, if sampled { *b"01" } else { *b"00" }))
}

fn is_hex(text: &[u8]) -> bool {
    text.iter()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Random hex digits that are not all zero.
fn hex(random: &mut impl RngCore) -> [u8; 16] {
    digits(random.next_u64() | 1)
}

/// The sixteen hex digits of some bits, the lowest first. All at once: a byte each in two words.
fn digits(bits: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    let (low, high) = digits.split_at_mut(8);
    low.copy_from_slice(&eight_digits(bits as u32).to_le_bytes());
    high.copy_from_slice(&eight_digits((bits >> 32) as u32).to_le_bytes());
    digits
}

fn eight_digits(bits: u32) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    // Four bits to a byte.
    let mut spread = u64::from(bits);
    spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    spread = (spread | spread << 4) & (0x0f * EACH);
    // Beyond nine come letters.
    let letters = ((spread + 6 * EACH) >> 4) & EACH;
    spread + EACH * u64::from(b'0') + letters * u64::from(b'a' - b'9' - 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    fn pass(parent: Option<&str>) -> (String, String) {
        let mut headers = HeaderMap::new();
        headers.insert(TRACESTATE, HeaderValue::from_static("a=1"));
        if let Some(parent) = parent {
            headers.insert(TRACEPARENT, HeaderValue::from_str(parent).unwrap());
        }
        let id = continue_trace(&mut headers, &mut SmallRng::seed_from_u64(1));
        let text = headers[&TRACEPARENT].to_str().unwrap().to_owned();
        assert_eq!(text.len(), LENGTH);
        assert_eq!(&text[3..35], id.as_str());
        assert!(read(text.as_bytes()).is_some());
        let state = headers
            .get(&TRACESTATE)
            .map_or("", |it| it.to_str().unwrap());
        (text, state.to_owned())
    }

    #[test]
    fn digits_are_those_of_the_bits() {
        let text = digits(0x0123_4567_89ab_cdef);
        assert_eq!(std::str::from_utf8(&text).unwrap(), "fedcba9876543210");
        let mut random = SmallRng::seed_from_u64(2);
        for _ in 0..1000 {
            let bits = random.next_u64();
            let mut text = digits(bits);
            text.reverse();
            assert_eq!(std::str::from_utf8(&text).unwrap(), format!("{bits:016x}"));
        }
    }

    #[test]
    fn a_trace_goes_on_with_a_new_span() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let (text, state) = pass(Some(parent));
        assert_eq!(text[..36], parent[..36]);
        assert_ne!(text[36..52], parent[36..52]);
        assert_eq!((&text[52..], state.as_str()), ("-00", "a=1"));
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x";
        assert_eq!(pass(Some(later)).0[3..35], later[3..35]);
    }

    #[test]
    fn what_cannot_be_read_begins_a_trace() {
        for parent in [
            None,
            Some(""),
            Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x"),
            Some("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            Some("00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
            Some("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"),
            Some("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"),
        ] {
            let (text, state) = pass(parent);
            assert!(text.ends_with("-01") && state.is_empty(), "{parent:?}");
            assert!(!text.contains("4bf92f"), "{parent:?}");
        }
    }
}
