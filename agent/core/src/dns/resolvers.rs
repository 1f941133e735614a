//! Which servers are asked: those of the configuration, or those of the host's `resolv.conf`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The port of name servers in `resolv.conf`.
const DNS_PORT: u16 = 53;
/// As many name servers and no more of the file are used, as by the C library.
const MAX_SERVERS: usize = 3;
/// How old what was read of the file may be.
const FRESH: Duration = Duration::from_secs(1);
/// How long one try may take where the file does not say. Shorter than the C library's 5 s: whoever
/// asks here waits no longer than those, and the second server should have its turn.
const TIMEOUT: Duration = Duration::from_secs(2);
const LONGEST_TIMEOUT_SECS: u64 = 30;
/// How often all are tried where the file does not say.
const ATTEMPTS: u32 = 2;
const MAX_ATTEMPTS: u32 = 5;

/// Whom to ask, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) servers: Vec<SocketAddr>,
    /// Of one try.
    pub(crate) timeout: Duration,
    /// How often all are tried.
    pub(crate) attempts: u32,
    /// Begins with another one each time.
    pub(crate) rotate: bool,
}

impl Plan {
    pub(crate) fn of(servers: Vec<SocketAddr>) -> Self {
        Self {
            servers,
            timeout: TIMEOUT,
            attempts: ATTEMPTS,
            rotate: false,
        }
    }

    /// Reads a `resolv.conf` (resolv.conf(5)). What is not understood in it is passed over, as the
    /// C library does. Without a server it is the one of this machine.
    pub(crate) fn parse(text: &str) -> Self {
        let mut plan = Self::of(Vec::new());
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(server);
                    if plan.servers.len() < MAX_SERVERS {
                        plan.servers.extend(server);
                    }
                }
                Some("options") => words.for_each(|word| plan.option(word)),
                _ => {}
            }
        }
        if plan.servers.is_empty() {
            plan.servers.push((Ipv4Addr::LOCALHOST, DNS_PORT).into());
        }
        plan
    }

    fn option(&mut self, word: &str) {
        match word.split_once(':') {
            Some(("timeout", number)) => {
                if let Ok(secs) = number.parse::<u64>() {
                    self.timeout = Duration::from_secs(secs.clamp(1, LONGEST_TIMEOUT_SECS));
                }
            }
            Some(("attempts", number)) => {
                if let Ok(attempts) = number.parse::<u32>() {
                    self.attempts = attempts.clamp(1, MAX_ATTEMPTS);
                }
            }
            None if word == "rotate" => self.rotate = true,
            _ => {}
        }
    }
}

/// An address, where it is link-local with its interface.
fn server(text: &str) -> Option<SocketAddr> {
    if let Some((address, interface)) = text.split_once('%') {
        let scope = match interface.parse() {
            Ok(number) => number,
            Err(_) => nix::net::if_::if_nametoindex(interface).ok()?,
        };
        let address = address.parse().ok()?;
        return Some(SocketAddrV6::new(address, DNS_PORT, 0, scope).into());
    }
    let address: IpAddr = text.parse().ok()?;
    Some((address, DNS_PORT).into())
}

/// Where the plan comes from.
#[derive(Debug)]
pub(crate) enum Resolvers {
    /// The configuration.
    Fixed(Arc<Plan>),
    /// A file, read again when it is needed.
    File {
        path: PathBuf,
        read: Mutex<Option<(Instant, Arc<Plan>)>>,
    },
}

impl Resolvers {
    pub(crate) fn file(path: PathBuf) -> Self {
        let read = Mutex::default();
        Self::File { path, read }
    }

    /// The plan as it is now.
    pub(crate) async fn plan(&self) -> Arc<Plan> {
        let (path, read) = match self {
            Self::Fixed(plan) => return plan.clone(),
            Self::File { path, read } => (path, read),
        };
        let lock = || read.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let known = lock().clone();
        if let Some((at, plan)) = &known
            && now < *at + FRESH
        {
            return plan.clone();
        }
        let plan = match (tokio::fs::read_to_string(path).await, known) {
            (Ok(text), _) => Arc::new(Plan::parse(&text)),
            // It is being replaced, most likely.
            (Err(error), Some((_, before))) => {
                tracing::warn!(path = %path.display(), %error, "the name servers cannot be read; those from before are asked");
                before
            }
            (Err(error), None) => {
                tracing::warn!(path = %path.display(), %error, "the name servers cannot be read; this machine's own is asked");
                Arc::new(Plan::parse(""))
            }
        };
        *lock() = Some((now, plan.clone()));
        plan
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_file_is_read_as_the_c_library_does() {
        let text = "# comment\nsearch example.org\nnameserver 10.0.0.1\nnameserver\tfd00::1 \n\
            nameserver fe80::1%1\nnameserver not-one\nnameserver 10.0.0.9\n\
            options ndots:2 timeout:99 attempts:0\noptions rotate\n";
        let plan = Plan::parse(text);
        let servers: Vec<String> = plan.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[fd00::1]:53", "[fe80::1%1]:53"]);
        assert_eq!(plan.timeout, Duration::from_secs(30));
        assert_eq!((plan.attempts, plan.rotate), (1, true));

        let plan = Plan::parse("; nothing\nnameserverX 10.0.0.1\noptions timeout:x\n");
        assert_eq!(plan, Plan::of(vec!["127.0.0.1:53".parse().unwrap()]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_the_file_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let resolvers = Resolvers::file(path.clone());
        let first = async || resolvers.plan().await.servers[0].to_string();
        assert_eq!(first().await, "127.0.0.1:53");
        std::fs::write(&path, "nameserver 10.0.0.1\n").unwrap();
        tokio::time::advance(FRESH).await;
        assert_eq!(first().await, "10.0.0.1:53");
        std::fs::remove_file(&path).unwrap();
        tokio::time::advance(FRESH).await;
        assert_eq!(first().await, "10.0.0.1:53");
    }
}
