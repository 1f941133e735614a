//! Tickets: proof for a proxy's first hello.
//!
//! 256 random bits, good once, for five minutes, and for one proxy id. They live in memory only:
//! one that a restart of the agent loses is got again the way the first was. What is kept of a
//! ticket is its hash, so that a look at memory or a compare in varying time tells nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use mesh_proto::bootstrap::Ticket;
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};

use crate::catalog::Owner;
use crate::clock::Clock;

/// How long a ticket is good.
pub(crate) const LIFETIME: Duration = Duration::from_secs(5 * 60);
/// Tickets of one proxy at once; a further one displaces the oldest. Nomad asks again and again
/// while a start fails.
const MAX_OF_ONE: usize = 16;

/// The tickets that are out.
#[derive(Debug)]
pub(crate) struct Tickets {
    clock: Arc<dyn Clock>,
    out: Mutex<HashMap<String, Vec<Out>>>,
    /// Those that were redeemed, and whose key is not remembered yet, by their hash.
    using: Mutex<HashMap<[u8; 32], String>>,
}

/// A ticket that is out, or was used up.
#[derive(Debug)]
pub(crate) struct Out {
    hash: [u8; 32],
    /// Whose instance it was when the ticket was given out.
    owner: Owner,
    until: SystemTime,
}

impl Tickets {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            out: Mutex::default(),
            using: Mutex::default(),
        }
    }

    /// A new ticket for the proxy of an owner's instance. Others of it, and the proxy that runs, are
    /// left alone. `None` when the system gives no randomness.
    pub(crate) fn issue(&self, proxy: &str, owner: &Owner) -> Option<Ticket> {
        let mut bits = [0; 32];
        OsRng.try_fill_bytes(&mut bits).ok()?;
        let ticket = Ticket::new(bits);
        let now = self.clock.now();
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.retain(|_, tickets| {
            tickets.retain(|ticket| now < ticket.until);
            !tickets.is_empty()
        });
        let tickets = out.entry(proxy.to_owned()).or_default();
        if tickets.len() >= MAX_OF_ONE {
            tickets.remove(0);
        }
        tickets.push(Out {
            hash: hash(&bits),
            owner: owner.clone(),
            until: now + LIFETIME,
        });
        Some(ticket)
    }

    /// The ticket, where it is one of this proxy while its instance is this owner's. It is used up
    /// by that, and in use until the caller has [settled](Self::settle) it or given it back.
    pub(crate) fn redeem(&self, proxy: &str, owner: &Owner, ticket: &[u8]) -> Option<Out> {
        let now = self.clock.now();
        let given = hash(ticket);
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let tickets = out.get_mut(proxy)?;
        let mut found = None;
        for (index, ticket) in tickets.iter().enumerate() {
            if same(&ticket.hash, &given) {
                found = Some(index);
            }
        }
        let used = tickets.remove(found?);
        let good = now < used.until && used.owner.may_be_replaced_by(owner);
        if good {
            self.using().insert(used.hash, proxy.to_owned());
        }
        good.then_some(used)
    }

    /// What the ticket was used up for is done.
    pub(crate) fn settle(&self, ticket: &Out) {
        self.using().remove(&ticket.hash);
    }

    /// Whether what this ticket of the proxy was used up for is being done at this moment.
    pub(crate) fn is_in_use(&self, proxy: &str, ticket: &[u8]) -> bool {
        let using = self.using();
        using.get(&hash(ticket)).is_some_and(|of| of == proxy)
    }

    fn using(&self) -> MutexGuard<'_, HashMap<[u8; 32], String>> {
        self.using.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a ticket was used up for could not be done: it is good again.
    pub(crate) fn give_back(&self, proxy: &str, ticket: Out) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        self.settle(&ticket);
        out.entry(proxy.to_owned()).or_default().push(ticket);
    }
}

fn hash(bits: &[u8]) -> [u8; 32] {
    Sha256::digest(bits).into()
}

/// Compares in a time that does not hang on where the two differ.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    let mut differ = u8::from(a.len() != b.len());
    for (a, b) in a.iter().zip(b) {
        differ |= std::hint::black_box(a ^ b);
    }
    std::hint::black_box(differ) == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::TestClock;

    const ROOT: Owner = Owner::Uid(0);

    fn redeems(tickets: &Tickets, proxy: &str, ticket: &[u8]) -> bool {
        tickets.redeem(proxy, &ROOT, ticket).is_some()
    }

    #[test]
    fn a_ticket_opens_one_proxy_once_in_time() {
        let clock = Arc::new(TestClock::default());
        let tickets = Tickets::new(clock.clone());
        let ticket = tickets.issue("a", &ROOT).unwrap();
        let ticket = ticket.as_bytes();
        assert!(!redeems(&tickets, "b", ticket), "another proxy's id");
        assert!(!redeems(&tickets, "a", &[0; 32]), "not a ticket");
        assert!(!redeems(&tickets, "a", b""), "nothing");
        let used = tickets.redeem("a", &ROOT, ticket).unwrap();
        assert!(!redeems(&tickets, "a", ticket), "a second use");
        assert!(tickets.is_in_use("a", ticket) && !tickets.is_in_use("b", ticket));
        tickets.give_back("a", used);
        assert!(!tickets.is_in_use("a", ticket));
        assert!(redeems(&tickets, "a", ticket) && !redeems(&tickets, "a", ticket));

        let issue = || tickets.issue("a", &ROOT).unwrap();
        let (first, second) = (issue(), issue());
        assert_ne!(first, second);
        clock.advance(LIFETIME - Duration::from_secs(1));
        assert!(redeems(&tickets, "a", first.as_bytes()));
        clock.advance(Duration::from_secs(1));
        assert!(!redeems(&tickets, "a", second.as_bytes()), "expired");
    }

    #[test]
    fn a_ticket_is_for_the_owner_that_it_was_given_for() {
        let tickets = Tickets::new(Arc::new(TestClock::default()));
        let ticket = tickets.issue("a", &ROOT).unwrap();
        // The instance went, and another user registered one under its id.
        let other = tickets.redeem("a", &Owner::Uid(7), ticket.as_bytes());
        assert!(other.is_none());
    }

    #[test]
    fn the_number_is_bounded() {
        let tickets = Tickets::new(Arc::new(TestClock::default()));
        let issue = |_| tickets.issue("a", &ROOT).unwrap();
        let all: Vec<_> = (0..40).map(issue).collect();
        assert!(!redeems(&tickets, "a", all[0].as_bytes()));
        assert!(redeems(&tickets, "a", all[39].as_bytes()));
        assert_eq!(tickets.out.lock().unwrap()["a"].len(), MAX_OF_ONE - 1);
    }

    #[test]
    fn compares() {
        assert!(same(b"abc", b"abc") && same(b"", b""));
        assert!(!same(b"abc", b"abd") && !same(b"abc", b"ab") && !same(b"", b"a"));
    }
}
