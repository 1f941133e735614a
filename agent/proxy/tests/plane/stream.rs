//! Byte streams through two sidecars.

use std::net::SocketAddr;

use mesh_model::Protocol;
use mesh_proto::config::Bind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use crate::support::*;

async fn exchange(address: SocketAddr, sent: &[u8]) -> Vec<u8> {
    in_time(async {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let (mut read, mut write) = socket.split();
        let mut got = Vec::new();
        let (written, received) = tokio::join!(
            async {
                write.write_all(sent).await?;
                write.shutdown().await
            },
            read.read_to_end(&mut got)
        );
        written.unwrap();
        received.unwrap();
        got
    })
    .await
}

#[tokio::test]
async fn half_close() {
    // Answers only when the caller has said all.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let application = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut all = Vec::new();
            socket.read_to_end(&mut all).await.unwrap();
            all.reverse();
            socket.write_all(&all).await.unwrap();
        }
    });
    let pair = Pair::new(Protocol::Tcp, application).await;
    assert_eq!(exchange(pair.address, b"abc").await, b"cba");
    assert_eq!(exchange(pair.address, b"").await, b"");
}

#[tokio::test]
async fn many_and_big() {
    let pair = Pair::new(Protocol::Tcp, echo().await).await;
    let streams = (0..200_usize).map(|index| {
        let address = pair.address;
        async move {
            let size = if index % 20 == 0 {
                2_000_000
            } else {
                500 + index
            };
            let sent: Vec<u8> = (0..size).map(|at| (at * 7 + index) as u8).collect();
            assert!(exchange(address, &sent).await == sent, "stream {index}");
        }
    });
    futures::future::join_all(streams).await;
    let total = metric(
        &pair.web,
        "mesh_connections_total",
        &["outbound", "source=\"web\""],
    );
    assert_eq!(total, 200);
    until("all are counted as ended", || {
        metric(&pair.web, "mesh_connections_active", &[]) == 0
            && metric(&pair.api, "mesh_connections_active", &[]) == 0
    })
    .await;
}

#[tokio::test]
async fn over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let text = path.to_str().unwrap().to_owned();
    let ca = Ca::new();
    let api = ca.plane("api");
    api.apply(serving("api", Protocol::Tcp, echo().await))
        .await
        .unwrap();
    let web = ca.plane("web");
    let mut out = upstream("api", Protocol::Tcp);
    out.bind = Bind::Unix {
        path: text,
        mode: "0600".to_owned(),
    };
    let config = calling(
        "web",
        vec![out],
        vec![("api", cluster("api", Protocol::Tcp, &[inbound_of(&api)]))],
    );
    web.apply(config.clone()).await.unwrap();
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let mut socket = UnixStream::connect(&path).await.unwrap();
    socket.write_all(b"hi").await.unwrap();
    let mut got = [0; 2];
    in_time(socket.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"hi");
    // Another one cannot take it, and it goes with its listener.
    let other = ca
        .plane("web")
        .apply(config.clone())
        .await
        .unwrap_err()
        .to_string();
    assert!(other.contains("another program listens there"), "{other}");
    web.apply(calling("web", Vec::new(), Vec::new()))
        .await
        .unwrap();
    assert!(!path.exists());
}

/// What comes after these bytes, and how it ends. A quick reset may be seen as early
/// as by who connects.
async fn read_after(address: SocketAddr, bytes: &[u8]) -> (Vec<u8>, std::io::Result<usize>) {
    let mut got = Vec::new();
    let end = match TcpStream::connect(address).await {
        Ok(mut socket) => {
            let _ = socket.write_all(bytes).await;
            in_time(socket.read_to_end(&mut got)).await
        }
        Err(error) => Err(error),
    };
    (got, end)
}

