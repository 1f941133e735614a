//! Answers of our own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::name::Name;
use crate::question::{Header, Question, RD};
use crate::{INTERNET, kind};

/// Seconds for which an address may be kept. A virtual address stays for a
/// service's life, so what this bounds is how long a service that went is still
/// called.
pub const TTL: u32 = 10;

/// Seconds for which it may be kept that there is no such name.
pub const NEGATIVE_TTL: u32 = 1;

/// The port of a service's record: a virtual address takes any, so this is the
/// one that need not be written in a URL.
pub const PORT: u16 = 80;

/// The length of an EDNS record without options.
pub(crate) const OPT_LENGTH: usize = 11;

/// The size over UDP that we say we take.
const OUR_SIZE: u16 = 1232;

/// Of the zone `consul`: who begins it, and who to write to. Nobody reads them.
const ZONE: [&str; 1] = ["consul"];
const MASTER: [&str; 2] = ["ns", "consul"];
const MAILBOX: [&str; 2] = ["hostmaster", "consul"];

/// A pointer to the name of the question.
pub(crate) const ASKED: [u8; 2] = [0xc0, 0x0c];

/// How an answer went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rcode {
    /// There is such a name.
    NoError,
    /// The question is not well formed.
    FormErr,
    /// It cannot be answered now.
    ServFail,
    /// There is no such name.
    NxDomain,
    /// Another operation than a question.
    NotImp,
    /// It is not answered.
    Refused,
    /// A version of EDNS that is not known.
    BadVers,
}

impl Rcode {
    fn number(self) -> u16 {
        match self {
            Self::NoError => 0,
            Self::FormErr => 1,
            Self::ServFail => 2,
            Self::NxDomain => 3,
            Self::NotImp => 4,
            Self::Refused => 5,
            Self::BadVers => 16,
        }
    }
}

/// Addresses of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The IPv4 one.
    pub ip4: Option<Ipv4Addr>,
    /// The IPv6 one.
    pub ip6: Option<Ipv6Addr>,
}

impl Question {
    /// Answers with those of the addresses that are asked for; nothing of this
    /// type, where there is none.
    #[must_use]
    pub fn addresses(&self, addresses: &Addresses) -> Vec<u8> {
        let (a, aaaa) = match self.kind() {
            kind::A => (true, false),
            kind::AAAA => (false, true),
            kind::ANY => (true, true),
            _ => (false, false),
        };
        let ip4 = addresses.ip4.filter(|_| a);
        let ip6 = addresses.ip6.filter(|_| aaaa);
        if ip4.is_none() && ip6.is_none() {
            return self.nothing(Rcode::NoError);
        }
        let mut answer = Answer::new(self, Rcode::NoError, true);
        answer.hosts(&ASKED, ip4, ip6);
        answer.answers = answer.records;
        answer.finish(self)
    }

    /// Answers with where a service is: its name, [`PORT`], and its addresses.
    #[must_use]
    pub fn service(&self, target: &Name, addresses: &Addresses) -> Vec<u8> {
        let mut answer = Answer::new(self, Rcode::NoError, true);
        let mut data = Vec::new();
        for part in [1, 1, PORT] {
            data.extend_from_slice(&part.to_be_bytes());
        }
        // Not a pointer: RFC 2782 has none in a target.
        data.extend_from_slice(target.wire());
        answer.record(&ASKED, kind::SRV, TTL, &data);
        answer.answers = answer.records;
        answer.hosts(target.wire(), addresses.ip4, addresses.ip6);
        answer.finish(self)
    }

    /// Answers that there is no such name, or with [`Rcode::NoError`] nothing of
    /// this type; with the beginning of the zone, which says for how long that
    /// may be kept.
    #[must_use]
    pub fn nothing(&self, rcode: Rcode) -> Vec<u8> {
        let mut answer = Answer::new(self, rcode, true);
        answer.zone();
        answer.authorities = answer.records;
        answer.finish(self)
    }

    /// Answers with the beginning of the zone itself.
    #[must_use]
    pub fn zone(&self) -> Vec<u8> {
        let mut answer = Answer::new(self, Rcode::NoError, true);
        answer.zone();
        answer.answers = answer.records;
        answer.finish(self)
    }

    /// Answers that it cannot be answered.
    #[must_use]
    pub fn failure(&self, rcode: Rcode) -> Vec<u8> {
        Answer::new(self, rcode, false).finish(self)
    }
}

