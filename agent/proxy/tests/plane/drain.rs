//! The end of a proxy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Response;
use mesh_model::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::support::*;

/// Answers when it is let.
async fn held() -> (std::net::SocketAddr, Arc<Semaphore>, Arc<Semaphore>) {
    let (asked, answer) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (ask, let_go) = (asked.clone(), answer.clone());
    let address = application(move |_| {
        let (ask, let_go) = (ask.clone(), let_go.clone());
        async move {
            ask.add_permits(1);
            let _ = let_go.acquire().await.unwrap();
            Response::new(full("done"))
        }
    })
    .await;
    (address, asked, answer)
}

#[tokio::test]
async fn what_runs_is_finished() {
    let (application, asked, answer) = held().await;
    let pair = Pair::new(Protocol::Http, application).await;
    let mut running = Vec::new();
    for mut client in [
        Client::h1(pair.address).await,
        Client::h2(pair.address).await,
    ] {
        running.push(tokio::spawn(async move { client.get("/").await }));
    }
    in_time(asked.acquire_many(2)).await.unwrap().forget();
    let api = pair.api.clone();
    let draining = tokio::spawn(async move { api.drain(LONG).await });
    until("it does not listen any more", || !pair.api.is_listening()).await;
    let inbound = pair.api_config.clone();
    assert!(pair.api.apply(inbound).await.is_err());
    assert!(!draining.is_finished());
    answer.add_permits(10);
    for one in running {
        let got = in_time(one).await.unwrap();
        assert_eq!((got.status, got.text().as_str()), (200, "done"));
    }
    assert!(in_time(draining).await.unwrap().is_clean());
}

#[tokio::test]
async fn what_does_not_end_is_cut_at_the_limit() {
    let (application, asked, _answer) = held().await;
    let pair = Pair::new(Protocol::Http, application).await;
    let mut client = Client::h1(pair.address).await;
    let running = tokio::spawn(async move { client.get("/").await });
    in_time(asked.acquire()).await.unwrap().forget();
    let began = Instant::now();
    let cut = in_time(pair.api.drain(Duration::from_millis(300))).await;
    assert_eq!((cut.requests, cut.streams), (1, 0));
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    let got = in_time(running).await.unwrap();
    assert_eq!(got.status, 502, "{got:?}");
}

#[tokio::test]
async fn the_application_calls_out_until_the_end() {
    let (application, asked, answer) = held().await;
    // The one that drains is called, and calls itself.
    let ca = Ca::new();
    let back = ca.plane("back");
    back.apply(serving("back", Protocol::Http, telling("back").await))
        .await
        .unwrap();
    let api = ca.plane("api");
    let mut config = serving("api", Protocol::Http, application);
    config.outbound = vec![upstream("back", Protocol::Http)];
    config.clusters.insert(
        "back".into(),
        cluster("back", Protocol::Http, &[inbound_of(&back)]),
    );
    api.apply(config).await.unwrap();
    let web = ca.plane("web");
    let clusters = vec![("api", cluster("api", Protocol::Http, &[inbound_of(&api)]))];
    web.apply(calling(
        "web",
        vec![upstream("api", Protocol::Http)],
        clusters,
    ))
    .await
    .unwrap();
    let address = upstream_of(&web, "api");
    let running = tokio::spawn(async move { once(address, "/").await });
    in_time(asked.acquire()).await.unwrap().forget();
    let out = upstream_of(&api, "back");
    let draining = tokio::spawn({
        let api = api.clone();
        async move { api.drain(LONG).await }
    });
    until("it drains", || !api.is_listening()).await;
    assert_eq!(once(out, "/").await.status, 200);
    answer.add_permits(1);
    assert_eq!(in_time(running).await.unwrap().status, 200);
    assert!(in_time(draining).await.unwrap().is_clean());
    assert!(TcpStream::connect(out).await.is_err());
}

