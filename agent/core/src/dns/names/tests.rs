//! Against a catalog that a test plays.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mesh_dns::{addresses_in, ask, is_truncated};
use serde_json::{Value, json};

use super::*;

/// What a server says.
pub(in super::super) struct Catalog {
    web: Value,
    is_away: AtomicBool,
    reads: AtomicUsize,
}

impl Catalog {
    /// So many instances of web.
    pub(in super::super) fn of(count: u8) -> Arc<Self> {
        let all = (1..=count).map(|number| instance(number, "alive", "passing", "blue"));
        Self::with(all.collect())
    }

    fn with(web: Vec<Value>) -> Arc<Self> {
        Arc::new(Self {
            web: json!(web),
            is_away: AtomicBool::new(false),
            reads: AtomicUsize::new(0),
        })
    }
}

impl Source for Catalog {
    fn read(&self, target: String) -> Pin<Box<dyn Future<Output = Option<Vec<u8>>> + Send + '_>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let body = match target.as_str() {
            "/v1/catalog/services/default%2Fweb?stale" => self.web.clone(),
            "/v1/services/default%2Fweb?stale" => json!({"name": "web", "virtual":
                {"ip4": "240.1.2.3", "ip6": "fd6d:6573:6876::f001:203"}}),
            other if other.starts_with("/v1/catalog/services/") => json!([]),
            _ => Value::Null,
        };
        let answer = (!self.is_away.load(Ordering::SeqCst)).then(|| body.to_string().into_bytes());
        Box::pin(std::future::ready(answer))
    }
}

fn instance(number: u8, node_state: &str, status: &str, tag: &str) -> Value {
    json!({
        "namespace": "default", "service": "web", "id": format!("web-{number}"), "node": "n",
        "node_name": "host", "node_address": "10.9.9.9", "node_state": node_state,
        "address": format!("10.0.0.{number}"), "port": 8000 + u16::from(number), "tags": [tag],
        "meta": {}, "weights": {"passing": 10, "warning": 1},
        "proxy": {"id": "p", "address": format!("10.1.0.{number}"), "port": 21000},
        "checks": {"alive": {"name": "alive", "status": status},
                   "service:p:1": {"name": "alias", "status": status}}, "status": status,
        "create_index": 1, "modify_index": 1,
    })
}

/// Also the folder that they remember their datacenter in.
pub(in super::super) fn names(catalog: Arc<Catalog>) -> (Names, tempfile::TempDir) {
    let data = tempfile::tempdir().unwrap();
    let membership = Membership::open(data.path(), Some("dc1".into()), false).unwrap();
    (Names::new(catalog, Arc::new(membership)), data)
}

async fn asked(names: &Names, name: &str, kind: u16) -> Option<Vec<u8>> {
    let name = mesh_dns::Name::from_labels(name.split('.')).unwrap();
    let message = ask(&name, kind);
    let question = Question::parse(&message).unwrap();
    let answer = names.answer(&question, 4096).await?;
    assert!(question.is_answered_by(&answer, question.id()));
    Some(answer)
}

/// The addresses of an answer, or the code of the refusal that it is.
async fn found(names: &Names, name: &str) -> Result<BTreeSet<String>, u8> {
    let answer = asked(names, name, kind::A).await.unwrap();
    match answer[3] & 0xf {
        0 => {
            let all = addresses_in(&answer).into_iter();
            Ok(all.map(|ip| ip.to_string()).collect())
        }
        rcode => Err(rcode),
    }
}

fn set(all: &[&str]) -> Result<BTreeSet<String>, u8> {
    Ok(all.iter().map(|one| (*one).to_owned()).collect())
}

#[tokio::test]
async fn names_are_those_of_healthy_instances() {
    let (names, _data) = names(Catalog::with(vec![
        instance(1, "alive", "passing", "blue"),
        instance(2, "alive", "warning", "green"),
        instance(3, "alive", "critical", "blue"),
        instance(4, "silent", "passing", "blue"),
    ]));
    for (name, expected) in [
        ("web.service.consul", set(&["10.0.0.1", "10.0.0.2"])),
        ("web.service.dc1.consul", set(&["10.0.0.1", "10.0.0.2"])),
        ("BLUE.web.service.consul", set(&["10.0.0.1"])),
        ("_web._green.service.consul", set(&["10.0.0.2"])),
        ("_web._tcp.service.consul", set(&["10.0.0.1", "10.0.0.2"])),
        ("web.connect.consul", set(&["10.1.0.1", "10.1.0.2"])),
        ("web.virtual.consul", set(&["240.1.2.3"])),
        ("0a000005.addr.dc1.consul", set(&["10.0.0.5"])),
        ("service.consul", set(&[])),
        // Not there.
        ("red.web.service.consul", Err(3)),
        ("db.service.consul", Err(3)),
        ("db.virtual.consul", Err(3)),
        ("web.service.dc2.consul", Err(3)),
        ("web.consul", Err(3)),
    ] {
        assert_eq!(found(&names, name).await, expected, "{name}");
    }
    for name in ["web", "example.org"] {
        assert_eq!(asked(&names, name, kind::A).await, None, "{name}");
    }
    // Where they are, with their ports and weights.
    let answer = asked(&names, "green.web.service.consul", kind::SRV).await;
    let answer = answer.unwrap();
    assert_eq!((answer[7], answer[3] & 0xf), (1, 0));
    let data = [&[0, 1, 0, 1, 0x1f, 0x42, 8][..], b"0a000002"].concat();
    assert!(
        answer.windows(data.len()).any(|part| part == data),
        "priority, weight, port, target"
    );
    assert_eq!(
        addresses_in(&answer),
        Vec::<IpAddr>::new(),
        "its address stands behind"
    );
    assert!(answer.ends_with(&Ipv4Addr::new(10, 0, 0, 2).octets()));
    assert!(!is_truncated(&answer));
    // There are no such records.
    let none = asked(&names, "web.service.consul", kind::AAAA)
        .await
        .unwrap();
    assert_eq!((none[3] & 0xf, none[7]), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn many_questions_are_one_read_and_the_last_word_stays() {
    let catalog = Catalog::of(2);
    let (names, _data) = names(catalog.clone());
    let both = set(&["10.0.0.1", "10.0.0.2"]);
    for _ in 0..5 {
        assert_eq!(found(&names, "web.service.consul").await, both);
    }
    assert_eq!(catalog.reads.load(Ordering::SeqCst), 1);
    tokio::time::advance(FRESH).await;
    assert_eq!(found(&names, "web.service.consul").await, both);
    assert_eq!(catalog.reads.load(Ordering::SeqCst), 2);

    catalog.is_away.store(true, Ordering::SeqCst);
    tokio::time::advance(FRESH * 100).await;
    assert_eq!(found(&names, "web.service.consul").await, both);
    // What was never known is not said to be absent.
    assert_eq!(found(&names, "db.service.consul").await, Err(2));
}
