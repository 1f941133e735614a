//! As much of a DNS message (RFC 1035, section 4) as one who passes it on must read: the header,
//! and the question. What stands behind is the asker's and the answerer's.

/// The largest message: TCP has 16 bits for its length.
pub(crate) const MAX_MESSAGE: usize = 65_535;
const HEADER: usize = 12;
/// A name with its lengths and its end.
const MAX_NAME: usize = 255;

const RESPONSE: u8 = 0x80;
const OPCODE: u8 = 0x78;
const TRUNCATED: u8 = 0x02;
const WANTS_RECURSION: u8 = 0x01;
const HAS_RECURSION: u8 = 0x80;

/// An error that is said in place of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nobody could be asked.
    ServFail = 2,
    /// Not from here.
    Refused = 5,
}

/// A question, and where it stands in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question<'a> {
    message: &'a [u8],
    /// The name as it is on the wire, with its end.
    name: &'a [u8],
    /// Type and class.
    kind: &'a [u8],
}

impl<'a> Question<'a> {
    /// Reads a standard query with one question; `None` for anything else.
    pub(crate) fn read(message: &'a [u8]) -> Option<Self> {
        let flags = *message.get(2)?;
        if flags & (RESPONSE | OPCODE) != 0 || message.len() > MAX_MESSAGE {
            return None;
        }
        Self::of(message)
    }

    /// The one question of a message.
    fn of(message: &'a [u8]) -> Option<Self> {
        if message.get(4..6)? != [0, 1] {
            return None;
        }
        let rest = message.get(HEADER..)?;
        let mut at = 0;
        loop {
            let length = usize::from(*rest.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            // Nothing stands before it that a pointer could point to.
            if length > 63 {
                return None;
            }
            at += length;
            if at >= MAX_NAME {
                return None;
            }
        }
        Some(Self {
            message,
            name: rest.get(..at)?,
            kind: rest.get(at..at + 4)?,
        })
    }

    /// The question under another id.
    pub(crate) fn with_id(&self, id: u16) -> Vec<u8> {
        with_id(self.message, id)
    }

    pub(crate) fn id(&self) -> u16 {
        id(self.message).unwrap_or_default()
    }

    /// Whether the name's last label is this.
    pub(crate) fn is_under(&self, last: &str) -> bool {
        let bytes = last.as_bytes();
        let mut rest = self.name;
        while let Some((length, more)) = rest.split_first() {
            let Some((label, more)) = more.split_at_checked(usize::from(*length)) else {
                return false;
            };
            if more == [0] {
                return label.eq_ignore_ascii_case(bytes);
            }
            rest = more;
        }
        false
    }

    /// Whether a message under this id answers it.
    pub(crate) fn is_answered_by(&self, answer: &[u8], id_sent: u16) -> bool {
        let Some(flags) = answer.get(2) else {
            return false;
        };
        flags & RESPONSE != 0
            && flags & OPCODE == 0
            && id(answer) == Some(id_sent)
            && Question::of(answer)
                .is_some_and(|it| it.kind == self.kind && it.name.eq_ignore_ascii_case(self.name))
    }

    /// The error as a message.
    pub(crate) fn refused(&self, why: Refusal) -> Vec<u8> {
        let [high, low] = self.id().to_be_bytes();
        let asked = self.message.get(2).copied().unwrap_or_default();
        let flags = RESPONSE | (asked & WANTS_RECURSION);
        let mut message = vec![high, low, flags, HAS_RECURSION | why as u8];
        message.extend([0, 1, 0, 0, 0, 0, 0, 0]);
        message.extend(self.name);
        message.extend(self.kind);
        message
    }
}

/// A message under another id.
pub(crate) fn with_id(message: &[u8], id: u16) -> Vec<u8> {
    let mut message = message.to_vec();
    if let Some(place) = message.get_mut(..2) {
        place.copy_from_slice(&id.to_be_bytes());
    }
    message
}

/// Whether more of the answer comes over TCP.
pub(crate) fn is_truncated(answer: &[u8]) -> bool {
    answer.get(2).is_some_and(|flags| flags & TRUNCATED != 0)
}

/// Whether another server may know better: a failure, not supported, refused.
pub(crate) fn is_failure(answer: &[u8]) -> bool {
    answer
        .get(3)
        .is_some_and(|flags| matches!(flags & 0x0f, 2 | 4 | 5))
}

fn id(message: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes([*message.first()?, *message.get(1)?]))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    /// A question for a name's IPv4 address.
    pub(crate) fn question(id: u16, name: &str) -> Vec<u8> {
        let mut message = id.to_be_bytes().to_vec();
        message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in name.split('.').filter(|it| !it.is_empty()) {
            message.push(u8::try_from(label.len()).unwrap());
            message.extend(label.as_bytes());
        }
        message.extend([0, 0, 1, 0, 1]);
        message
    }

