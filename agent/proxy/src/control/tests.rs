#![allow(clippy::unwrap_used)]
use std::net::SocketAddr;

use mesh_dns::{INTERNET, Name, kind};
use mesh_tls::LeafKey;
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    SubjectPublicKeyInfo,
};
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::*;
use crate::BoundTo;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

const IDENTITY: &str = "spiffe://test.mesh/ns/default/dc/dc1/svc/web";

/// A control side with its data plane, and what it wishes.
struct Side {
    events: mpsc::Sender<Event>,
    wished: mpsc::UnboundedReceiver<Wish>,
    plane: tokio::sync::watch::Receiver<Option<Arc<DataPlane>>>,
    serial: u64,
    /// What it trusts.
    roots: wire::Roots,
    keys: Arc<Keys>,
}

impl Side {
    /// Connected, with a leaf, roots, and nobody revoked.
    async fn new() -> Self {
        let side = Self::before_revocations().await;
        let nobody = Event::Revocations(list(1, "{}"));
        side.events.send(nobody).await.unwrap();
        side
    }

    /// Connected, with a leaf and roots.
    async fn before_revocations() -> Self {
        let (wishes, wished) = mpsc::unbounded_channel();
        let (asks, asked) = mpsc::unbounded_channel();
        let (plane, planes) = tokio::sync::watch::channel(None);
        let key = LeafKey::generate().unwrap();
        let (leaf, roots) = certificates(&key);
        let keys = Arc::new(Keys::new(key));
        let control = Control {
            proxy: "web-proxy".to_owned(),
            keys: keys.clone(),
            options: Options {
                asks: Some(asks),
                ..Options::default()
            },
            status: Status::default(),
            wishes,
            plane,
            chain: Arc::default(),
        };
        let (events, incoming) = mpsc::channel(16);
        tokio::spawn(control.run(incoming, asked));
        let events_of_start = [
            Event::Connected,
            Event::Leaf(leaf),
            Event::Roots(roots.clone()),
        ];
        for event in events_of_start {
            events.send(event).await.unwrap();
        }
        Self {
            events,
            wished,
            plane: planes,
            serial: 0,
            roots,
            keys,
        }
    }

    /// The next wish that is no leaf and no ack of one or of roots.
    async fn wish(&mut self) -> Wish {
        loop {
            let wish = timeout(LONG, self.wished.recv()).await.unwrap().unwrap();
            match &wish {
                Wish::Leaf => {}
                Wish::Ack(ack) if !matches!(ack.what, Some(What::Config(_))) => {}
                _ => return wish,
            }
        }
    }

    /// Gives it a config: why it was not taken, or nothing.
    async fn config(&mut self, version: Option<(&str, u64)>, changes: Value) -> String {
        self.serial += 1;
        let mut config = json!({
            "proxy": "web-proxy",
            "service": {"name": "web"},
            "identity": IDENTITY,
            "trust_domain": "test.mesh",
            "policy": {"default": "deny"},
        });
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        let config = wire::Config {
            serial: self.serial,
            version: version.map(|(epoch, index)| {
                let epoch = epoch.to_owned();
                Version { epoch, index }.into()
            }),
            config: serde_json::to_vec(&config).unwrap(),
            needs: Vec::new(),
        };
        self.events.send(Event::Config(config)).await.unwrap();
        match self.wish().await {
            Wish::Ack(ack) => {
                assert_eq!(ack.what, Some(What::Config(self.serial)));
                ack.error
            }
            other => panic!("{other:?}"),
        }
    }

    fn dns(&self) -> SocketAddr {
        let bound = self.plane.borrow().as_ref().unwrap().bound();
        let dns = bound.iter().find(|one| one.to == BoundTo::Dns);
        dns.unwrap().tcp().unwrap()
    }
}

fn list(serial: u64, list: &str) -> wire::Revocations {
    let list = list.as_bytes().to_vec();
    wire::Revocations { serial, list }
}

/// A leaf for a key, and the root that signed it.
fn certificates(key: &LeafKey) -> (wire::Leaf, wire::Roots) {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let signer = KeyPair::generate().unwrap();
    let certificate = root.self_signed(&signer).unwrap().der().to_vec();
    let mut leaf = CertificateParams::default();
    let now = SystemTime::now();
    leaf.not_before = (now - Duration::from_secs(60)).into();
    leaf.not_after = (now + Duration::from_secs(3600)).into();
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.subject_alt_names = vec![SanType::URI(IDENTITY.try_into().unwrap())];
    let public = SubjectPublicKeyInfo::from_der(&key.public_key()).unwrap();
    let signed = leaf.signed_by(&public, &Issuer::new(root, signer)).unwrap();
    let leaf = wire::Leaf {
        chain: vec![signed.der().to_vec()],
        error: String::new(),
    };
    let roots = wire::Roots {
        trust_domain: "test.mesh".to_owned(),
        roots: vec![certificate],
        serial: 1,
        ..wire::Roots::default()
    };
    (leaf, roots)
}

