//! Against name servers that a test plays.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::forward::DnsError;
use super::names::tests::{Catalog, names};
use super::resolvers::{Plan, Resolvers};
use super::{Forwarder, Listener, Room, serve};

/// A question for a name's IPv4 address.
pub(super) fn question(id: u16, name: &str) -> Vec<u8> {
    let name = mesh_dns::Name::from_labels(name.split('.')).unwrap();
    mesh_dns::with_id(&mesh_dns::ask(&name, mesh_dns::kind::A), id)
}

/// What a name server does with a question: its answers, each as it is.
type Answers = fn(&[u8]) -> Vec<Vec<u8>>;

/// A name server on loopback: where it is, and the questions that came over UDP.
async fn server(udp: Answers, tcp: Answers) -> (SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(at).await.unwrap();
    let (seen, questions) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_535];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let _ = seen.send(buffer[..length].to_vec());
            for answer in udp(&buffer[..length]) {
                socket.send_to(&answer, from).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut asked).await.unwrap();
            for answer in tcp(&asked) {
                let length = u16::try_from(answer.len()).unwrap();
                stream.write_u16(length).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        }
    });
    (at, questions)
}

fn forwarder(servers: &[SocketAddr], timeout: Duration) -> Arc<Forwarder> {
    let plan = Plan {
        timeout,
        attempts: 2,
        ..Plan::of(servers.to_vec())
    };
    Forwarder::new(Resolvers::Fixed(Arc::new(plan)), None)
}

/// Long for loopback.
const LONG: Duration = Duration::from_secs(20);
/// For servers that never answer.
const SHORT: Duration = Duration::from_millis(100);

/// The question as its answer, with these bits in the third and fourth byte, and something behind.
fn answer(asked: &[u8], high: u8, low: u8, behind: &[u8]) -> Vec<u8> {
    let mut answer = asked.to_vec();
    answer[2] |= 0x80 | high;
    answer[3] |= low;
    answer.extend(behind);
    answer
}

fn well(asked: &[u8]) -> Vec<Vec<u8>> {
    vec![answer(asked, 0, 0x80, b"well")]
}

fn truncated(asked: &[u8]) -> Vec<Vec<u8>> {
    vec![answer(asked, 2, 0x80, b"")]
}

fn large(asked: &[u8]) -> Vec<Vec<u8>> {
    vec![answer(asked, 0, 0x80, &[7; 40_000])]
}

fn failure(asked: &[u8]) -> Vec<Vec<u8>> {
    vec![answer(asked, 0, 2, b"")]
}

fn silence(_: &[u8]) -> Vec<Vec<u8>> {
    Vec::new()
}

/// Of another id, of another question, a question; then the right one.
fn guesses(asked: &[u8]) -> Vec<Vec<u8>> {
    let mut other_id = answer(asked, 0, 0, b"forged");
    other_id[1] ^= 1;
    let mut other_name = answer(asked, 0, 0, b"forged");
    other_name[13] = b'x';
    let mut all = vec![other_id, other_name, asked.to_vec(), vec![0; 3]];
    all.extend(well(asked));
    all
}

fn ends(message: &[u8], with: &[u8]) -> bool {
    message.ends_with(with)
}

#[tokio::test]
async fn an_answer_comes_back_under_the_askers_id() {
    let (at, mut seen) = server(well, silence).await;
    let dns = forwarder(&[at], LONG);
    let asked = question(7, "example.org");
    let mut ids = Vec::new();
    for _ in 0..3 {
        let answer = dns.ask(&asked, Room::Whole).await.unwrap();
        assert_eq!(answer[..2], [0, 7]);
        assert!(ends(&answer, b"well"));
        let sent = seen.recv().await.unwrap();
        assert_eq!(sent[2..], asked[2..]);
        ids.push([sent[0], sent[1]]);
    }
    ids.dedup();
    assert!(ids.len() > 1, "the ids are not random: {ids:?}");
}

#[tokio::test]
async fn what_answers_another_question_is_not_taken() {
    let (at, _seen) = server(guesses, silence).await;
    let dns = forwarder(&[at], LONG);
    let answer = dns.ask(&question(7, "example.org"), Room::Whole).await;
    assert!(ends(&answer.unwrap(), b"well"));
}

#[tokio::test]
async fn the_whole_comes_over_tcp_to_who_has_room() {
    let (at, _seen) = server(truncated, large).await;
    let dns = forwarder(&[at], LONG);
    let asked = question(7, "example.org");
    let whole = dns.ask(&asked, Room::Whole).await.unwrap();
    assert_eq!(whole.len(), asked.len() + 40_000);
    assert_eq!(whole[..2], [0, 7]);
    let short = dns.ask(&asked, Room::Datagram).await.unwrap();
    assert_eq!((short.len(), short[2] & 2), (asked.len(), 2));
}

#[tokio::test]
async fn the_beginning_is_taken_where_tcp_gives_nothing() {
    let (at, _seen) = server(truncated, guesses_over_tcp).await;
    let dns = forwarder(&[at], LONG);
    let answer = dns.ask(&question(7, "example.org"), Room::Whole).await;
    assert_eq!(answer.unwrap()[2] & 2, 2);
}

