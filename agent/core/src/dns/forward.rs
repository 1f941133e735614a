//! Passing a question on: to one server after the other, until one answers it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh_dns::Question;
use rand::TryRngCore;
use rand::rngs::OsRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::MAX_MESSAGE;
use super::resolvers::Resolvers;

/// Questions on their way at once.
const MAX_QUESTIONS: usize = 1024;
/// So long whoever asked waits, whatever the servers are allowed each.
const LIMIT: Duration = Duration::from_secs(20);
/// A server that did not answer is asked last for so long.
const SHUNNED: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DnsError {
    #[error("it is not a DNS query with one question")]
    NotAQuestion,
    #[error("{MAX_QUESTIONS} questions wait for an answer already")]
    Busy,
    #[error("the system gives no randomness")]
    Random,
    #[error(
        "no name server can be asked; see /etc/resolv.conf, or `dns {{ recursors }}` of the agent"
    )]
    Nobody,
    #[error("no name server answered; the last, {server}: {reason}")]
    Unanswered { server: SocketAddr, reason: String },
    #[error("no name server answered in {} s", LIMIT.as_secs())]
    Late,
}

/// How large an answer may be for whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// All of it.
    Whole,
    /// As much as the question says fits a datagram; who wants more comes by TCP.
    Datagram,
}

/// A question, and the message that it stands in.
struct Asked<'a> {
    question: &'a Question,
    message: &'a [u8],
}

/// Asks the host's name servers.
#[derive(Debug)]
pub(crate) struct Forwarder {
    resolvers: Resolvers,
    /// Our own address, which may stand among the servers.
    own: Option<SocketAddr>,
    places: Semaphore,
    turn: AtomicUsize,
    shunned: Mutex<HashMap<SocketAddr, Instant>>,
}

impl Forwarder {
    pub(crate) fn new(resolvers: Resolvers, own: Option<SocketAddr>) -> Arc<Self> {
        Arc::new(Self {
            resolvers,
            own,
            places: Semaphore::new(MAX_QUESTIONS),
            turn: AtomicUsize::new(0),
            shunned: Mutex::default(),
        })
    }

    /// A name server's answer to a question, under the question's id. Where each of them says that
    /// it failed, the last one's word.
    pub(crate) async fn ask(&self, message: &[u8], room: Room) -> Result<Vec<u8>, DnsError> {
        let question = Question::parse(message).map_err(|_| DnsError::NotAQuestion)?;
        let question = Asked {
            question: &question,
            message,
        };
        let _place = self.places.try_acquire().map_err(|_| DnsError::Busy)?;
        let answer = tokio::time::timeout(LIMIT, self.ask_all(&question, room)).await;
        answer.map_err(|_| DnsError::Late)?
    }

    async fn ask_all(&self, question: &Asked<'_>, room: Room) -> Result<Vec<u8>, DnsError> {
        let plan = self.resolvers.plan().await;
        let servers = self.order(&plan.servers, plan.rotate);
        let mut failure = None;
        let mut last = DnsError::Nobody;
        for _ in 0..plan.attempts {
            for &server in &servers {
                let try_it = exchange(server, question, room, plan.timeout);
                match try_it.await? {
                    Ok(answer) if mesh_dns::is_failure(&answer) => failure = Some(answer),
                    Ok(answer) => {
                        self.shunned().remove(&server);
                        return Ok(mesh_dns::with_id(&answer, question.question.id()));
                    }
                    Err(reason) => {
                        self.shunned().insert(server, Instant::now() + SHUNNED);
                        last = DnsError::Unanswered { server, reason };
                    }
                }
            }
            // They have said it; they would say it again.
            if failure.is_some() {
                break;
            }
        }
        match failure {
            Some(answer) => Ok(mesh_dns::with_id(&answer, question.question.id())),
            None => Err(last),
        }
    }

    /// The servers in the order in which they are asked.
    fn order(&self, servers: &[SocketAddr], rotate: bool) -> Vec<SocketAddr> {
        let own = |it: &&SocketAddr| Some(**it) != self.own;
        let mut servers: Vec<SocketAddr> = servers.iter().filter(own).copied().collect();
        if rotate && !servers.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let by = turn % servers.len();
            servers.rotate_left(by);
        }
        let now = Instant::now();
        let mut shunned = self.shunned();
        shunned.retain(|_, until| now < *until);
        servers.sort_by_key(|it| shunned.contains_key(it));
        servers
    }

    fn shunned(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, Instant>> {
        self.shunned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One try: over UDP, and over TCP where there is more.
async fn exchange(
    server: SocketAddr,
    question: &Asked<'_>,
    room: Room,
    timeout: Duration,
) -> Result<Result<Vec<u8>, String>, DnsError> {
    let id = OsRng.try_next_u32().map_err(|_| DnsError::Random)?;
    let id = (id & 0xffff) as u16;
    let late = || format!("no answer in {} s", timeout.as_secs());
    let short = tokio::time::timeout(timeout, by_udp(server, question, id)).await;
    let short = match short.map_err(|_| late()) {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Ok(Err(error.to_string())),
        Err(late) => return Ok(Err(late)),
    };
    if room == Room::Datagram || !mesh_dns::is_truncated(&short) {
        return Ok(Ok(short));
    }
    let whole = tokio::time::timeout(timeout, by_tcp(server, question, id)).await;
    // The beginning says by itself that it is one; that is more than nothing.
    Ok(Ok(match whole {
        Ok(Ok(answer)) => answer,
        _ => short,
    }))
}

/// From a port that the kernel picks at random; the kernel hands on only what comes from the server.
async fn by_udp(server: SocketAddr, question: &Asked<'_>, id: u16) -> std::io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket
        .send(&mesh_dns::with_id(question.message, id))
        .await?;
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = buffer.get(..length).unwrap_or_default();
        // Somebody else's, or somebody's who guesses: the real one may still come.
        if question.question.is_answered_by(answer, id) {
            return Ok(answer.to_vec());
        }
    }
}

async fn by_tcp(server: SocketAddr, question: &Asked<'_>, id: u16) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let question_sent = mesh_dns::with_id(question.message, id);
    let length = u16::try_from(question_sent.len()).map_err(std::io::Error::other)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(question_sent);
    stream.write_all(&bytes).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    match question.question.is_answered_by(&answer, id) {
        true => Ok(answer),
        false => Err(std::io::Error::other(
            "what came over TCP answers another question",
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::resolvers::Plan;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_silent_are_asked_last_for_a_while_and_rotation_goes_round() {
        let servers: Vec<SocketAddr> = ["10.0.0.1:53", "10.0.0.2:53", "10.0.0.3:53"]
            .map(|it| it.parse().unwrap())
            .to_vec();
        let plan = Arc::new(Plan::of(servers.clone()));
        let own = Some("10.0.0.3:53".parse().unwrap());
        let dns = Forwarder::new(Resolvers::Fixed(plan), own);
        let order = |rotate| -> Vec<String> {
            let order = dns.order(&servers, rotate);
            order.iter().map(|it| it.ip().to_string()).collect()
        };
        assert_eq!(order(false), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(order(true), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(order(true), ["10.0.0.2", "10.0.0.1"]);
        let until = Instant::now() + SHUNNED;
        dns.shunned()
            .insert(servers.first().copied().unwrap(), until);
        assert_eq!(order(false), ["10.0.0.2", "10.0.0.1"]);
        tokio::time::advance(SHUNNED).await;
        assert_eq!(order(false), ["10.0.0.1", "10.0.0.2"]);
    }
}
