//! DNS messages (RFC 1035) as a transparent sidecar and an agent meet them: they
//! read the question, decide whether the name is the mesh's, and write the answer.
//!
//! Everything else is passed on as it came, so this is no resolver: it knows no
//! zones and no servers, and of a passed answer only what must be changed for
//! the one who asked. It is pure: bytes in, bytes out.
//!
//! A question comes from a program that nobody vouches for. Nothing here trusts
//! a length or a pointer in it, and no work grows with more than the message.
#![forbid(unsafe_code)]

mod catalog;
mod instances;
mod lookup;
mod meaning;
mod name;
mod passed;
mod question;
mod reply;

pub use catalog::{Listed, listed, name_of};
pub use instances::Host;
pub use lookup::{addresses_in, ask};
pub use meaning::{Meaning, meaning};
pub use name::{MAX_NAME, Name};
pub use passed::{is_failure, is_truncated, pass_back, with_id};
pub use question::{Edns, Fault, Question};
pub use reply::{Addresses, NEGATIVE_TTL, PORT, Rcode, TTL};

/// The shortest message: a header.
pub const HEADER: usize = 12;

/// The longest answer over UDP to who does not say that more may come.
pub const PLAIN_UDP: usize = 512;

/// Types of records (RFC 1035, 3.2.2, and those that came later).
pub mod kind {
    /// IPv4 addresses.
    pub const A: u16 = 1;
    /// The servers of a zone.
    pub const NS: u16 = 2;
    /// The beginning of a zone.
    pub const SOA: u16 = 6;
    /// IPv6 addresses.
    pub const AAAA: u16 = 28;
    /// Where a service is, with a port.
    pub const SRV: u16 = 33;
    /// EDNS (RFC 6891).
    pub const OPT: u16 = 41;
    /// The key of a signed zone.
    pub const DS: u16 = 43;
    /// The keys of a signed zone.
    pub const DNSKEY: u16 = 48;
    /// Any of them.
    pub const ANY: u16 = 255;
}

/// Of records: the Internet's, the only class that the mesh has.
pub const INTERNET: u16 = 1;

/// For fuzzing: reads bytes as a question and as an answer to one, and writes
/// every answer that there is to it.
///
/// # Panics
/// When an answer is not one to the question, or longer than was allowed.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    let _ = addresses_in(data);
    let question = match Question::parse(data) {
        Ok(question) => question,
        Err(Fault::Silence) => return,
        Err(Fault::Answer(answer)) => {
            assert!(answer.len() >= HEADER && answer.get(..2) == data.get(..2));
            return;
        }
    };
    let _ = meaning(question.name(), "dc1");
    let _ = listed(question.name(), "dc1");
    let addresses = Addresses {
        ip4: Some(std::net::Ipv4Addr::new(240, 0, 0, 1)),
        ip6: Some(std::net::Ipv6Addr::LOCALHOST),
    };
    let target = Name::from_labels(["web", "virtual", "consul"]);
    let host = |number: u8| Host {
        address: std::net::Ipv4Addr::new(10, 0, 0, number).into(),
        port: 80,
        weight: 1,
        target: question.name().clone(),
    };
    let hosts: Vec<Host> = (0..100).map(host).collect();
    let answers = [
        question.instances(&hosts, question.udp_limit()),
        question.addresses(&addresses),
        target.map_or_else(
            || question.failure(Rcode::ServFail),
            |target| question.service(&target, &addresses),
        ),
        question.nothing(Rcode::NoError),
        question.nothing(Rcode::NxDomain),
        question.failure(Rcode::ServFail),
        question.failure(Rcode::Refused),
    ];
    for answer in &answers {
        assert!(answer.len() <= question.udp_limit(), "{}", answer.len());
        // What we write is an answer to what was asked, also to ourselves.
        let passed = pass_back(&question, answer, question.udp_limit());
        assert_eq!(passed.as_ref(), Some(answer));
        assert!(matches!(Question::parse(answer), Err(Fault::Silence)));
    }
    if let Some(passed) = pass_back(&question, data, PLAIN_UDP) {
        assert!(passed.len() <= PLAIN_UDP.max(question.bare()));
    }
}

#[cfg(test)]
mod tests;