fn guesses_over_tcp(asked: &[u8]) -> Vec<Vec<u8>> {
    guesses(asked).into_iter().take(1).collect()
}

#[tokio::test]
async fn a_dead_server_is_followed_by_the_next() {
    let (dead, mut seen_by_dead) = server(silence, silence).await;
    let (at, _seen) = server(well, silence).await;
    let dns = forwarder(&[dead, at], Duration::from_secs(1));
    let asked = question(7, "example.org");
    // The one that answers may be slow on a busy machine; then it is asked again.
    assert!(ends(&dns.ask(&asked, Room::Whole).await.unwrap(), b"well"));
    seen_by_dead.recv().await.unwrap();
}

#[tokio::test]
async fn a_server_that_fails_is_followed_by_the_next() {
    let (failing, _first) = server(failure, silence).await;
    let (at, _second) = server(well, silence).await;
    let asked = question(7, "example.org");
    let dns = forwarder(&[failing, at], LONG);
    assert!(ends(&dns.ask(&asked, Room::Whole).await.unwrap(), b"well"));
    // Where all do, it is their word that comes.
    let dns = forwarder(&[failing], LONG);
    let answer = dns.ask(&asked, Room::Whole).await.unwrap();
    assert_eq!((answer[3] & 15, &answer[..2]), (2, &[0, 7][..]));
}

#[tokio::test]
async fn silence_is_an_error_and_nothing_is_made_up() {
    let (dead, mut seen) = server(silence, silence).await;
    let dns = forwarder(&[dead], SHORT);
    let error = dns.ask(&question(7, "example.org"), Room::Whole).await;
    assert!(matches!(error, Err(DnsError::Unanswered { server, .. }) if server == dead));
    seen.recv().await.unwrap();
    seen.recv().await.unwrap();
    assert!(seen.try_recv().is_err(), "two attempts and no more");

    let error = dns.ask(&[0; 12], Room::Whole).await;
    assert!(matches!(error, Err(DnsError::NotAQuestion)));
    // Itself it does not ask.
    let plan = Plan::of(vec![dead]);
    let alone = Forwarder::new(Resolvers::Fixed(Arc::new(plan)), Some(dead));
    let error = alone.ask(&question(7, "example.org"), Room::Whole).await;
    assert!(matches!(error, Err(DnsError::Nobody)));
}

#[tokio::test]
async fn the_listener_passes_on_and_answers_for_the_mesh() {
    let (at, _seen) = server(truncated, large).await;
    let dns = forwarder(&[at], LONG);
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into())
        .await
        .unwrap();
    let own = listener.address();
    let stop = CancellationToken::new();
    let (names, _data) = names(Catalog::of(100));
    let task = tokio::spawn(serve(listener, dns, names, stop.clone()));

    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    udp.connect(own).await.unwrap();
    let mut buffer = vec![0; 65_535];
    // What is no question is passed over, and the next is answered.
    for sent in [vec![1, 2, 3], question(7, "example.org")] {
        udp.send(&sent).await.unwrap();
    }
    let length = udp.recv(&mut buffer).await.unwrap();
    assert_eq!((&buffer[..2], buffer[2] & 2), (&[0, 7][..], 2));
    assert_eq!(length, question(7, "example.org").len());
    // More instances than fit a datagram.
    udp.send(&question(8, "web.service.CONSUL")).await.unwrap();
    let length = udp.recv(&mut buffer).await.unwrap();
    assert_eq!(
        (&buffer[..2], buffer[2] & 2, buffer[3] & 15),
        (&[0, 8][..], 2, 0)
    );
    assert!(length <= 512);

    let mut tcp = TcpStream::connect(own).await.unwrap();
    for (id, name, rcode, least) in [
        (9, "example.org", 0, 40_000),
        (10, "web.service.consul", 0, 1600),
        (11, "other.service.consul", 3, 0),
    ] {
        let asked = question(id, name);
        let length = u16::try_from(asked.len()).unwrap();
        tcp.write_u16(length).await.unwrap();
        tcp.write_all(&asked).await.unwrap();
        let mut answer = vec![0; usize::from(tcp.read_u16().await.unwrap())];
        tcp.read_exact(&mut answer).await.unwrap();
        assert_eq!(
            (answer[..2].to_vec(), answer[3] & 15),
            (id.to_be_bytes().to_vec(), rcode)
        );
        assert!(answer.len() > least && answer[2] & 2 == 0, "{name}");
    }
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn a_name_server_that_is_away_is_a_failure() {
    let gone = {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.local_addr().unwrap()
    };
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into())
        .await
        .unwrap();
    let own = listener.address();
    let stop = CancellationToken::new();
    let (names, _data) = names(Catalog::of(0));
    tokio::spawn(serve(
        listener,
        forwarder(&[gone], SHORT),
        names,
        stop.clone(),
    ));
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    udp.connect(own).await.unwrap();
    udp.send(&question(7, "example.org")).await.unwrap();
    let mut buffer = [0; 512];
    udp.recv(&mut buffer).await.unwrap();
    assert_eq!((&buffer[..2], buffer[3] & 15), (&[0, 7][..], 2));
    stop.cancel();
}