#[tokio::test]
async fn bytes_to_an_http_service_are_refused() {
    let pair = Pair::with(Protocol::Http, telling("api").await, options(), |config| {
        config.outbound[0].protocol = Protocol::Tcp;
    })
    .await;
    let (got, _) = read_after(pair.address, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(got.is_empty(), "{}", String::from_utf8_lossy(&got));
    assert_eq!(once_counted(&pair), 0);
}

fn once_counted(pair: &Pair) -> u64 {
    metric(&pair.api, "mesh_requests_total", &[])
}

#[tokio::test]
async fn an_instance_that_refuses_is_avoided() {
    let ca = Ca::new();
    let api = ca.plane("api");
    api.apply(serving("api", Protocol::Tcp, echo().await))
        .await
        .unwrap();
    let instances = [nobody().await, inbound_of(&api), nobody().await];
    let web = ca.plane("web");
    let clusters = vec![("api", cluster("api", Protocol::Tcp, &instances))];
    web.apply(calling(
        "web",
        vec![upstream("api", Protocol::Tcp)],
        clusters,
    ))
    .await
    .unwrap();
    let address = upstream_of(&web, "api");
    for _ in 0..20 {
        assert_eq!(exchange(address, b"x").await, b"x");
    }
    let failures = metric(&web, "mesh_upstream_connect_failures_total", &["refused"]);
    assert!(
        (1..=2).contains(&failures),
        "each is tried once: {failures}"
    );
}

#[tokio::test]
async fn a_wrong_identity_gets_no_byte() {
    let ca = Ca::new();
    let other = ca.plane("other");
    other
        .apply(serving("other", Protocol::Tcp, echo().await))
        .await
        .unwrap();
    let web = ca.plane("web");
    let clusters = vec![("api", cluster("api", Protocol::Tcp, &[inbound_of(&other)]))];
    web.apply(calling(
        "web",
        vec![upstream("api", Protocol::Tcp)],
        clusters,
    ))
    .await
    .unwrap();
    let (_, end) = read_after(upstream_of(&web, "api"), b"secret").await;
    assert!(end.is_err(), "the caller sees an error");
    assert_eq!(
        metric(&web, "mesh_upstream_connect_failures_total", &["identity"]),
        1
    );
    assert_eq!(metric(&other, "mesh_connections_total", &[]), 0);
}

#[tokio::test]
async fn a_caller_of_another_ca_or_for_another_service_is_refused() {
    let pair = Pair::new(Protocol::Tcp, echo().await).await;
    let stranger = Ca::new();
    let tls = std::sync::Arc::new(
        mesh_tls::MeshTls::new(stranger.leaf("web"), pair.ca.trust(&[])).unwrap(),
    );
    let web = mesh_proxy::DataPlane::new(tls, options());
    web.apply(pair.web_config.clone()).await.unwrap();
    assert!(read_after(upstream_of(&web, "api"), b"").await.1.is_err());
    until("the handshake is counted", || {
        metric(
            &pair.api,
            "mesh_tls_handshake_failures_total",
            &["unknown_issuer"],
        ) >= 1
    })
    .await;

    let mut config = pair.web_config.clone();
    config.clusters.get_mut("api").unwrap().sni = format!("other.default.dc1.internal.{DOMAIN}");
    let web = pair.ca.plane("web");
    web.apply(config).await.unwrap();
    assert!(read_after(upstream_of(&web, "api"), b"").await.1.is_err());
    assert!(
        metric(
            &pair.api,
            "mesh_tls_handshake_failures_total",
            &["other_service"]
        ) >= 1
    );
}

#[tokio::test]
async fn a_broken_stream_is_no_end() {
    // The application sends half of what it should and breaks.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let application = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"half").await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        socket2::SockRef::from(&socket)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
    });
    let pair = Pair::new(Protocol::Tcp, application).await;
    let mut socket = TcpStream::connect(pair.address).await.unwrap();
    let mut got = Vec::new();
    let ended = in_time(socket.read_to_end(&mut got)).await;
    assert!(ended.is_err(), "{ended:?} after {got:?}");
}