#[tokio::test]
async fn byte_streams_end_or_are_cut() {
    let pair = Pair::new(Protocol::Tcp, echo().await).await;
    let mut sockets = Vec::new();
    for _ in 0..2 {
        let mut socket = TcpStream::connect(pair.address).await.unwrap();
        socket.write_all(b"x").await.unwrap();
        in_time(socket.read_exact(&mut [0])).await.unwrap();
        sockets.push(socket);
    }
    let api = pair.api.clone();
    let draining = tokio::spawn(async move { api.drain(Duration::from_millis(500)).await });
    until("it drains", || !pair.api.is_listening()).await;
    let mut ends = sockets.pop().unwrap();
    ends.write_all(b"y").await.unwrap();
    ends.shutdown().await.unwrap();
    let mut got = Vec::new();
    in_time(ends.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"y");
    let cut = in_time(draining).await.unwrap();
    assert_eq!((cut.requests, cut.streams), (0, 1));
    let mut rest = Vec::new();
    assert!(
        in_time(sockets[0].read_to_end(&mut rest)).await.is_err(),
        "a cut is an error"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_are_replaced_under_load() {
    for protocol in [Protocol::Http, Protocol::Tcp] {
        let application = match protocol {
            Protocol::Tcp => echo().await,
            _ => telling("api").await,
        };
        let ca = Ca::new();
        let mut planes = Vec::new();
        for _ in 0..2 {
            let api = ca.plane("api");
            api.apply(serving("api", protocol, application))
                .await
                .unwrap();
            planes.push(api);
        }
        let web = ca.plane("web");
        let config = |planes: &[Arc<mesh_proxy::DataPlane>]| {
            let addresses: Vec<_> = planes.iter().map(|plane| inbound_of(plane)).collect();
            let mut instances = cluster("api", protocol, &addresses);
            for one in &mut instances.endpoints {
                one.id = format!("node/{}", one.port);
            }
            calling(
                "web",
                vec![upstream("api", protocol)],
                vec![("api", instances)],
            )
        };
        web.apply(config(&planes)).await.unwrap();
        let address = upstream_of(&web, "api");
        let load = match protocol {
            Protocol::Tcp => crate::change::Load::start_streams(address),
            _ => crate::change::Load::start(address),
        };
        load.more(50).await;
        for _ in 0..3 {
            // It goes before anybody hears that it does.
            let old = planes.remove(0);
            assert!(in_time(old.drain(LONG)).await.is_clean());
            load.more(30).await;
            let new = ca.plane("api");
            new.apply(serving("api", protocol, application))
                .await
                .unwrap();
            planes.push(new);
            web.apply(config(&planes)).await.unwrap();
            load.more(30).await;
        }
        load.stop().await;
    }
}

#[tokio::test]
async fn who_waits_in_the_kernel_is_served_too() {
    let (application, asked, answer) = held().await;
    let ca = Ca::new();
    let mut options = options();
    // The second one is connected, and not accepted.
    options.limits.connections = 1;
    let api = mesh_proxy::DataPlane::new(ca.tls("api"), options);
    api.apply(serving("api", Protocol::Http, application))
        .await
        .unwrap();
    let ask = |socket: TcpStream, alpn: &'static [u8]| {
        let ca = &ca;
        async move {
            let tls = as_web_over(ca, socket, &[alpn]).await;
            let io = hyper_util::rt::TokioIo::new(tls);
            let executor = hyper_util::rt::TokioExecutor::new();
            let mut client = match alpn {
                b"h2" => {
                    let begun = hyper::client::conn::http2::handshake(executor, io).await;
                    let (sender, connection) = begun.unwrap();
                    tokio::spawn(connection);
                    Client::H2(sender)
                }
                _ => {
                    let begun = hyper::client::conn::http1::handshake(io).await;
                    let (sender, connection) = begun.unwrap();
                    tokio::spawn(connection);
                    Client::H1(sender)
                }
            };
            client.get("/").await.status
        }
    };
    let connect = || async { TcpStream::connect(inbound_of(&api)).await.unwrap() };
    let first = ask(connect().await, b"h2");
    let others = async {
        in_time(asked.acquire()).await.unwrap().forget();
        let others = [connect().await, connect().await];
        let draining = tokio::spawn({
            let api = api.clone();
            async move { api.drain(LONG).await }
        });
        until("it drains", || !api.is_listening()).await;
        answer.add_permits(10);
        let [second, third] = others;
        let answers = tokio::join!(ask(second, b"h2"), ask(third, b"http/1.1"));
        assert_eq!(answers, (200, 200));
        assert!(in_time(draining).await.unwrap().is_clean());
    };
    let (first, ()) = tokio::join!(first, others);
    assert_eq!(first, 200);
}