fn ask(name: &str) -> Vec<u8> {
    let mut message = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(Name::from_labels(name.split('.')).unwrap().wire());
    message.extend_from_slice(&kind::A.to_be_bytes());
    message.extend_from_slice(&INTERNET.to_be_bytes());
    message
}

/// How an answer over UDP went.
async fn answered(socket: &UdpSocket) -> u8 {
    let mut buffer = [0; 512];
    timeout(LONG, socket.recv(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    buffer[3] & 0xf
}

#[tokio::test]
async fn a_config_that_is_older_is_not_taken() {
    let mut side = Side::new().await;
    assert_eq!(side.config(Some(("one", 5)), json!({})).await, "");
    for older in [Some(("one", 4)), None] {
        let error = side
            .config(older, json!({"policy": {"default": "allow"}}))
            .await;
        assert!(error.contains("and one:5 runs"), "{error}");
    }
    // The agent answers wants from the same state.
    assert_eq!(side.config(Some(("one", 5)), json!({})).await, "");
    // One that cannot be run is not what runs.
    let refused = side.config(Some(("one", 9)), json!({"nonsense": 1})).await;
    assert!(refused.contains("nonsense"), "{refused}");
    assert_eq!(side.config(Some(("one", 6)), json!({})).await, "");
    // A restored mesh begins anew.
    assert_eq!(side.config(Some(("two", 1)), json!({})).await, "");
}

/// The next ack of a leaf: of which root it is.
async fn acked_leaf(side: &mut Side) -> Vec<u8> {
    loop {
        let wish = timeout(LONG, side.wished.recv()).await.unwrap().unwrap();
        if let Wish::Ack(ack) = wish
            && matches!(ack.what, Some(What::LeafNotAfter(_)))
        {
            return ack.leaf_root;
        }
    }
}

#[tokio::test]
async fn a_leaf_of_another_root_than_the_one_that_signs_is_replaced_early() {
    let mut side = Side::new().await;
    let own = mesh_tls::fingerprint(&side.roots.roots[0]);
    // Before there were roots it could not say.
    assert!(acked_leaf(&mut side).await.is_empty());
    assert_eq!(acked_leaf(&mut side).await, own);
    let (_, other) = certificates(&LeafKey::generate().unwrap());
    let mut roots = side.roots.clone();
    roots.roots.extend(other.roots.clone());
    // The new one is there and does not sign: nothing is asked for. Then it does.
    for (active, wishes) in [
        (own.clone(), 0),
        (mesh_tls::fingerprint(&other.roots[0]), 1),
    ] {
        roots.serial += 1;
        roots.active = active;
        roots.reissue_seconds = 1;
        side.events.send(Event::Roots(roots.clone())).await.unwrap();
        assert_eq!(acked_leaf(&mut side).await, own);
        let asked = timeout(Duration::from_secs(3), async {
            while !matches!(side.wished.recv().await.unwrap(), Wish::Leaf) {}
        });
        assert_eq!(usize::from(asked.await.is_ok()), wishes);
    }
}

/// A root of a name, and what signs with it.
fn root(name: &str) -> (Vec<u8>, CertificateParams, KeyPair) {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let der = params.self_signed(&key).unwrap().der().to_vec();
    (der, params, key)
}

#[tokio::test]
async fn a_leaf_hangs_on_the_root_that_signed_it_and_not_on_one_that_certifies_that() {
    let mut side = Side::new().await;
    while acked_leaf(&mut side).await.is_empty() {}
    let (first, second, third) = (root("first"), root("second"), root("third"));
    let certified =
        |one: &CertificateParams, key: &KeyPair, by: CertificateParams, its: KeyPair| {
            let by = Issuer::new(by, its);
            one.signed_by(key, &by).unwrap().der().to_vec()
        };
    let id = |der: &Vec<u8>| mesh_tls::fingerprint(der);
    let all = [&first.0, &second.0, &third.0].map(Clone::clone);
    let by_first = certified(&second.1, &second.2, first.1, first.2);
    // The second root's leaf leads to the first as well, by the end of its chain.
    let mut params = CertificateParams::default();
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(60)).into();
    params.not_after = (now + Duration::from_secs(3600)).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.subject_alt_names = vec![SanType::URI(IDENTITY.try_into().unwrap())];
    let public = SubjectPublicKeyInfo::from_der(&side.keys.wanted().public_key()).unwrap();
    let signer = Issuer::new(second.1, second.2);
    let signed = params.signed_by(&public, &signer).unwrap();
    let mut roots = wire::Roots {
        roots: all.to_vec(),
        active: id(&all[1]),
        reissue_seconds: 1,
        ..side.roots.clone()
    };
    for (active, wishes) in [(&all[1], false), (&all[2], true)] {
        roots.serial += 1;
        roots.active = id(active);
        side.events.send(Event::Roots(roots.clone())).await.unwrap();
        acked_leaf(&mut side).await;
        if !wishes {
            let leaf = wire::Leaf {
                chain: vec![signed.der().to_vec(), by_first.clone()],
                error: String::new(),
            };
            side.events.send(Event::Leaf(leaf)).await.unwrap();
            assert_eq!(acked_leaf(&mut side).await, id(&all[1]));
            continue;
        }
        // Also when neither of the two signs any more, and the first is first in the list.
        let asked = timeout(LONG, async {
            while !matches!(side.wished.recv().await.unwrap(), Wish::Leaf) {}
        });
        asked.await.unwrap();
    }
    side.events.send(Event::Connected).await.unwrap();
    assert_eq!(acked_leaf(&mut side).await, id(&all[1]));
}

#[tokio::test(start_paused = true)]
async fn a_leaf_is_asked_for_at_half_of_its_life_and_then_by_a_back_off() {
    let mut side = Side::new().await;
    // For the first; of it an hour is left.
    assert!(matches!(side.wished.recv().await, Some(Wish::Leaf)));
    let began = Instant::now();
    let mut asked = Vec::new();
    while asked.len() < 9 {
        if let Some(Wish::Leaf) = side.wished.recv().await {
            asked.push(began.elapsed().as_secs_f64());
            let error = "the servers have no leader".to_owned();
            let none = wire::Leaf {
                chain: Vec::new(),
                error,
            };
            side.events.send(Event::Leaf(none)).await.unwrap();
        }
    }
    assert!((1615.0..1985.0).contains(&asked[0]), "{asked:?}");
    let waits: Vec<f64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (wait, most) in waits
        .iter()
        .zip([2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0])
    {
        assert!((most / 2.0 - 0.1..=most + 0.1).contains(wait), "{waits:?}");
    }
    // The last third of its life begins, which is told and holds nothing up.
    while began.elapsed() < Duration::from_secs(2500) {
        side.wished.recv().await.unwrap();
        let none = wire::Leaf {
            chain: Vec::new(),
            error: "the servers have no leader".to_owned(),
        };
        side.events.send(Event::Leaf(none)).await.unwrap();
    }
    // Without an agent there is nobody to ask, and who comes is asked at once.
    let gone = Event::Disconnected("away".to_owned());
    side.events.send(gone).await.unwrap();
    side.events.send(Event::Connected).await.unwrap();
    let before = Instant::now();
    while !matches!(side.wished.recv().await, Some(Wish::Leaf)) {}
    assert!(before.elapsed() < Duration::from_secs(1));
}

#[test]
fn what_is_older() {
    let version = |epoch: &str, index| Version {
        epoch: epoch.to_owned(),
        index,
    };
    let none = Version::default();
    assert_eq!(older(&none, &none), None);
    assert_eq!(older(&version("a", 0), &none), None);
    assert!(older(&none, &version("a", 0)).is_some());
    assert!(older(&version("a", 1), &version("a", 2)).is_some());
    assert_eq!(older(&version("a", 2), &version("a", 2)), None);
    assert_eq!(older(&version("b", 1), &version("a", 2)), None);
}

#[tokio::test]
async fn wants_and_questions_go_to_the_agent() {
    let mut side = Side::new().await;
    let transparent = json!({"transparent": {"outbound_port": 0, "dns_port": 0}});
    assert_eq!(side.config(None, transparent).await, "");
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(side.dns()).await.unwrap();

    // A name is a want, and again when the agent was away.
    socket.send(&ask("api.virtual.consul")).await.unwrap();
    let said = wire::Wants {
        wants: vec![wire::Want {
            what: Some(wire::want::What::Service("default/api".to_owned())),
        }],
    };
    for _ in 0..2 {
        match side.wish().await {
            Wish::Wants(wants) => assert_eq!(wants, said),
            other => panic!("{other:?}"),
        }
        for event in [Event::Disconnected("away".to_owned()), Event::Connected] {
            side.events.send(event).await.unwrap();
        }
    }
    assert_eq!(answered(&socket).await, 2);
    assert!(matches!(side.wish().await, Wish::Wants(_)));

    // Another name is a question; its answer comes, or the agent goes.
    for (goes, rcode) in [(false, 3), (true, 2)] {
        socket.send(&ask("www.example")).await.unwrap();
        let Wish::Dns(question) = side.wish().await else {
            panic!("it was not passed on");
        };
        let mut message = question.message.clone();
        message[2] |= 0x80;
        message[3] = 3;
        let id = question.id;
        let answer = wire::DnsAnswer {
            id,
            message,
            error: String::new(),
        };
        let event = match goes {
            true => Event::Disconnected("away".to_owned()),
            false => Event::Dns(answer),
        };
        side.events.send(event).await.unwrap();
        assert_eq!(answered(&socket).await, rcode);
    }
    // Nothing is kept for an agent that is away.
    socket.send(&ask("www.example")).await.unwrap();
    assert_eq!(answered(&socket).await, 2);
    assert!(side.wished.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_does_not_listen_holds_up_nothing() {
    let (wishes, mut wished) = mpsc::unbounded_channel();
    let control = Control {
        proxy: "web-proxy".to_owned(),
        keys: Arc::new(Keys::new(LeafKey::generate().unwrap())),
        options: Options::default(),
        status: Status::default(),
        wishes,
        plane: tokio::sync::watch::Sender::new(None),
        chain: Arc::default(),
    };
    let (events, incoming) = mpsc::channel(1);
    let running = tokio::spawn(control.run(incoming, mpsc::unbounded_channel().1));
    events.send(Event::Connected).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    for _ in 0..40 {
        let gone = events.send(Event::Disconnected("away".to_owned()));
        tokio::time::timeout(LONG, gone).await.unwrap().unwrap();
    }
    // Of nobody nothing is wished for, and of who comes back at once.
    while wished.try_recv().is_ok() {}
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(wished.try_recv().is_err());
    events.send(Event::Connected).await.unwrap();
    let wish = tokio::time::timeout(Duration::from_millis(1), wished.recv());
    assert!(matches!(wish.await, Ok(Some(Wish::Leaf))));
    drop(events);
    assert!(running.await.unwrap().is_ok());
}

/// The next wish for a leaf: which key it would be for.
async fn wish_for_leaf(side: &mut Side) -> Vec<u8> {
    loop {
        if let Wish::Leaf = timeout(LONG, side.wished.recv()).await.unwrap().unwrap() {
            return side.keys.wanted().public_key();
        }
    }
}

#[tokio::test]
async fn a_revoked_leaf_is_replaced_by_one_of_another_key() {
    let mut side = Side::new().await;
    assert_eq!(side.config(None, json!({})).await, "");
    let before = side.keys.in_use().public_key();
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let key = hex(&mesh_tls::fingerprint(&before));
    let text = json!({"leaves": [{"serial": "7777", "key": key}]}).to_string();
    side.events
        .send(Event::Revocations(list(2, &text)))
        .await
        .unwrap();
    let wanted = wish_for_leaf(&mut side).await;
    assert_ne!(wanted, before);
    assert_eq!(
        side.keys.in_use().public_key(),
        before,
        "by which it proves itself until then"
    );
    // The same list again makes no third key.
    side.events
        .send(Event::Revocations(list(3, &text)))
        .await
        .unwrap();
    let (leaf, roots) = certificates(&side.keys.wanted());
    side.events.send(Event::Roots(roots)).await.unwrap();
    side.events.send(Event::Leaf(leaf)).await.unwrap();
    timeout(LONG, async {
        while side.keys.in_use().public_key() != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert!(!side.keys.is_renewed());
}

#[tokio::test]
async fn a_list_that_is_not_understood_is_said_and_believes_nobody() {
    let mut side = Side::new().await;
    assert_eq!(side.config(None, json!({})).await, "");
    side.events
        .send(Event::Revocations(list(2, r#"{"nodes":["n1"]}"#)))
        .await
        .unwrap();
    let ack = loop {
        match timeout(LONG, side.wished.recv()).await.unwrap().unwrap() {
            Wish::Ack(ack) if ack.what == Some(What::Revocations(2)) => break ack,
            _ => {}
        }
    };
    assert!(ack.error.contains("upgrade this proxy"), "{}", ack.error);
    assert!(!side.keys.is_renewed(), "it is no word of its own leaf");
}

#[tokio::test]
async fn nothing_runs_before_it_is_known_who_is_revoked() {
    let mut side = Side::before_revocations().await;
    let config = json!({
        "proxy": "web-proxy", "service": {"name": "web"}, "identity": IDENTITY,
        "trust_domain": "test.mesh", "policy": {"default": "deny"},
    });
    let config = wire::Config {
        serial: 1,
        config: serde_json::to_vec(&config).unwrap(),
        ..wire::Config::default()
    };
    side.events.send(Event::Config(config)).await.unwrap();
    side.events
        .send(Event::Revocations(list(1, "{}")))
        .await
        .unwrap();
    // The ack of the list comes first: the config waited for it.
    let mut acks = Vec::new();
    while acks.len() < 2 {
        if let Wish::Ack(ack) = timeout(LONG, side.wished.recv()).await.unwrap().unwrap()
            && let Some(what @ (What::Revocations(_) | What::Config(_))) = ack.what
        {
            acks.push(what);
        }
    }
    assert_eq!(acks, [What::Revocations(1), What::Config(1)]);
}
