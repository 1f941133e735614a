//! Answers with instances, of which there may be more than fit.

use std::net::IpAddr;

use crate::kind;
use crate::name::Name;
use crate::question::{Question, TC};
use crate::reply::{ASKED, Answer, OPT_LENGTH, Rcode};

/// Seconds for which instances may be kept: they come and go.
const TTL: u32 = 0;

/// Where an instance is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its part of the requests, relative to the others'.
    pub weight: u16,
    /// A name that has this address.
    pub target: Name,
}

impl Question {
    /// Answers with those of the records that are asked for, in this order, as
    /// many as fit; where that is not all of them it says so, and they are asked
    /// for over TCP. Nothing of this type, where there is none.
    #[must_use]
    pub fn instances(&self, hosts: &[Host], limit: usize) -> Vec<u8> {
        let limit = limit.saturating_sub(OPT_LENGTH);
        let mut answer = Answer::new(self, Rcode::NoError, true);
        let mut whole = true;
        let mut written: Vec<&Host> = Vec::new();
        for host in hosts {
            let fits = match (self.kind(), host.address) {
                (kind::A | kind::ANY, IpAddr::V4(_)) | (kind::AAAA | kind::ANY, IpAddr::V6(_)) => {
                    // An address is one record, on however many ports.
                    if written.iter().any(|it| it.address == host.address) {
                        continue;
                    }
                    answer.fits(limit, |it| it.host(&ASKED, host.address, TTL))
                }
                (kind::SRV, _) => answer.fits(limit, |it| {
                    let mut data = Vec::new();
                    for part in [1, host.weight, host.port] {
                        data.extend_from_slice(&part.to_be_bytes());
                    }
                    // Not a pointer: RFC 2782 has none in a target.
                    data.extend_from_slice(host.target.wire());
                    it.record(&ASKED, kind::SRV, TTL, &data);
                }),
                _ => continue,
            };
            whole &= fits;
            if !fits {
                break;
            }
            written.push(host);
        }
        if answer.records == 0 && whole {
            return self.nothing(Rcode::NoError);
        }
        answer.answers = answer.records;
        if self.kind() == kind::SRV {
            let mut named: Vec<&Name> = Vec::new();
            for host in written {
                let name = host.target.wire();
                if !named.contains(&&host.target) {
                    // What does not fit can be asked for.
                    let _ = answer.fits(limit, |it| it.host(name, host.address, TTL));
                    named.push(&host.target);
                }
            }
        }
        if !whole {
            answer.flag(TC);
        }
        answer.finish(self)
    }
}
