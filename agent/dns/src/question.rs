//! A question.

use crate::name::Name;
use crate::reply::{self, Rcode};
use crate::{HEADER, PLAIN_UDP, kind};

/// The most that we send over UDP, whatever the other side says that it takes.
/// It goes over loopback, where nothing cuts packets of this size.
const MAX_UDP: usize = 4096;

/// The bit that says that a message is an answer.
pub(crate) const QR: u16 = 0x8000;
/// The bits of the operation.
pub(crate) const OPCODE: u16 = 0x7800;
/// "It was cut; ask over TCP."
pub(crate) const TC: u16 = 0x0200;
/// "Ask others, too."
pub(crate) const RD: u16 = 0x0100;

/// One question, as a message asks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub(crate) id: u16,
    pub(crate) recursion_desired: bool,
    name: Name,
    kind: u16,
    class: u16,
    /// Name, type and class as they came: they go back as they are, so that the
    /// case of each letter is kept.
    pub(crate) asked: Vec<u8>,
    edns: Option<Edns>,
}

/// What EDNS says (RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The longest answer over UDP, as the other side says it.
    pub size: u16,
    /// Whether it wants signatures.
    pub dnssec: bool,
}

/// Why a message is no question that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It gets no answer: it is too short, or an answer itself.
    Silence,
    /// It gets this one.
    Answer(Vec<u8>),
}

impl Question {
    /// Reads a message.
    ///
    /// # Errors
    /// With what is to be answered, if anything.
    pub fn parse(message: &[u8]) -> Result<Self, Fault> {
        let header = Header::read(message).ok_or(Fault::Silence)?;
        if header.flags & QR != 0 {
            return Err(Fault::Silence);
        }
        let refuse = |rcode| Err(Fault::Answer(reply::bare(&header, rcode)));
        if header.flags & OPCODE != 0 {
            return refuse(Rcode::NotImp);
        }
        if header.questions != 1 {
            return refuse(Rcode::FormErr);
        }
        let Some((name, after)) = Name::read(message, HEADER) else {
            return refuse(Rcode::FormErr);
        };
        let (Some(kind), Some(class), Some(asked)) = (
            number(message, after),
            number(message, after + 2),
            message.get(HEADER..after + 4),
        ) else {
            return refuse(Rcode::FormErr);
        };
        let Some(edns) = edns(message, after + 4, &header) else {
            return refuse(Rcode::FormErr);
        };
        let question = Self {
            id: header.id,
            recursion_desired: header.flags & RD != 0,
            name,
            kind,
            class,
            asked: asked.to_vec(),
            edns: edns.map(|(edns, _)| edns),
        };
        match edns {
            Some((_, version)) if version != 0 => {
                Err(Fault::Answer(question.failure(Rcode::BadVers)))
            }
            _ => Ok(question),
        }
    }

    /// The id that who asks chose.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.id
    }

    /// What it is about.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Which records are asked for: one of [`kind`](crate::kind), or another.
    #[must_use]
    pub fn kind(&self) -> u16 {
        self.kind
    }

    /// Their class.
    #[must_use]
    pub fn class(&self) -> u16 {
        self.class
    }

    /// What came with EDNS, if it did.
    #[must_use]
    pub fn edns(&self) -> Option<Edns> {
        self.edns
    }

    /// The longest answer over UDP.
    #[must_use]
    pub fn udp_limit(&self) -> usize {
        let size = self.edns.map_or(PLAIN_UDP, |edns| usize::from(edns.size));
        size.clamp(PLAIN_UDP, MAX_UDP)
    }

    /// How long an answer is that says nothing.
    #[must_use]
    pub(crate) fn bare(&self) -> usize {
        HEADER + self.asked.len() + reply::OPT_LENGTH
    }
}

/// What a message begins with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    pub(crate) questions: u16,
    pub(crate) answers: u16,
    pub(crate) authorities: u16,
    pub(crate) additionals: u16,
}

impl Header {
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        Some(Self {
            id: number(message, 0)?,
            flags: number(message, 2)?,
            questions: number(message, 4)?,
            answers: number(message, 6)?,
            authorities: number(message, 8)?,
            additionals: number(message, 10)?,
        })
    }
}

pub(crate) fn number(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at + 2)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

/// Looks for EDNS among the records, with its version. `None`: a record is not
/// well formed, or there are two of them, or it is where it may not be.
#[allow(clippy::option_option)]
fn edns(message: &[u8], mut at: usize, header: &Header) -> Option<Option<(Edns, u8)>> {
    let before = usize::from(header.answers) + usize::from(header.authorities);
    let all = before + usize::from(header.additionals);
    let mut found = None;
    for index in 0..all {
        let named = at;
        at = Name::skip(message, at)?;
        let kind = number(message, at)?;
        let length = usize::from(number(message, at + 8)?);
        if kind == kind::OPT {
            let root = message.get(named) == Some(&0);
            if index < before || !root || found.is_some() {
                return None;
            }
            let version = *message.get(at + 5)?;
            let edns = Edns {
                size: number(message, at + 2)?,
                dnssec: number(message, at + 6)? & 0x8000 != 0,
            };
            found = Some((edns, version));
        }
        at += 10 + length;
        if at > message.len() {
            return None;
        }
    }
    Some(found)
}