    #[test]
    fn questions_are_read_and_what_is_none_is_not() {
        let asked = question(7, "web.Virtual.consul");
        let read = Question::read(&asked).unwrap();
        assert_eq!(read.id(), 7);
        assert!(read.is_under("consul") && !read.is_under("virtual"));
        let root = question(7, "");
        assert!(!Question::read(&root).unwrap().is_under("consul"));
        for end in 0..asked.len() {
            assert_eq!(Question::read(&asked[..end]), None, "{end} bytes");
        }
        for (place, byte) in [(2, 0x81), (2, 0x28), (5, 0), (5, 2), (12, 0xc0), (12, 64)] {
            let mut wrong = asked.clone();
            wrong[place] = byte;
            assert_eq!(Question::read(&wrong), None, "byte {place}");
        }
        let long = question(7, &vec!["x".repeat(63); 5].join("."));
        assert_eq!(Question::read(&long), None);
    }

    #[test]
    fn an_answer_is_of_the_same_id_and_question() {
        let asked = question(7, "example.org");
        let read = Question::read(&asked).unwrap();
        let answer = |id, name| {
            let mut answer = question(id, name);
            answer[2] |= RESPONSE;
            answer
        };
        assert!(read.is_answered_by(&answer(9, "EXAMPLE.org"), 9));
        assert!(!read.is_answered_by(&answer(8, "example.org"), 9));
        assert!(!read.is_answered_by(&answer(9, "example.net"), 9));
        assert!(!read.is_answered_by(&question(9, "example.org"), 9));
        let mut other_type = answer(9, "example.org");
        let at = other_type.len() - 3;
        other_type[at] = 28;
        assert!(!read.is_answered_by(&other_type, 9));
        assert!(!read.is_answered_by(&[], 9));
    }

    proptest::proptest! {
        /// Nothing that comes makes it stumble, and what it reads it can refuse in its own terms.
        #[test]
        fn any_bytes(
            mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600),
            at in 0..600usize,
            name in "[a-z]{0,63}(\\.[a-z]{1,63}){0,3}",
        ) {
            let own = question(7, &name);
            for (place, byte) in own.iter().enumerate().take(at) {
                if let Some(it) = bytes.get_mut(place) {
                    *it = *byte;
                }
            }
            let read = Question::read(&own).unwrap();
            let _ = read.is_answered_by(&bytes, 7);
            if let Some(read) = Question::read(&bytes) {
                let _ = read.is_under("consul");
                let refused = read.refused(Refusal::ServFail);
                assert!(read.is_answered_by(&refused, read.id()));
            }
        }
    }

    #[test]
    fn a_refusal_answers_the_question() {
        let asked = question(7, "web.consul");
        let read = Question::read(&asked).unwrap();
        let refused = read.refused(Refusal::Refused);
        assert!(read.is_answered_by(&refused, 7));
        assert!(is_failure(&refused) && !is_truncated(&refused));
        assert_eq!(refused[3], 0x85);
        assert_eq!(read.refused(Refusal::ServFail)[3], 0x82);
    }
}
