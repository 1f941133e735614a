#![allow(clippy::unwrap_used)]
use std::pin::Pin;

use mesh_model::Key;
use mesh_proto::proxies::v1::proxies_server::{Proxies, ProxiesServer};
use mesh_proto::proxies::v1::to_proxy::Message as To;
use tokio::net::UnixListener;
use tokio::time::timeout;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::*;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

type Incoming = Streaming<wire::FromProxy>;
type Down = mpsc::Sender<Result<wire::ToProxy, Status>>;

/// An agent that hands each stream to the test.
struct Agent(mpsc::UnboundedSender<(Incoming, Down)>);

#[tonic::async_trait]
impl Proxies for Agent {
    type OpenStream = Pin<Box<dyn Stream<Item = Result<wire::ToProxy, Status>> + Send>>;

    async fn open(&self, request: Request<Incoming>) -> Result<Response<Self::OpenStream>, Status> {
        let (down, outgoing) = mpsc::channel(4);
        let _ = self.0.send((request.into_inner(), down));
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

/// A feed and the agent's end of its stream.
struct Both {
    events: mpsc::Receiver<Event>,
    wishes: mpsc::UnboundedSender<Wish>,
    up: Incoming,
    down: Down,
    _folder: tempfile::TempDir,
}

impl Both {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (streams, mut opened) = mpsc::unbounded_channel();
        let serving = tonic::transport::Server::builder()
            .add_service(ProxiesServer::new(Agent(streams)))
            .serve_with_incoming(UnixListenerStream::new(listener));
        tokio::spawn(serving);
        let (events, came) = mpsc::channel(16);
        let (wishes, outgoing) = mpsc::unbounded_channel();
        let feed = Feed {
            bootstrap: Bootstrap {
                proxy_id: "web-proxy".to_owned(),
                service: Key::of("web"),
                agent: AgentAddress::Unix(path),
                admin: None,
                ready: None,
                ticket: None,
            },
            keys: Arc::new(Keys::new(mesh_tls::LeafKey::generate().unwrap())),
            features: Vec::new(),
            leaf: Box::new(Vec::new),
            events,
            wishes: outgoing,
        };
        tokio::spawn(feed.run());
        let (up, down) = timeout(LONG, opened.recv()).await.unwrap().unwrap();
        let mut both = Self {
            events: came,
            wishes,
            up,
            down,
            _folder: folder,
        };
        both.say(To::Challenge(wire::Challenge::default())).await;
        assert!(matches!(both.said().await, Up::Hello(_)));
        both.say(To::Accepted(wire::Accepted::default())).await;
        assert!(matches!(both.event().await, Event::Connected));
        both
    }

    async fn say(&self, message: To) {
        let message = wire::ToProxy {
            message: Some(message),
        };
        let saying = self.down.send(Ok(message));
        timeout(LONG, saying).await.unwrap().unwrap();
    }

    async fn said(&mut self) -> Up {
        let next = timeout(LONG, self.up.next()).await.unwrap();
        next.unwrap().unwrap().message.unwrap()
    }

    async fn event(&mut self) -> Event {
        timeout(LONG, self.events.recv()).await.unwrap().unwrap()
    }
}

fn question(id: u64, length: usize) -> wire::DnsQuestion {
    wire::DnsQuestion {
        id,
        message: vec![7; length],
    }
}

#[tokio::test]
async fn wants_and_questions_go_up_and_answers_come_down() {
    let mut both = Both::new().await;
    let wants = wire::Wants {
        wants: vec![wire::Want {
            what: Some(wire::want::What::Address("240.0.0.1".to_owned())),
        }],
    };
    both.wishes.send(Wish::Wants(wants.clone())).unwrap();
    both.wishes.send(Wish::Dns(question(3, 40))).unwrap();
    match both.said().await {
        Up::Wants(said) => assert_eq!(said, wants),
        other => panic!("{other:?}"),
    }
    match both.said().await {
        Up::Dns(said) => assert_eq!(said, question(3, 40)),
        other => panic!("{other:?}"),
    }
    let answer = wire::DnsAnswer {
        id: 3,
        ..wire::DnsAnswer::default()
    };
    both.say(To::Dns(answer.clone())).await;
    match both.event().await {
        Event::Dns(came) => assert_eq!(came, answer),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_agent_that_does_not_read_is_read_all_the_same() {
    let mut both = Both::new().await;
    // Far more than the stream has room for.
    for id in 0..200 {
        both.wishes.send(Wish::Dns(question(id, 60_000))).unwrap();
    }
    for serial in 1..100 {
        let roots = wire::Roots {
            serial,
            ..wire::Roots::default()
        };
        both.say(To::Roots(roots)).await;
        match both.event().await {
            Event::Roots(roots) => assert_eq!(roots.serial, serial),
            other => panic!("{other:?}"),
        }
    }
    // Nothing was lost meanwhile.
    for id in 0..200 {
        match both.said().await {
            Up::Dns(said) => assert_eq!(said.id, id),
            other => panic!("{other:?}"),
        }
    }
}
