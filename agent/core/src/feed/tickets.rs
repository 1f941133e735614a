//! Tickets: proof for a proxy's first hello.
//!
//! 256 random bits, good once, for five minutes, and for one proxy id. They live in memory only:
//! one that a restart of the agent loses is got again the way the first was. What is kept of a
//! ticket is its hash, so that a look at memory or a compare in varying time tells nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use mesh_proto::bootstrap::Ticket;
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};

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
}

#[derive(Debug)]
struct Out {
    hash: [u8; 32],
    until: SystemTime,
}

impl Tickets {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            out: Mutex::default(),
        }
    }

    /// A new ticket for a proxy. Others of it, and the proxy that runs, are left alone.
    /// `None` when the system gives no randomness.
    pub(crate) fn issue(&self, proxy: &str) -> Option<Ticket> {
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
            until: now + LIFETIME,
        });
        Some(ticket)
    }

    /// Whether this is a ticket of this proxy. It is used up by that.
    pub(crate) fn redeem(&self, proxy: &str, ticket: &[u8]) -> bool {
        let now = self.clock.now();
        let given = hash(ticket);
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(tickets) = out.get_mut(proxy) else {
            return false;
        };
        let mut found = None;
        for (index, ticket) in tickets.iter().enumerate() {
            if same(&ticket.hash, &given) {
                found = Some(index);
            }
        }
        found.is_some_and(|index| now < tickets.remove(index).until)
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

    #[test]
    fn a_ticket_opens_one_proxy_once_in_time() {
        let clock = Arc::new(TestClock::default());
        let tickets = Tickets::new(clock.clone());
        let ticket = tickets.issue("a").unwrap();
        assert!(
            !tickets.redeem("b", ticket.as_bytes()),
            "another proxy's id"
        );
        assert!(!tickets.redeem("a", &[0; 32]), "not a ticket");
        assert!(!tickets.redeem("a", b""), "nothing");
        assert!(tickets.redeem("a", ticket.as_bytes()));
        assert!(!tickets.redeem("a", ticket.as_bytes()), "a second use");

        let (first, second) = (tickets.issue("a").unwrap(), tickets.issue("a").unwrap());
        assert_ne!(first, second);
        clock.advance(LIFETIME - Duration::from_secs(1));
        assert!(tickets.redeem("a", first.as_bytes()));
        clock.advance(Duration::from_secs(1));
        assert!(!tickets.redeem("a", second.as_bytes()), "expired");
    }

    #[test]
    fn the_number_is_bounded() {
        let tickets = Tickets::new(Arc::new(TestClock::default()));
        let all: Vec<_> = (0..40).map(|_| tickets.issue("a").unwrap()).collect();
        assert!(!tickets.redeem("a", all[0].as_bytes()));
        assert!(tickets.redeem("a", all[39].as_bytes()));
        assert_eq!(tickets.out.lock().unwrap()["a"].len(), MAX_OF_ONE - 1);
    }

    #[test]
    fn compares() {
        assert!(same(b"abc", b"abc") && same(b"", b""));
        assert!(!same(b"abc", b"abd") && !same(b"abc", b"ab") && !same(b"", b"a"));
    }
}
