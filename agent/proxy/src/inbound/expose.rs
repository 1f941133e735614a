//! Paths that are open without mTLS, for health checks from outside the mesh.
//! Exactly these paths, and nothing else of the application.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{HeaderMap, StatusCode, Version};
use mesh_model::Protocol;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::app::Fresh;
use crate::config::Expose;
use crate::engine::sniff::{Spoken, sniff};
use crate::engine::{ServeLimits, h1::server as h1_server, h2_server};
use crate::http::{
    Answer, BodyError, Call, End, Handler, Side, Trouble, Watcher, clean_application,
    clean_request, clean_response, is_grpc, trouble,
};
use crate::lifecycle::Member;
use crate::listening::Listening;
use crate::net::Socket;
use crate::target;
use crate::worker::Worker;

/// Serves a connection to exposed paths.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    listening: Rc<Listening>,
    socket: Socket,
    member: Member,
) {
    let limits = &worker.shared.options.limits;
    let Ok(Ok((spoken, io))) = tokio::time::timeout(limits.head, sniff(socket)).await else {
        return;
    };
    let serve = ServeLimits {
        streams: 32,
        headers: limits.headers,
        header_bytes: limits.header_bytes,
        head: Some(limits.head),
        strangers: true,
        until: None,
    };
    let handler = Rc::new(Exposed { worker, listening });
    let ended = match spoken {
        Spoken::Http1 => Box::pin(h1_server::serve(io, handler, &serve, member.watch()))
            .await
            .map_err(|error| error.to_string()),
        Spoken::Http2 => Box::pin(h2_server::serve(io, handler, &serve, member.watch()))
            .await
            .map_err(|error| error.to_string()),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection to an exposed path");
    }
}

struct Exposed {
    worker: Rc<Worker>,
    listening: Rc<Listening>,
}

impl Handler for Exposed {
    async fn handle(self: Rc<Self>, mut call: Call) -> Answer {
        let grpc = is_grpc(&call.head.headers);
        let limit = self.worker.shared.options.limits.exposed;
        let timed = Rc::new(Timed::new(Instant::now() + limit));
        call.body.watch(timed.clone(), Side::Request);
        let answered = timeout(limit, self.answer(call)).await;
        let mut answer = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(what)) => trouble(&what, grpc),
            Err(_) => {
                let seconds = limit.as_secs_f32();
                let what = format!("no answer within {seconds} s, the time of exposed paths");
                trouble(&Trouble::timeout(what), grpc)
            }
        };
        answer.body.watch(timed, Side::Response);
        answer
    }
}

/// Ends both bodies of a request when its time is over, since nobody knows who
/// calls.
struct Timed {
    request: Timer,
    response: Timer,
}

/// One for each body: two tasks wait.
type Timer = RefCell<Pin<Box<Sleep>>>;

impl Timed {
    fn new(end: Instant) -> Self {
        let timer = || RefCell::new(Box::pin(sleep_until(end)));
        Self {
            request: timer(),
            response: timer(),
        }
    }
}

impl Watcher for Timed {
    fn data(&self, _: Side, _: usize) {}
    fn trailers(&self, _: Side, _: &HeaderMap) {}
    fn ended(&self, _: Side, _: End<'_>) {}

    fn poll_cut(&self, side: Side, cx: &mut Context<'_>) -> Poll<BodyError> {
        let timer = match side {
            Side::Request => &self.request,
            Side::Response => &self.response,
        };
        let over = timer.borrow_mut().as_mut().poll(cx);
        over.map(|()| BodyError::Cut("cut: the time of exposed paths is over"))
    }
}

impl Exposed {
    async fn answer(&self, mut call: Call) -> Result<Answer, Trouble> {
        let path = target::normal(&call.head)?;
        let config: Option<Rc<Expose>> = self.listening.exposed();
        let not_here = || Trouble::new(StatusCode::NOT_FOUND, "this path is not exposed");
        let config = config.ok_or_else(not_here)?;
        let to = config
            .paths
            .iter()
            .find(|(exposed, _)| exposed == path.path());
        let (_, address) = to.ok_or_else(not_here)?;
        let application = self.worker.application(address, None);
        let head = &mut call.head;
        let authority = target::authority(head)?;
        clean_request(&mut head.headers, head.version);
        call.upgrade = None;
        let limits = &self.worker.shared.options.limits;
        let mut answer = match config.protocol {
            Protocol::Http2 | Protocol::Grpc => {
                let service = mesh_model::Key::of("exposed");
                target::for_http2(head, path, authority, &service);
                head.version = Version::HTTP_2;
                application
                    .send_h2(call, None, limits.handshake, limits)
                    .await?
            }
            Protocol::Http | Protocol::Tcp => {
                target::for_http1(head, path, authority, address);
                let fresh = Fresh::new(limits.handshake, limits);
                let mut sending = application.send_h1(call, fresh);
                poll_fn(|cx| sending.poll(cx)).await?
            }
        };
        clean_response(&mut answer.head.headers);
        clean_application(&mut answer.head.headers);
        Ok(answer)
    }
}
