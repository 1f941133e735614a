//! An answer of others, on its way to who asked.

use crate::name::Name;
use crate::question::{Header, QR, Question, TC, number};
use crate::reply;

/// The answer of others as who asked gets it: with the id that it chose, and
/// where it is longer than `limit` without its records and marked as cut, so
/// that it is asked for over TCP. `None`: it is no answer to this question.
#[must_use]
pub fn pass_back(question: &Question, answer: &[u8], limit: usize) -> Option<Vec<u8>> {
    let header = Header::read(answer)?;
    if header.flags & QR == 0 || header.questions != 1 {
        return None;
    }
    let (name, after) = Name::read(answer, crate::HEADER)?;
    let same = name.is(question.name())
        && number(answer, after)? == question.kind()
        && number(answer, after + 2)? == question.class();
    if !same {
        return None;
    }
    let mut message = if answer.len() <= limit {
        answer.to_vec()
    } else {
        cut(question, &header)
    };
    for (place, byte) in message.iter_mut().zip(question.id.to_be_bytes()) {
        *place = byte;
    }
    Some(message)
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
