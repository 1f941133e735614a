//! The application's DNS.

use std::net::{IpAddr, SocketAddr};

use mesh_dns::{HEADER, INTERNET, Name, kind};
use mesh_model::{Key, Protocol, VirtualAddress};
use mesh_proxy::{Ask, BoundTo, DataPlane, Want};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::support::*;
use crate::transparent::{Sidecar, address, at_address, name, transparent};

/// A question.
fn ask(text: &str, kind: u16) -> Vec<u8> {
    let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(Name::from_labels(text.split('.')).unwrap().wire());
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&INTERNET.to_be_bytes());
    message
}

/// What an answer is about: how it went, how many records there are, and the
/// last bytes, which are an address's.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    rcode: u8,
    records: u8,
    cut: bool,
    message: Vec<u8>,
}

impl Answer {
    fn read(message: Vec<u8>) -> Self {
        assert_eq!(&message[..2], [0xab, 0xcd]);
        Self {
            rcode: message[3] & 0xf,
            records: message[7],
            cut: message[2] & 2 != 0,
            message,
        }
    }

    fn is(&self, address: IpAddr) -> bool {
        let octets = match address {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        (self.rcode, self.records) == (0, 1) && self.message.ends_with(&octets)
    }
}

fn at(plane: &DataPlane) -> SocketAddr {
    bound(plane, &BoundTo::Dns)
}

async fn over_udp(at: SocketAddr, message: &[u8]) -> Answer {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(at).await.unwrap();
    socket.send(message).await.unwrap();
    let mut buffer = vec![0; 8192];
    let length = in_time(socket.recv(&mut buffer)).await.unwrap();
    Answer::read(buffer[..length].to_vec())
}

async fn over_tcp(socket: &mut TcpStream, message: &[u8]) -> Answer {
    let length = u16::try_from(message.len()).unwrap();
    socket.write_u16(length).await.unwrap();
    socket.write_all(message).await.unwrap();
    let length = in_time(socket.read_u16()).await.unwrap();
    let mut answer = vec![0; usize::from(length)];
    in_time(socket.read_exact(&mut answer)).await.unwrap();
    Answer::read(answer)
}

fn want(name: &str) -> Want {
    Want::Service(Key::of(name))
}

/// Whether this machine would send anything there; it decides what is answered.
fn has_ip6_route() -> bool {
    let ip = address().ip6();
    std::net::UdpSocket::bind("[::]:0").is_ok_and(|socket| socket.connect((ip, 9)).is_ok())
}

#[tokio::test]
async fn names_of_the_mesh() {
    let known = name(Some(address()));
    let mut sidecar = Sidecar::new(transparent(|it| it.names = vec![known])).await;
    let at = at(&sidecar.web);
    let mut tcp = TcpStream::connect(at).await.unwrap();
    for text in [
        "api",
        "API.Virtual.Consul",
        "api.service.consul",
        "api.service.dc1.consul",
        "_api._tcp.service.consul",
    ] {
        let message = ask(text, kind::A);
        let answer = over_udp(at, &message).await;
        assert!(answer.is(address().ip4().into()), "{text}: {answer:?}");
        // The case of what was asked is kept.
        assert_eq!(answer.message[HEADER..message.len()], message[HEADER..]);
        assert!(
            over_tcp(&mut tcp, &message)
                .await
                .is(address().ip4().into())
        );
    }
    assert_eq!(sidecar.asked().await, Ask::Wants(vec![want("api")]));
    let aaaa = over_udp(at, &ask("api.virtual.consul", kind::AAAA)).await;
    match has_ip6_route() {
        true => assert!(aaaa.is(address().ip6().into())),
        false => assert_eq!((aaaa.rcode, aaaa.records), (0, 0)),
    }
    let srv = over_udp(at, &ask("_api._tcp.service.consul", kind::SRV)).await;
    assert_eq!((srv.rcode, srv.records), (0, 1));
    let txt = over_udp(at, &ask("api", 16)).await;
    assert_eq!((txt.rcode, txt.records), (0, 0));
    for absent in [
        "v1.api.service.consul",
        "api.service.dc2.consul",
        "api.consul",
    ] {
        assert_eq!(
            over_udp(at, &ask(absent, kind::A)).await.rcode,
            3,
            "{absent}"
        );
    }
    assert_eq!(over_udp(at, &ask("consul", kind::SOA)).await.records, 1);
    for (answer, count) in [("mesh", 14), ("absent", 3)] {
        let labels = [format!("answer=\"{answer}\"")];
        let labels = labels.each_ref().map(String::as_str);
        let counted = metric(&sidecar.web, "mesh_dns_questions_total", &labels);
        assert_eq!(counted, count, "{answer}");
    }
    // None of that was anybody else's business.
    assert!(sidecar.asks.try_recv().is_err());
}

#[tokio::test]
async fn a_name_that_is_not_known_is_asked_for_and_waits() {
    let mut config = transparent(|_| {});
    let mut sidecar = Sidecar::new(config.clone()).await;
    let api = sidecar.api(Protocol::Http, telling("api").await).await;
    let at = at(&sidecar.web);
    let questions = ["api", "api.virtual.consul", "gone.virtual.consul"]
        .map(|name| tokio::spawn(async move { over_udp(at, &ask(name, kind::A)).await }));
    let mut wants = Vec::new();
    while wants.len() < 2 {
        let Ask::Wants(now) = sidecar.asked().await else {
            panic!("a name of ours was passed on");
        };
        wants = now;
    }
    assert_eq!(wants, [want("api"), want("gone")]);
    at_address(&mut config, Protocol::Http, &api);
    let answered = config.transparent.as_mut().unwrap();
    answered.names = vec![name(Some(address())), name(None)];
    answered.names[1].service = Key::of("gone");
    sidecar.web.apply(config).await.unwrap();
    let [short, long, gone] = questions;
    for answer in [short, long] {
        assert!(in_time(answer).await.unwrap().is(address().ip4().into()));
    }
    assert_eq!(in_time(gone).await.unwrap().rcode, 3);
    // What was answered is there.
    let socket = sidecar.connect((address().ip4(), 80)).await;
    let mut client = Client::h1_over(socket).await;
    assert_eq!(client.get("/").await.json()["name"], "api");
}

#[tokio::test]
async fn without_an_answer_in_time_it_fails() {
    let mut sidecar = Sidecar::new(transparent(|_| {})).await;
    let at = at(&sidecar.web);
    let answer = over_udp(at, &ask("api.virtual.consul", kind::A)).await;
    assert_eq!(answer.rcode, 2);
    assert_eq!(sidecar.asked().await, Ask::Wants(vec![want("api")]));
}

/// Takes the next question that is passed on, and answers it.
async fn resolve(sidecar: &mut Sidecar, answer: impl FnOnce(&[u8]) -> Result<Vec<u8>, String>) {
    loop {
        if let Ask::Dns { id, message } = sidecar.asked().await {
            return sidecar.web.dns_answer(id, answer(&message));
        }
    }
}

/// As a resolver answers: so many addresses.
fn addresses(question: &[u8], count: u8) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2] |= 0x80;
    answer[7] = count;
    for last in 0..count {
        answer.extend_from_slice(&[0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, last]);
    }
    answer
}

