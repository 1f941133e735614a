//! Serves HTTP/1.1.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::ServeLimits;
use super::local::{TokioIo, TokioTimer};
use crate::http::{Body, BodyError, Call, Handler, OnUpgrade, Tunnel, wants_upgrade};
use crate::lifecycle::{self, Phase};

/// Serves a connection until it ends (or is upgraded).
pub(crate) async fn serve<T, H>(
    io: T,
    handler: Rc<H>,
    limits: &ServeLimits,
    mut phase: watch::Receiver<Phase>,
) -> Result<(), hyper::Error>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let answer: Current = Rc::default();
    let answered = answer.clone();
    let began = Rc::new(Cell::new(false));
    let begins = began.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        begins.set(true);
        let answered = answered.clone();
        let upgrade = wants_upgrade(request.headers(), request.version())
            .then(|| upgrade(hyper::upgrade::on(&mut request)));
        let (head, body) = request.into_parts();
        let answering = handler.clone().handle(Call {
            head,
            body: Body::stream(Received(body)),
            upgrade,
        });
        async move {
            let answer = answering.await;
            let body = Sent::new(answer.body, &answered);
            Ok::<_, Infallible>(Response::from_parts(answer.head, body))
        }
    });
    // Without `pipeline_flush`: it keeps back an answer while there is more to
    // read, also the last one.
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_headers(limits.headers)
        .max_header_size(limits.header_bytes)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let far = || Instant::now() + std::time::Duration::from_secs(30 * 86_400);
    let (close_at, cut_at) = limits.until.unwrap_or_else(|| (far(), far()));
    let mut alarm = pin!(sleep_until(close_at));
    let mut closing = false;
    loop {
        tokio::select! {
            biased;
            result = connection.as_mut() => return result,
            // A caller that does not read keeps hyper from asking the body.
            () = poll_fn(|cx| poll_cut(&answer, cx)) => return Ok(()),
            () = next_phase(&mut phase, closing, &began) => {
                if *phase.borrow() == Phase::Ended {
                    return Ok(());
                }
                closing = true;
                connection.as_mut().graceful_shutdown();
            }
            () = alarm.as_mut(), if limits.until.is_some() => {
                if Instant::now() >= cut_at {
                    return Ok(());
                }
                alarm.as_mut().reset(cut_at);
                closing = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Waits until the connection must close, or, when it closes, end.
async fn next_phase(phase: &mut watch::Receiver<Phase>, closing: bool, began: &Cell<bool>) {
    match (closing, began.get()) {
        (true, _) => lifecycle::reaches(phase, Phase::Ended).await,
        (false, true) => lifecycle::reaches(phase, Phase::Draining).await,
        // hyper ends at once what has not been heard of yet.
        (false, false) => lifecycle::drains(phase).await,
    }
}

/// The body of the answer that is being sent.
type Current = Rc<RefCell<Weak<RefCell<Body>>>>;

/// Ready when the answer that is being sent must break off.
fn poll_cut(answer: &Current, cx: &mut Context<'_>) -> Poll<()> {
    let body = answer.borrow().upgrade();
    match body {
        Some(body) => body.borrow_mut().poll_cut(cx).map(|_| ()),
        None => Poll::Pending, // this task is woken when there is one
    }
}

/// The body of an answer, of which the connection's loop knows too.
enum Sent {
    /// Nothing to send, and nothing to cut.
    Empty,
    Shared(Rc<RefCell<Body>>),
}

impl Sent {
    fn new(body: Body, current: &Current) -> Self {
        if body.is_empty() {
            return Self::Empty;
        }
        let body = Rc::new(RefCell::new(body));
        *current.borrow_mut() = Rc::downgrade(&body);
        Self::Shared(body)
    }
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Shared(body) => Pin::new(&mut *body.borrow_mut()).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Shared(body) => body.borrow().is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Shared(body) => body.borrow().size_hint(),
        }
    }
}

pub(super) fn upgrade(upgrade: hyper::upgrade::OnUpgrade) -> OnUpgrade {
    Box::pin(async move {
        let upgraded = upgrade.await.map_err(std::io::Error::other)?;
        Ok(Box::pin(TokioIo::new(upgraded)) as Tunnel)
    })
}

/// hyper's body as ours.
pub(super) struct Received(pub(super) Incoming);

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.0).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(|error| BodyError::Source(error.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
