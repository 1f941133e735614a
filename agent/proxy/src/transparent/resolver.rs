//! What is answered to a DNS question.

use std::net::{Ipv6Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use mesh_dns::{Addresses, Fault, INTERNET, Meaning, Name, Question, Rcode, kind, meaning};
use mesh_model::{DEFAULT_NAMESPACE, Key, VirtualAddress};
use tokio::time::timeout;

use super::{Answers, Want};
use crate::plane::Shared;

/// How long a question waits for the config that answers it.
const HELD: Duration = Duration::from_secs(2);

/// Which way a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    Udp,
    Tcp,
}

/// What is answered to a message; nothing to what is no question.
pub(super) async fn answer(shared: &Shared, message: &[u8], over: Over) -> Option<Vec<u8>> {
    let question = match Question::parse(message) {
        Ok(question) => question,
        Err(Fault::Silence) => return None,
        Err(Fault::Answer(answer)) => {
            shared.transparent.metrics.answered("malformed");
            return Some(answer);
        }
    };
    let asked = Asked {
        shared,
        question: &question,
        message,
        over,
    };
    Some(asked.answer().await)
}

struct Asked<'a> {
    shared: &'a Shared,
    question: &'a Question,
    message: &'a [u8],
    over: Over,
}

impl Asked<'_> {
    async fn answer(&self) -> Vec<u8> {
        let question = self.question;
        let Some(answers) = self.shared.transparent.answers.borrow().clone() else {
            return self.failed(Rcode::ServFail); // it is ending
        };
        let meaning = meaning(question.name(), &answers.dc);
        match meaning {
            Meaning::Other => self.pass_on().await,
            Meaning::Short(_) if question.class() != INTERNET => self.pass_on().await,
            _ if question.class() != INTERNET => self.failed(Rcode::Refused),
            Meaning::Service(key) => match self.address(&answers, &key).await {
                Some(Some(address)) => self.found(&key, address),
                Some(None) => self.absent(),
                None => self.failed(Rcode::ServFail),
            },
            Meaning::Short(key) => {
                // Whoever looks for a zone means no service.
                let zone = [kind::NS, kind::SOA, kind::DS, kind::DNSKEY];
                if zone.contains(&question.kind()) && !answers.names.contains_key(&key) {
                    return self.pass_on().await;
                }
                match self.address(&answers, &key).await {
                    Some(Some(address)) => self.found(&key, address),
                    Some(None) => self.pass_on().await,
                    None => self.failed(Rcode::ServFail),
                }
            }
            Meaning::Zone if question.kind() == kind::SOA => {
                self.count("mesh");
                question.zone()
            }
            Meaning::Zone | Meaning::Between => {
                self.count("mesh");
                question.nothing(Rcode::NoError)
            }
            Meaning::Absent => self.absent(),
        }
    }

    fn count(&self, how: &'static str) {
        self.shared.transparent.metrics.answered(how);
    }

    fn absent(&self) -> Vec<u8> {
        self.count("absent");
        self.question.nothing(Rcode::NxDomain)
    }

    fn failed(&self, rcode: Rcode) -> Vec<u8> {
        self.count("failed");
        self.question.failure(rcode)
    }

    fn found(&self, key: &Key, address: VirtualAddress) -> Vec<u8> {
        self.count("mesh");
        let addresses = Addresses {
            ip4: Some(address.ip4()),
            ip6: Some(address.ip6()).filter(|ip| leads_anywhere(*ip)),
        };
        if self.question.kind() != kind::SRV {
            return self.question.addresses(&addresses);
        }
        match target(key) {
            Some(target) => self.question.service(&target, &addresses),
            None => self.question.nothing(Rcode::NoError), // longer than a name may be
        }
    }

    /// A service's address, or that it is not there; nothing when that is not
    /// known in time. From now on it is wanted.
    async fn address(&self, answers: &Answers, key: &Key) -> Option<Option<VirtualAddress>> {
        let transparent = &self.shared.transparent;
        let wanted = transparent.wanted.ask(Want::Service(key.clone()));
        if let Some(known) = answers.names.get(key) {
            return Some(*known);
        }
        if !wanted || !transparent.questions.has_anybody() {
            return None;
        }
        let of = |answers: &Option<Arc<Answers>>| answers.as_ref()?.names.get(key).copied();
        let mut answers = transparent.answers.subscribe();
        let answered = timeout(HELD, answers.wait_for(|now| of(now).is_some())).await;
        let now = answered.ok()?.ok()?;
        of(&now)
    }

    async fn pass_on(&self) -> Vec<u8> {
        let limit = match self.over {
            Over::Udp => self.question.udp_limit(),
            Over::Tcp => usize::from(u16::MAX),
        };
        let questions = &self.shared.transparent.questions;
        let passed = match questions.ask(self.message.to_vec()).await {
            Ok(answer) => mesh_dns::pass_back(self.question, &answer, limit)
                .ok_or_else(|| "the answer is to another question".to_owned()),
            Err(error) => Err(error),
        };
        match passed {
            Ok(answer) => {
                self.count("passed");
                answer
            }
            Err(reason) => {
                tracing::debug!(name = %self.question.name(), reason, "a question is not answered");
                self.failed(Rcode::ServFail)
            }
        }
    }
}

/// The name that a service's record leads to.
fn target(key: &Key) -> Option<Name> {
    match key.namespace.as_str() {
        DEFAULT_NAMESPACE => Name::from_labels([key.name.as_str(), "virtual", "consul"]),
        other => Name::from_labels([key.name.as_str(), "virtual", other, "ns", "consul"]),
    }
}

/// Whether the kernel has a route there. Where an allocation has no IPv6, an
/// address of it would only cost the application a failed try. Nothing is sent.
fn leads_anywhere(ip: Ipv6Addr) -> bool {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect((ip, 9)))
        .is_ok()
}