#[tokio::test]
async fn all_other_names_are_passed_on() {
    let gone = transparent(|it| it.names = vec![name(None)]);
    let mut sidecar = Sidecar::new(gone).await;
    let at = at(&sidecar.web);
    // A name of one label that is no service's is the host's, as any other.
    for text in [
        "example.com",
        "api",
        "localhost",
        "api.virtual.consul.example.com",
    ] {
        let asking = tokio::spawn(async move { over_udp(at, &ask(text, kind::A)).await });
        resolve(&mut sidecar, |message| {
            assert_eq!(message, ask(text, kind::A));
            Ok(addresses(message, 1))
        })
        .await;
        assert!(
            in_time(asking).await.unwrap().is([192, 0, 2, 0].into()),
            "{text}"
        );
    }
    // Too long for UDP: asked for again over TCP, and whole there.
    let asking = tokio::spawn(async move { over_udp(at, &ask("many.example", kind::A)).await });
    resolve(&mut sidecar, |message| Ok(addresses(message, 200))).await;
    let cut = in_time(asking).await.unwrap();
    assert!(
        cut.cut && cut.records == 0 && cut.message.len() <= 512,
        "{cut:?}"
    );
    let asking = tokio::spawn(async move {
        let mut socket = TcpStream::connect(at).await.unwrap();
        over_tcp(&mut socket, &ask("many.example", kind::A)).await
    });
    resolve(&mut sidecar, |message| Ok(addresses(message, 200))).await;
    assert_eq!(in_time(asking).await.unwrap().records, 200);
    // No answer, another's answer, and an agent that goes.
    for answer in [
        Err("no resolver".to_owned()),
        Ok(addresses(&ask("other.example", kind::A), 1)),
        Ok(vec![1, 2, 3]),
    ] {
        let asking = tokio::spawn(async move { over_udp(at, &ask("one.example", kind::A)).await });
        resolve(&mut sidecar, |_| answer).await;
        assert_eq!(in_time(asking).await.unwrap().rcode, 2);
    }
    let asking = tokio::spawn(async move { over_udp(at, &ask("two.example", kind::A)).await });
    assert!(matches!(sidecar.asked().await, Ask::Dns { .. }));
    sidecar.web.dns_failed("the agent went");
    assert_eq!(in_time(asking).await.unwrap().rcode, 2);
}

