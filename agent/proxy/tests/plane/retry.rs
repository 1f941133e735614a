//! Retries, weights, and instances that are avoided.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use hyper::Response;
use mesh_model::{LoadBalancer, Protocol};
use mesh_proxy::DataPlane;
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::*;

/// Fails so many times, then says how often it was asked.
async fn flaky(failures: usize, status: u16) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let address = application(move |request| {
        let asked = count.fetch_add(1, SeqCst);
        async move {
            let body = http_body_util::BodyExt::collect(request.into_body())
                .await
                .unwrap()
                .to_bytes();
            match asked < failures {
                true => Response::builder().status(status).body(full("no")).unwrap(),
                false => Response::new(full(body)),
            }
        }
    })
    .await;
    (address, asked)
}

fn with_retries(retries: serde_json::Value) -> impl FnOnce(&mut mesh_proto::config::ProxyConfig) {
    move |config| {
        config.outbound[0].rules = vec![rule(json!({
            "to": [{ "cluster": "api", "weight": 1 }], "retries": retries,
        }))];
    }
}

#[tokio::test]
async fn failures_are_tried_again_with_their_body() {
    let (application, asked) = flaky(2, 503).await;
    let retries = json!({ "attempts": 3, "on": ["5xx"] });
    let pair = Pair::with(
        Protocol::Http,
        application,
        options(),
        with_retries(retries),
    )
    .await;
    let mut client = Client::h1(pair.address).await;
    let got = read(client.send(request("POST", "/", "the body")).await).await;
    assert_eq!((got.status, got.text().as_str()), (200, "the body"));
    assert_eq!(asked.load(SeqCst), 3);
    assert_eq!(metric(&pair.web, "mesh_retries_total", &["api"]), 2);
}

#[tokio::test]
async fn no_more_than_was_said_and_only_for_what_was_said() {
    let (application, asked) = flaky(100, 503).await;
    let retries = json!({ "attempts": 2, "status_codes": [503] });
    let pair = Pair::with(
        Protocol::Http,
        application,
        options(),
        with_retries(retries),
    )
    .await;
    assert_eq!(once(pair.address, "/").await.status, 503);
    assert_eq!(asked.load(SeqCst), 3);
    let (application, asked) = flaky(100, 500).await;
    let retries = json!({ "attempts": 2, "on": ["gateway-error"] });
    let pair = Pair::with(
        Protocol::Http,
        application,
        options(),
        with_retries(retries),
    )
    .await;
    assert_eq!(once(pair.address, "/").await.status, 500);
    assert_eq!(asked.load(SeqCst), 1);
}

#[tokio::test]
async fn a_body_that_was_not_kept_is_not_sent_again() {
    let (application, asked) = flaky(1, 503).await;
    let retries = json!({ "attempts": 3, "on": ["5xx"] });
    let pair = Pair::with(
        Protocol::Http,
        application,
        options(),
        with_retries(retries),
    )
    .await;
    let mut request = request("POST", "/", "");
    *request.body_mut() = full(vec![7; 100_000]);
    let got = read(Client::h1(pair.address).await.send(request).await).await;
    assert_eq!((got.status, asked.load(SeqCst)), (503, 1));
}

#[tokio::test]
async fn a_try_has_its_own_time() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let application = application(move |_| {
        let first = count.fetch_add(1, SeqCst) == 0;
        async move {
            if first {
                std::future::pending::<()>().await;
            }
            Response::new(full("second"))
        }
    })
    .await;
    let retries = json!({ "attempts": 1, "per_try_timeout": "100ms", "on": ["5xx"] });
    let pair = Pair::with(
        Protocol::Http,
        application,
        options(),
        with_retries(retries),
    )
    .await;
    assert_eq!(once(pair.address, "/").await.text(), "second");
    assert_eq!(asked.load(SeqCst), 2);
}

#[tokio::test]
async fn grpc_statuses_are_tried_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let application = application(move |_| {
        let status = if count.fetch_add(1, SeqCst) == 0 {
            "14"
        } else {
            "0"
        };
        async move {
            let answer = Response::builder().header("grpc-status", status);
            answer
                .header("content-type", "application/grpc")
                .body(full(""))
                .unwrap()
        }
    })
    .await;
    let retries = json!({ "attempts": 1, "on": ["unavailable"] });
    let pair = Pair::with(
        Protocol::Grpc,
        application,
        options(),
        with_retries(retries),
    )
    .await;
    let request = crate::grpc::grpc("/x", full("a"));
    let got = read(Client::h2(pair.address).await.send(request).await).await;
    assert_eq!((got.header("grpc-status"), asked.load(SeqCst)), ("0", 2));
}

