//! Questions passed on to others, and their answers on the way to who asked.

use crate::name::Name;
use crate::question::{Header, OPCODE, QR, Question, TC, number};
use crate::reply;

/// A message under another id.
#[must_use]
pub fn with_id(message: &[u8], id: u16) -> Vec<u8> {
    let mut message = message.to_vec();
    for (place, byte) in message.iter_mut().zip(id.to_be_bytes()) {
        *place = byte;
    }
    message
}

/// Whether more of an answer comes over TCP.
#[must_use]
pub fn is_truncated(answer: &[u8]) -> bool {
    Header::read(answer).is_some_and(|header| header.flags & TC != 0)
}

/// Whether another server may know better: a failure, not supported, refused.
#[must_use]
pub fn is_failure(answer: &[u8]) -> bool {
    Header::read(answer).is_some_and(|header| matches!(header.flags & 0xf, 2 | 4 | 5))
}

impl Question {
    /// Whether a message under this id answers it.
    #[must_use]
    pub fn is_answered_by(&self, answer: &[u8], id: u16) -> bool {
        number(answer, 0) == Some(id) && header_of_answer(self, answer).is_some()
    }
}

/// What an answer to this question begins with; `None`: it is none.
fn header_of_answer(question: &Question, answer: &[u8]) -> Option<Header> {
    let header = Header::read(answer)?;
    if header.flags & QR == 0 || header.flags & OPCODE != 0 || header.questions != 1 {
        return None;
    }
    let (name, after) = Name::read(answer, crate::HEADER)?;
    let same = name.is(question.name())
        && number(answer, after)? == question.kind()
        && number(answer, after + 2)? == question.class();
    same.then_some(header)
}

/// The answer of others as who asked gets it: with the id that it chose, and
/// where it is longer than `limit` without its records and marked as cut, so
/// that it is asked for over TCP. `None`: it is no answer to this question.
#[must_use]
pub fn pass_back(question: &Question, answer: &[u8], limit: usize) -> Option<Vec<u8>> {
    let header = header_of_answer(question, answer)?;
    let message = if answer.len() <= limit {
        answer.to_vec()
    } else {
        cut(question, &header)
    };
    Some(with_id(&message, question.id))
}

fn cut(question: &Question, header: &Header) -> Vec<u8> {
    let mut message = Vec::new();
    let edns = question.edns().is_some();
    let flags = header.flags | TC;
    for part in [question.id, flags, 1, 0, 0, u16::from(edns)] {
        message.extend_from_slice(&part.to_be_bytes());
    }
    message.extend_from_slice(&question.asked);
    if edns {
        message.extend_from_slice(&reply::opt(header.flags & 0xf));
    }
    message
}