#[tokio::test]
async fn an_instance_with_a_name_is_found_by_the_agent() {
    let mut config = transparent(|_| {});
    let mut sidecar = Sidecar::new(config.clone()).await;
    let api = sidecar.api(Protocol::Http, telling("api").await).await;
    at_address(&mut config, Protocol::Http, &api);
    let cluster = config.clusters.get_mut("api").unwrap();
    cluster.endpoints[0].address = "node.internal".to_owned();
    sidecar.web.apply(config).await.unwrap();
    let socket = sidecar.connect((address().ip4(), 80)).await;
    let calling = tokio::spawn(async move { Client::h1_over(socket).await.get("/").await });
    for _ in 0..2 {
        resolve(&mut sidecar, |message| {
            let mut answer = addresses(message, 1);
            match answer[message.len() - 3] {
                1 => answer
                    .splice(answer.len() - 4.., [127, 0, 0, 1])
                    .for_each(drop),
                _ => answer[7] = 0,
            }
            Ok(answer)
        })
        .await;
    }
    assert_eq!(in_time(calling).await.unwrap().json()["name"], "api");
}

#[tokio::test]
async fn what_is_no_question() {
    let sidecar = Sidecar::new(transparent(|_| {})).await;
    let at = at(&sidecar.web);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    // No answer to these, and none to wait for: an answer would loop.
    for silent in [&b"x"[..], &addresses(&ask("a.example", kind::A), 1)] {
        socket.send_to(silent, at).await.unwrap();
    }
    let mut update = ask("consul", kind::SOA);
    update[2] = 0x28;
    assert_eq!(over_udp(at, &update).await.rcode, 4);
    let mut cut = ask("api.virtual.consul", kind::A);
    cut.truncate(20);
    assert_eq!(over_udp(at, &cut).await.rcode, 1);
    let mut buffer = [0; 512];
    assert!(socket.try_recv(&mut buffer).is_err());
    assert_eq!(sidecar.web.wants(), []);
    // An address that no name led to is one all the same.
    assert_eq!(VirtualAddress::of(address().ip6().into()), Some(address()));
}