/// Instances of `api`, each with its own application that tells its name.
async fn instances(
    ca: &Ca,
    names: &[&'static str],
) -> (Vec<Arc<DataPlane>>, Vec<std::net::SocketAddr>) {
    let mut planes = Vec::new();
    for name in names {
        let plane = ca.plane("api");
        plane
            .apply(serving("api", Protocol::Http, telling(name).await))
            .await
            .unwrap();
        planes.push(plane);
    }
    let addresses = planes.iter().map(|plane| inbound_of(plane)).collect();
    (planes, addresses)
}

#[tokio::test]
async fn a_retry_goes_to_another_instance() {
    let ca = Ca::new();
    let (bad, good) = (ca.plane("api"), ca.plane("api"));
    let (failing, asked) = flaky(1000, 500).await;
    bad.apply(serving("api", Protocol::Http, failing))
        .await
        .unwrap();
    good.apply(serving("api", Protocol::Http, telling("good").await))
        .await
        .unwrap();
    let web = ca.plane("web");
    let instances = [inbound_of(&bad), inbound_of(&good)];
    let mut config = calling(
        "web",
        vec![upstream("api", Protocol::Http)],
        vec![("api", cluster("api", Protocol::Http, &instances))],
    );
    with_retries(json!({ "attempts": 1, "on": ["5xx"] }))(&mut config);
    web.apply(config).await.unwrap();
    let mut client = Client::h1(upstream_of(&web, "api")).await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert!(
        (5..=10).contains(&asked.load(SeqCst)),
        "each request asks it once at most"
    );
}

#[tokio::test]
async fn weights_and_rules() {
    let ca = Ca::new();
    let (_planes, addresses) = instances(&ca, &["v1", "v2"]).await;
    let web = ca.plane("web");
    let clusters = vec![
        ("api", cluster("api", Protocol::Http, &addresses)),
        ("v1.api", cluster("api", Protocol::Http, &addresses[..1])),
        ("v2.api", cluster("api", Protocol::Http, &addresses[1..])),
    ];
    let mut out = upstream("api", Protocol::Http);
    out.rules = vec![
        rule(
            json!({ "name": "beta", "match": [{ "headers": [{ "name": "x-beta", "exact": "1" }] }],
            "to": [{ "cluster": "v2.api", "weight": 100 }] }),
        ),
        rule(
            json!({ "name": "canary", "match": [{ "path_prefix": "/v1/" }],
            "to": [{ "cluster": "v1.api", "weight": 9000 }, { "cluster": "v2.api", "weight": 1000 }] }),
        ),
    ];
    web.apply(calling("web", vec![out], clusters))
        .await
        .unwrap();
    let mut client = Client::h1(upstream_of(&web, "api")).await;
    let mut seen = BTreeMap::<String, usize>::new();
    for _ in 0..500 {
        let got = client.get("/v1/x").await.json();
        *seen
            .entry(got["name"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    assert!((35..=65).contains(&seen["v2"]), "{seen:?}");
    let mut beta = get("/v1/x");
    beta.headers_mut().insert("x-beta", "1".parse().unwrap());
    assert_eq!(read(client.send(beta).await).await.json()["name"], "v2");
    // What no rule matches goes to all, in turn.
    let (a, b) = (
        client.get("/other").await.json(),
        client.get("/other").await.json(),
    );
    assert_ne!(a["name"], b["name"]);
}

#[tokio::test]
async fn an_instance_that_does_not_take_connections_in_time_is_avoided() {
    let ca = Ca::new();
    let (_planes, mut addresses) = instances(&ca, &["good"]).await;
    // The kernel takes connections, and nobody says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    addresses.push(silent.local_addr().unwrap());
    let web = ca.plane("web");
    let clusters = vec![("api", cluster("api", Protocol::Http, &addresses))];
    let mut out = upstream("api", Protocol::Http);
    // Over before the time for connecting is.
    out.timeout = "300ms".parse().unwrap();
    web.apply(calling("web", vec![out], clusters))
        .await
        .unwrap();
    let mut client = Client::h1(upstream_of(&web, "api")).await;
    let mut failed = 0;
    for _ in 0..20 {
        failed += usize::from(client.get("/").await.status != 200);
    }
    assert!((1..=2).contains(&failed), "{failed}");
    let reason = ["reason=\"timeout\""];
    let counted = metric(&web, "mesh_upstream_connect_failures_total", &reason);
    assert_eq!(counted, failed as u64);
}

#[tokio::test]
async fn an_instance_that_had_no_time_left_is_not_to_blame() {
    let ca = Ca::new();
    let api = ca.plane("api");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let hanging = application(move |_| {
        count.fetch_add(1, SeqCst);
        std::future::pending()
    });
    let config = serving("api", Protocol::Http, hanging.await);
    api.apply(config).await.unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut instances = [inbound_of(&api), silent.local_addr().unwrap()];
    // Either is the first: one try is all but the whole of the time, and the
    // other instance gets what is left.
    let mut failures = Vec::new();
    for turn in 1..=2 {
        let web = ca.plane("web");
        let mut config = calling(
            "web",
            vec![upstream("api", Protocol::Http)],
            vec![("api", cluster("api", Protocol::Http, &instances))],
        );
        let retries = json!({ "attempts": 1, "per_try_timeout": "1500ms", "on": ["5xx"] });
        with_retries(retries)(&mut config);
        config.outbound[0].rules[0].timeout = "1800ms".parse().unwrap();
        web.apply(config).await.unwrap();
        let got = once(upstream_of(&web, "api"), "/").await;
        assert_eq!((got.status, asked.load(SeqCst)), (504, turn), "{got:?}");
        let metric = |name| metric(&web, name, &["api"]);
        assert_eq!(metric("mesh_retries_total"), 1);
        failures.push(metric("mesh_upstream_connect_failures_total"));
        instances.reverse();
    }
    failures.sort_unstable();
    // Of the silent one, when it had the time.
    assert_eq!(failures, [0, 1]);
}

#[tokio::test]
async fn balancers_choose_as_they_say() {
    for balancer in [
        LoadBalancer::RoundRobin,
        LoadBalancer::LeastRequest,
        LoadBalancer::Random,
    ] {
        let ca = Ca::new();
        let mut planes = Vec::new();
        for name in ["a", "b"] {
            let application = application(move |request| async move {
                if request.uri().path() == "/hang" {
                    std::future::pending::<()>().await;
                }
                Response::new(full(name))
            });
            let plane = ca.plane("api");
            let config = serving("api", Protocol::Http, application.await);
            plane.apply(config).await.unwrap();
            planes.push(plane);
        }
        let addresses: Vec<_> = planes.iter().map(|plane| inbound_of(plane)).collect();
        let web = ca.plane("web");
        let mut both = cluster("api", Protocol::Http, &addresses);
        both.load_balancer = balancer;
        let upstreams = vec![upstream("api", Protocol::Http)];
        web.apply(calling("web", upstreams, vec![("api", both)]))
            .await
            .unwrap();
        let address = upstream_of(&web, "api");
        let busy = |plane: &Arc<DataPlane>| metric(plane, "mesh_connections_active", &["inbound"]);
        let hanging = tokio::spawn(async move { once(address, "/hang").await });
        until("it hangs somewhere", || {
            planes.iter().any(|it| busy(it) > 0)
        })
        .await;
        let mut client = Client::h1(address).await;
        let mut answers = String::new();
        for _ in 0..40 {
            answers += &client.get("/").await.text();
        }
        let in_a_row = answers.contains("aa") || answers.contains("bb");
        let both = answers.contains('a') && answers.contains('b');
        let expected = match balancer {
            LoadBalancer::RoundRobin => (false, true),
            LoadBalancer::LeastRequest => (true, false),
            LoadBalancer::Random => (true, true),
        };
        assert_eq!((in_a_row, both), expected, "{balancer:?}: {answers}");
        hanging.abort();
    }
}

#[tokio::test]
async fn a_connection_is_for_one_identity() {
    let pair = Pair::new(Protocol::Http, telling("api").await).await;
    assert_eq!(once(pair.address, "/").await.status, 200);
    // Another service that is said to be at the same address.
    let mut config = pair.web_config.clone();
    config.outbound.push(upstream("other", Protocol::Http));
    let other = cluster("other", Protocol::Http, &[inbound_of(&pair.api)]);
    config.clusters.insert("other".into(), other);
    pair.web.apply(config).await.unwrap();
    let got = once(upstream_of(&pair.web, "other"), "/").await;
    assert_eq!(got.status, 503);
    let what = got.header("x-mesh-error");
    assert!(what.contains("somebody else answers"), "{what}");
    assert_eq!(once(pair.address, "/").await.status, 200);
}

#[tokio::test]
async fn refusals_and_resets_of_instances_are_not_the_callers_problem() {
    let ca = Ca::new();
    let (_planes, mut addresses) = instances(&ca, &["a"]).await;
    // One refuses connections, and one takes them and says nothing of TLS.
    addresses.push(nobody().await);
    let rude = TcpListener::bind("127.0.0.1:0").await.unwrap();
    addresses.push(rude.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            drop(rude.accept().await);
        }
    });
    let web = ca.plane("web");
    let clusters = vec![("api", cluster("api", Protocol::Http, &addresses))];
    web.apply(calling(
        "web",
        vec![upstream("api", Protocol::Http)],
        clusters,
    ))
    .await
    .unwrap();
    let mut client = Client::h1(upstream_of(&web, "api")).await;
    for _ in 0..30 {
        let mut request = request("POST", "/", "x");
        request.headers_mut().insert("x", "y".parse().unwrap());
        let got = read(client.send(request).await).await;
        assert_eq!(got.status, 200, "{got:?}");
    }
    let failures = metric(&web, "mesh_upstream_connect_failures_total", &[]);
    assert!((2..=4).contains(&failures), "they are avoided: {failures}");
}