/// An answer without a question, to what could not be read.
pub(crate) fn bare(header: &Header, rcode: Rcode) -> Vec<u8> {
    let kept = header.flags & (0x7800 | RD);
    let flags = 0x8000 | kept | rcode.number() & 0xf;
    let mut message = Vec::new();
    for part in [header.id, flags, 0, 0, 0, 0] {
        message.extend_from_slice(&part.to_be_bytes());
    }
    message
}

/// An answer that is being written.
pub(crate) struct Answer {
    message: Vec<u8>,
    rcode: u16,
    pub(crate) records: u16,
    pub(crate) answers: u16,
    authorities: u16,
}

impl Answer {
    pub(crate) fn new(question: &Question, rcode: Rcode, authoritative: bool) -> Self {
        let rcode = rcode.number();
        let mut flags = 0x8000 | 0x0080 | rcode & 0xf; // an answer; others are asked, too
        if question.recursion_desired {
            flags |= RD;
        }
        if authoritative {
            flags |= 0x0400;
        }
        let mut message = Vec::new();
        for part in [question.id, flags, 1, 0, 0, 0] {
            message.extend_from_slice(&part.to_be_bytes());
        }
        message.extend_from_slice(&question.asked);
        Self {
            message,
            rcode,
            records: 0,
            answers: 0,
            authorities: 0,
        }
    }

    pub(crate) fn record(&mut self, name: &[u8], kind: u16, ttl: u32, data: &[u8]) {
        let message = &mut self.message;
        message.extend_from_slice(name);
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&INTERNET.to_be_bytes());
        message.extend_from_slice(&ttl.to_be_bytes());
        // Ours are an address, or a number and one or two names.
        let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(data);
        self.records += 1;
    }

    fn hosts(&mut self, name: &[u8], ip4: Option<Ipv4Addr>, ip6: Option<Ipv6Addr>) {
        let all = ip4
            .map(IpAddr::from)
            .into_iter()
            .chain(ip6.map(IpAddr::from));
        for ip in all {
            self.host(name, ip, TTL);
        }
    }

    pub(crate) fn host(&mut self, name: &[u8], ip: IpAddr, ttl: u32) {
        match ip {
            IpAddr::V4(ip) => self.record(name, kind::A, ttl, &ip.octets()),
            IpAddr::V6(ip) => self.record(name, kind::AAAA, ttl, &ip.octets()),
        }
    }

    /// Writes something, unless the message is longer than `limit` with it;
    /// whether it fits.
    pub(crate) fn fits(&mut self, limit: usize, write: impl FnOnce(&mut Self)) -> bool {
        let (length, records) = (self.message.len(), self.records);
        write(self);
        let fits = self.message.len() <= limit;
        if !fits {
            self.message.truncate(length);
            self.records = records;
        }
        fits
    }

    pub(crate) fn flag(&mut self, flag: u16) {
        for (place, byte) in self.message.iter_mut().skip(2).zip(flag.to_be_bytes()) {
            *place |= byte;
        }
    }

    fn zone(&mut self) {
        let name = |labels: &[&str]| {
            let name = Name::from_labels(labels.iter().copied());
            name.map_or_else(|| vec![0], |name| name.wire().to_vec())
        };
        let mut data = name(&MASTER);
        data.extend_from_slice(&name(&MAILBOX));
        // Serial, refresh, retry, expire: nobody transfers this zone.
        for part in [1, 3600, 600, 86400, NEGATIVE_TTL] {
            data.extend_from_slice(&u32::to_be_bytes(part));
        }
        self.record(&name(&ZONE), kind::SOA, NEGATIVE_TTL, &data);
    }

    /// Writes the counts, and EDNS where it was asked with.
    pub(crate) fn finish(mut self, question: &Question) -> Vec<u8> {
        let mut additionals = self.records - self.answers - self.authorities;
        if question.edns().is_some() {
            additionals += 1;
            self.message.extend_from_slice(&opt(self.rcode));
        }
        let counts = [self.answers, self.authorities, additionals];
        for (place, count) in self
            .message
            .iter_mut()
            .skip(6)
            .zip(counts.map(u16::to_be_bytes).as_flattened())
        {
            *place = *count;
        }
        self.message
    }
}

/// EDNS without options, and the upper bits of the code.
pub(crate) fn opt(rcode: u16) -> [u8; OPT_LENGTH] {
    let mut record = [0; OPT_LENGTH];
    let [size_high, size_low] = OUR_SIZE.to_be_bytes();
    let [upper, _] = (rcode << 4).to_be_bytes();
    for (place, byte) in record
        .iter_mut()
        .zip([0, 0, 41, size_high, size_low, upper])
    {
        *place = byte;
    }
    record
}
