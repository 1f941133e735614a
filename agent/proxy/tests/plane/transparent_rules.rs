//! The sidecar under the rules that the CNI plugin makes, in a network namespace
//! of its own. All here are root, so that the mark alone tells the sidecar from
//! its application: without it each of its calls would come back to it.
//!
//! Needs root, iptables and iproute2; tests/unit/run names it where they are
//! missing.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use mesh_dns::{INTERNET, Name, kind};
use mesh_model::Protocol;
use mesh_proxy::Ask;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{geteuid, getpid, gettid};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::support::*;
use crate::transparent::{address, at_address, name, transparent};

/// Of the allocation: where other sidecars are, and what is outside. Neither is
/// loopback, so that the rules look at what goes there.
const HERE: &str = "10.98.0.2";
const OUTSIDE: [&str; 2] = ["10.98.0.3", "fd00:98::3"];

fn program(line: &str) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output();
    let output = output.unwrap_or_else(|error| panic!("{line}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
}

fn can() -> bool {
    let works = |program: &str| {
        let mut command = Command::new(program);
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        let status = quiet.arg("-V").status();
        status.is_ok_and(|status| status.success())
    };
    geteuid().is_root() && ["iptables", "ip6tables", "ip"].into_iter().all(works)
}

/// Runs the plugin on a namespace as Nomad does, for a sidecar of root.
fn add_rules(netns: &str) {
    let config = json!({
        "ConsulDNSIP": "10.98.0.1",
        "ConsulDNSPort": 8600,
        "ProxyUserID": "0",
        "ProxyInboundPort": 20000,
        "ProxyOutboundPort": mesh_cni::OUTBOUND_PORT,
        "ExcludeInboundPorts": null,
        "ExcludeOutboundPorts": null,
        "ExcludeOutboundCIDRs": null,
        "ExcludeUIDs": null,
        "NetNS": netns,
        "IptablesProvider": null,
    });
    let variables = BTreeMap::from([
        ("CNI_COMMAND", "ADD".to_owned()),
        ("CNI_CONTAINERID", "5f0a".to_owned()),
        ("CNI_IFNAME", "eth0".to_owned()),
        ("CNI_NETNS", netns.to_owned()),
        ("PATH", std::env::var("PATH").unwrap()),
        (
            "CNI_ARGS",
            format!("IgnoreUnknown=true;CONSUL_IPTABLES_CONFIG={config}"),
        ),
    ]);
    let stdin =
        r#"{"cniVersion":"0.4.0","name":"nomad","type":"consul-cni","prevResult":{"dns":{}}}"#;
    let answer = mesh_cni::run(&|name| variables.get(name).cloned(), &mut stdin.as_bytes());
    assert_eq!(answer.code, 0, "{answer:?}");
}

#[test]
fn an_application_in_a_namespace_with_rules_needs_root() {
    if !can() {
        eprintln!("skipped: needs root, iptables and iproute2");
        return;
    }
    let (made, namespace) = mpsc::channel();
    let (rules, are_there) = mpsc::channel::<()>();
    // All threads of the planes are made by this one, and are where it is.
    let inside = std::thread::spawn(move || {
        let path = unshare(CloneFlags::CLONE_NEWNET)
            .map(|()| format!("/proc/{}/task/{}/ns/net", getpid(), gettid()));
        let is_inside = path.is_ok();
        made.send(path).unwrap();
        if is_inside && are_there.recv().is_ok() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(calls());
        }
    });
    match namespace.recv().unwrap() {
        Ok(path) => {
            add_rules(&path);
            rules.send(()).unwrap();
        }
        Err(_) => eprintln!("skipped: this root may not make network namespaces"),
    }
    inside.join().unwrap();
}

/// An application that says from which port it was called.
async fn telling_port(ip: &str) -> SocketAddr {
    let ip: IpAddr = ip.parse().unwrap();
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, from) = listener.accept().await.unwrap();
            let _ = socket.write_u16(from.port()).await;
        }
    });
    at
}

async fn calls() {
    for line in [
        "ip link set lo up",
        "ip link add eth0 type veth peer name wire",
        "ip link set wire up",
        "ip link set eth0 up",
        "ip addr add 10.98.0.2/24 dev eth0",
        "ip addr add 10.98.0.3/24 dev eth0",
        "ip addr add fd00:98::2/64 dev eth0 nodad",
        "ip addr add fd00:98::3/64 dev eth0 nodad",
        "ip route add default dev eth0",
        "ip -6 route add default dev eth0",
    ] {
        program(line);
    }
    let ca = Ca::new();
    // The other sidecar, at an address that only a marked call gets to.
    let api = ca.plane("api");
    let mut served = serving("api", Protocol::Http, telling("api").await);
    served.inbound.as_mut().unwrap().address = HERE.to_owned();
    api.apply(served).await.unwrap();
    let (ask, mut asks) = tokio::sync::mpsc::unbounded_channel();
    let options = mesh_proxy::Options {
        asks: Some(ask),
        ..options()
    };
    let web = mesh_proxy::DataPlane::new(ca.tls("web"), options);
    let mut config = transparent(|it| {
        it.outbound_port = mesh_cni::OUTBOUND_PORT;
        it.dns_port = mesh_cni::DNS_PORT;
        it.names = vec![name(Some(address()))];
    });
    at_address(&mut config, Protocol::Http, &api);
    web.apply(config).await.unwrap();

    // By name, from whatever server, then by what was answered.
    let resolver = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    let mut question = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let asked = Name::from_labels(["api"]).unwrap();
    question.extend_from_slice(asked.wire());
    question.extend_from_slice(&kind::A.to_be_bytes());
    question.extend_from_slice(&INTERNET.to_be_bytes());
    resolver.send_to(&question, "9.9.9.9:53").await.unwrap();
    let mut answer = [0; 512];
    let (length, from) = in_time(resolver.recv_from(&mut answer)).await.unwrap();
    assert_eq!(from, "9.9.9.9:53".parse().unwrap());
    assert!(answer[..length].ends_with(&address().ip4().octets()));
    assert!(matches!(in_time(asks.recv()).await, Some(Ask::Wants(_))));
    for to in [
        SocketAddr::from((address().ip4(), 80)),
        SocketAddr::from((address().ip6(), 8080)),
    ] {
        let socket = in_time(TcpStream::connect(to)).await.unwrap();
        let mut client = Client::h1_over(socket).await;
        let told = client.get("/a").await.json();
        assert_eq!(told["name"], "api", "{to}");
        let source = told["headers"]["x-mesh-source"].as_str().unwrap();
        assert_eq!(source, identity("web"));
    }

    // What is outside is called by the sidecar, and once.
    for (index, outside) in OUTSIDE.into_iter().enumerate() {
        let outside = telling_port(outside).await;
        let mut socket = in_time(TcpStream::connect(outside)).await.unwrap();
        let seen = in_time(socket.read_u16()).await.unwrap();
        assert_ne!(
            seen,
            socket.local_addr().unwrap().port(),
            "it did not pass by"
        );
        let labels = ["destination=\"outside\""];
        let count = metric(&web, "mesh_connections_total", &labels);
        assert_eq!(count, index as u64 + 1);
    }

    // The sidecar's own port, called by its address, is no way around.
    let itself = SocketAddr::from(([127, 0, 0, 1], mesh_cni::OUTBOUND_PORT));
    let mut got = [0; 1];
    if let Ok(mut socket) = in_time(TcpStream::connect(itself)).await {
        let ended = in_time(socket.read(&mut got)).await;
        assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    }
}
