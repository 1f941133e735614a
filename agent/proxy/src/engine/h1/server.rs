//! Serves HTTP/1.1.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING};
use http::{Method, StatusCode, Version, response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::Malformed;
use super::client::{Gathered, gather};
use super::framing::{Decoder, Encoder, Length};
use super::head::{self, RequestHead};
use super::link::{Link, NoHead};
use crate::engine::ServeLimits;
use crate::engine::abort::Abort;
use crate::engine::sniff::Rewind;
use crate::http::{
    Answer, Body, BodyError, Call, Handler, Trouble, Tunnel, trouble, wants_trailers, wants_upgrade,
};
use crate::lifecycle::{self, Phase};
use crate::seldom::Seldom;

/// How long the rest of a request is read over that was answered before its
/// end: were the connection closed at once, the answer could be lost with it.
const LINGER: Duration = Duration::from_secs(1);

/// Serves a connection until it ends (or is upgraded).
pub(crate) async fn serve<T, H>(
    io: T,
    handler: Rc<H>,
    limits: &ServeLimits,
    phase: watch::Receiver<Phase>,
) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Handler,
{
    let state = State::default();
    let ends = pin!(ends(&state, limits, phase));
    let mut ends = Seldom::new(ends);
    let connection = Connection {
        shared: Rc::new(Shared {
            link: RefCell::new(Some(Link::new(io))),
            decoder: RefCell::new(Decoder::new(Length::Exact(0))),
            expects: Cell::new(false),
            answered: Cell::new(false),
            turn: Cell::new(0),
            broke: Abort::default(),
        }),
        handler,
        limits,
        state: &state,
        patience: limits.head.map(|limit| (limit, Box::pin(sleep(limit)))),
    };
    let mut serving = pin!(connection.run());
    poll_fn(|cx| {
        if ends.poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        serving.as_mut().poll(cx)
    })
    .await
}

/// What the connection is told from elsewhere.
#[derive(Default)]
struct State {
    /// Nothing begins on it any more.
    closing: Cell<bool>,
    /// A request has begun.
    began: Cell<bool>,
}

/// Says when nothing may begin any more, and ends when all is to be cut.
async fn ends(state: &State, limits: &ServeLimits, mut phase: watch::Receiver<Phase>) {
    let drained = async {
        lifecycle::reaches(&mut phase, Phase::Draining).await;
        if !state.began.get() {
            // What came just before has its chance.
            lifecycle::drains(&mut phase).await;
        }
        state.closing.set(true);
        lifecycle::reaches(&mut phase, Phase::Ended).await;
    };
    let Some((close, cut)) = limits.until else {
        return drained.await;
    };
    let expired = async {
        sleep_until(close).await;
        state.closing.set(true);
        sleep_until(cut).await;
    };
    tokio::select! {
        () = drained => {}
        () = expired => {}
    }
}

/// What the connection's task and the body of its request share.
struct Shared<T> {
    /// `None` when it was upgraded.
    link: RefCell<Option<Link<T>>>,
    /// Of the request's body.
    decoder: RefCell<Decoder>,
    /// The caller waits to be asked for the body.
    expects: Cell<bool>,
    /// The answer has begun.
    answered: Cell<bool>,
    /// How many requests have begun.
    turn: Cell<u64>,
    /// Fired when the request's body has broken; nothing follows it.
    broke: Abort,
}

struct Connection<'a, T, H> {
    shared: Rc<Shared<T>>,
    handler: Rc<H>,
    limits: &'a ServeLimits,
    state: &'a State,
    patience: Option<(Duration, Pin<Box<Sleep>>)>,
}

/// What follows an answer.
enum Next {
    Request,
    End,
}

impl<T, H> Connection<'_, T, H>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Handler,
{
    async fn run(mut self) -> io::Result<()> {
        loop {
            let bytes = match self.head().await {
                Ok(Some(bytes)) => bytes,
                Ok(None) | Err(NoHead::End) => return self.shut().await,
                Err(NoHead::Malformed(what)) => return self.refuse(what).await,
                Err(NoHead::Early) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(NoHead::Io(error)) => return Err(error),
            };
            self.state.began.set(true);
            let head = match head::request(&bytes, self.limits.headers) {
                Ok(head) => head,
                Err(what) => return self.refuse(what).await,
            };
            match self.request(head).await? {
                Next::Request => {}
                Next::End => return Ok(()),
            }
        }
    }

    /// The next head; `None` when none is waited for any more.
    async fn head(&mut self) -> Result<Option<Bytes>, NoHead> {
        if let Some((limit, timer)) = &mut self.patience {
            timer.as_mut().reset(Instant::now() + *limit);
        }
        let (shared, state, most) = (&self.shared, self.state, self.limits.header_bytes);
        let patience = &mut self.patience;
        poll_fn(|cx| {
            let polled = shared.poll_link(|link| link.poll_head(cx, most));
            if let Poll::Ready(head) = polled {
                return Poll::Ready(head.map(Some));
            }
            // What has begun to come is waited for.
            let idle = shared.poll_link(|link| Poll::Ready(link.rest().is_empty()));
            if state.closing.get() && idle == Poll::Ready(true) {
                return Poll::Ready(Ok(None));
            }
            match patience {
                Some((_, timer)) => timer.as_mut().poll(cx).map(|()| Ok(None)),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Answers one request.
    async fn request(&mut self, head: RequestHead) -> io::Result<Next> {
        let RequestHead {
            parts,
            length,
            keep,
            expects,
        } = head;
        let shared = &self.shared;
        *shared.decoder.borrow_mut() = Decoder::new(length);
        shared.expects.set(expects);
        shared.answered.set(false);
        shared.turn.set(shared.turn.get().wrapping_add(1));
        let (method, version) = (parts.method.clone(), parts.version);
        let trailers = wants_trailers(&parts.headers);
        let (tells, upgraded) = match wants_upgrade(&parts.headers, version) {
            true => {
                let (tells, told) = oneshot::channel::<Tunnel>();
                let gone = |_| io::Error::from(io::ErrorKind::ConnectionAborted);
                let upgrade = Box::pin(async move { told.await.map_err(gone) });
                (Some(tells), Some(upgrade as crate::http::OnUpgrade))
            }
            false => (None, None),
        };
        let body = match length {
            Length::Exact(0) => Body::empty(),
            _ => shared.body(expects),
        };
        // Boxed, so that a connection holds what a request needs only while it
        // has one.
        let answering = Box::pin(self.handler.clone().handle(Call {
            head: parts,
            body,
            upgrade: upgraded,
        }));
        let Some(answer) = shared.answer(answering).await else {
            return Ok(Next::End); // the caller has gone
        };
        shared.answered.set(true);
        if answer.head.status == StatusCode::SWITCHING_PROTOCOLS {
            return match tells {
                Some(tells) => self.upgrade(answer.head, tells).await,
                None => self.refuse_upgrade().await,
            };
        }
        let keep = keep && !self.state.closing.get() && self.is_read().await;
        let written = Writing::begin(shared, answer, &method, version, trailers, keep)
            .within(self.limits.head)
            .run(shared)
            .await?;
        match written {
            Some(true) if self.rest_of_request().await => Ok(Next::Request),
            Some(_) => self.linger().await,
            None => Ok(Next::End), // it was broken off
        }
    }

    /// Whether the request is read to its end when its answer begins. Else the
    /// connection may have to be closed behind the answer, and whoever is not
    /// told of that would send the next request on it.
    async fn is_read(&self) -> bool {
        let is_done = self.shared.decoder.borrow().is_done();
        let is_unwanted = Rc::strong_count(&self.shared) == 1;
        is_done || is_unwanted && self.rest_of_request().await
    }

    /// Whether the request was read to its end, or is now.
    async fn rest_of_request(&self) -> bool {
        let shared = &self.shared;
        poll_fn(|cx| {
            let decoder = &mut *shared.decoder.borrow_mut();
            if decoder.is_done() {
                return Poll::Ready(true);
            }
            // One piece may be there, and be all.
            let read = shared.poll_link(|link| link.poll_body(cx, decoder));
            let broken = matches!(read, Poll::Ready(Some(Err(_))));
            Poll::Ready(!broken && decoder.is_done())
        })
        .await
    }

    /// Ends the connection so that the answer arrives.
    async fn linger(&self) -> io::Result<Next> {
        self.shut().await?;
        if !self.shared.decoder.borrow().is_done() {
            let skip = poll_fn(|cx| self.shared.poll_link(|link| link.poll_skip(cx)));
            let _ = tokio::time::timeout(LINGER, skip).await;
        }
        Ok(Next::End)
    }

    async fn shut(&self) -> io::Result<()> {
        poll_fn(|cx| self.shared.poll_link(|link| link.poll_shutdown(cx))).await
    }

    /// What is no request gets an answer without anybody being asked.
    async fn refuse(&self, what: Malformed) -> io::Result<()> {
        tracing::debug!(%what, "no request");
        let status = match what {
            Malformed::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Malformed::Rule(_) => StatusCode::BAD_REQUEST,
        };
        self.handler.refused(status);
        self.say(&Trouble::new(
            status,
            format!("no request of HTTP/1.1: {what}"),
        ))
        .await?;
        self.shut().await?;
        let skip = poll_fn(|cx| self.shared.poll_link(|link| link.poll_skip(cx)));
        let _ = tokio::time::timeout(LINGER, skip).await;
        Ok(())
    }

    async fn refuse_upgrade(&self) -> io::Result<Next> {
        let what = "an upgrade was answered that nobody asked for";
        self.say(&Trouble::new(StatusCode::BAD_GATEWAY, what))
            .await?;
        self.linger().await
    }

    async fn say(&self, what: &Trouble) -> io::Result<()> {
        let answer = trouble(what, false);
        let version = Version::HTTP_11;
        Writing::begin(&self.shared, answer, &Method::GET, version, false, false)
            .within(self.limits.head)
            .run(&self.shared)
            .await?
            .map(drop)
            .ok_or_else(|| io::ErrorKind::TimedOut.into())
    }

    /// Writes 101, and gives the connection away.
    async fn upgrade(
        &self,
        mut head: response::Parts,
        tells: oneshot::Sender<Tunnel>,
    ) -> io::Result<Next> {
        let shared = &self.shared;
        head.headers.remove(CONTENT_LENGTH);
        head.headers.remove(TRANSFER_ENCODING);
        shared.with_link(|link| head::put_response(link.out(), &head, None, ""));
        poll_fn(|cx| shared.poll_link(|link| link.poll_write_out(cx))).await?;
        if let Some(link) = shared.link.borrow_mut().take() {
            let (io, seen) = link.into_parts();
            let _ = tells.send(Box::pin(Rewind::new(seen, io)));
        }
        Ok(Next::End)
    }
}

impl<T> Shared<T> {
    fn with_link<R>(&self, work: impl FnOnce(&mut Link<T>) -> R) -> Option<R> {
        self.link.borrow_mut().as_mut().map(work)
    }

    /// Never ready when the connection was given away.
    fn poll_link<R>(&self, work: impl FnOnce(&mut Link<T>) -> Poll<R>) -> Poll<R> {
        self.with_link(work).unwrap_or(Poll::Pending)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> Shared<T> {
    /// The body of the request. One that came with its head is whole.
    fn body(self: &Rc<Self>, expects: bool) -> Body {
        let whole = self.with_link(|link| {
            let decoder = &mut *self.decoder.borrow_mut();
            let missing = decoder.missing();
            let is_there = missing.is_some_and(|missing| link.rest().len() as u64 >= missing);
            if expects || !is_there {
                return None;
            }
            let mut rest = link.rest();
            let data = decoder.take(&mut rest).ok()?;
            link.use_up(data.len());
            Some(data)
        });
        let whole = whole.flatten();
        match whole {
            Some(data) => Body::full(data),
            None => Body::stream(Incoming {
                shared: self.clone(),
                turn: self.turn.get(),
            }),
        }
    }

    /// The answer, or `None` when the caller has gone.
    async fn answer(
        &self,
        mut answering: Pin<Box<impl Future<Output = Answer>>>,
    ) -> Option<Answer> {
        poll_fn(|cx| {
            if let Poll::Ready(answer) = answering.as_mut().poll(cx) {
                return Poll::Ready(Some(answer));
            }
            self.poll_gone(cx).map(|()| None)
        })
        .await
    }

    /// Ready when the caller has ended the connection. While its request is not
    /// read to the end whoever reads that learns it, and says so by `broke`.
    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.decoder.borrow().is_done() {
            true => self.poll_link(|link| link.poll_gone(cx)),
            false => Poll::Pending,
        }
    }

    /// Asks for the body, where the caller waits for that.
    fn poll_continue(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.expects.get() || self.answered.get() {
            return Poll::Ready(Ok(()));
        }
        self.poll_link(|link| {
            if link.out().is_empty() {
                link.out()
                    .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            ready!(link.poll_write_out(cx))?;
            self.expects.set(false);
            Poll::Ready(Ok(()))
        })
    }
}

/// The body of a request.
struct Incoming<T> {
    shared: Rc<Shared<T>>,
    /// Whose body it is; what comes later on the connection is not its own.
    turn: u64,
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> http_body::Body for Incoming<T> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let shared = &self.shared;
        if shared.turn.get() != self.turn {
            let why = "its request is over";
            return Poll::Ready(Some(Err(BodyError::Source(why.into()))));
        }
        if let Err(error) = ready!(shared.poll_continue(cx)) {
            return Poll::Ready(Some(Err(BodyError::Source(error.into()))));
        }
        let decoder = &mut *shared.decoder.borrow_mut();
        let polled = shared.poll_link(|link| link.poll_body(cx, decoder));
        if decoder.is_broken() {
            shared.broke.fire();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let decoder = self.shared.decoder.borrow();
        decoder.is_done() && !decoder.has_trailers()
    }

    fn size_hint(&self) -> SizeHint {
        let missing = self.shared.decoder.borrow().missing();
        missing.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// An answer on its way out.
struct Writing {
    body: Option<Body>,
    encoder: Encoder,
    keep: bool,
    /// How long the caller may take none of it.
    patience: Option<Duration>,
    stalled: Option<Stalled>,
}

/// Nothing can be written now: so much is left, since then.
struct Stalled {
    left: usize,
    timer: Pin<Box<Sleep>>,
}

impl Writing {
    /// Whoever takes nothing of it for so long is left.
    fn within(mut self, patience: Option<Duration>) -> Self {
        self.patience = patience;
        self
    }

    /// Ready when the caller has taken nothing for too long.
    fn poll_stalled(&mut self, left: usize, cx: &mut Context<'_>) -> Poll<()> {
        let Some(patience) = self.patience else {
            return Poll::Pending;
        };
        let stalled = self.stalled.get_or_insert_with(|| Stalled {
            left,
            timer: Box::pin(sleep(patience)),
        });
        if stalled.left != left {
            stalled.left = left;
            stalled.timer.as_mut().reset(Instant::now() + patience);
        }
        stalled.timer.as_mut().poll(cx)
    }

    fn begin<T>(
        shared: &Shared<T>,
        answer: Answer,
        method: &Method,
        version: Version,
        trailers: bool,
        keep: bool,
    ) -> Self {
        let Answer { mut head, body, .. } = answer;
        let has = head::Has::of(&head.headers);
        if has.coding {
            head.headers.remove(TRANSFER_ENCODING);
        }
        if head.status == StatusCode::NO_CONTENT {
            head.headers.remove(CONTENT_LENGTH); // RFC 9110, 8.6
        }
        let trailers = trailers && head.headers.contains_key(TRAILER);
        let exact = body.size_hint().exact();
        let bodiless = head.status == StatusCode::NO_CONTENT
            || head.status == StatusCode::NOT_MODIFIED
            || method == Method::HEAD;
        let known = match bodiless {
            true => Ok(Length::Exact(0)),
            false if has.length => head::length_to_send(&head.headers, exact),
            false => Ok(exact.map_or(Length::Chunked, Length::Exact)),
        };
        let length = match known {
            Ok(Length::Chunked) if version != Version::HTTP_11 => Length::UntilEnd,
            Ok(length) => length,
            Err(_) => {
                // A length that is none came over HTTP/2.
                head.headers.remove(CONTENT_LENGTH);
                Length::Chunked
            }
        };
        let keep = keep && length != Length::UntilEnd;
        let connection = match (keep, version) {
            (true, Version::HTTP_11) => "",
            (true, _) => "keep-alive",
            (false, _) => "close",
        };
        let said = (!bodiless).then_some(length);
        shared.with_link(|link| head::put_response(link.out(), &head, said, connection));
        Self {
            body: (!bodiless).then_some(body),
            encoder: Encoder::new(length, trailers),
            keep,
            patience: None,
            stalled: None,
        }
    }

    /// Writes it. Gives back whether another may follow, or `None` when it was
    /// broken off.
    async fn run<T>(mut self, shared: &Shared<T>) -> io::Result<Option<bool>>
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        poll_fn(|cx| self.poll(shared, cx)).await
    }

    fn poll<T>(
        &mut self,
        shared: &Shared<T>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<bool>>>
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        loop {
            let mut waits = false;
            while let Some(body) = &mut self.body {
                let full = shared.with_link(|link| link.is_full()).unwrap_or(true);
                if full {
                    // A caller that does not read keeps nobody from a deny.
                    if body.poll_cut(cx).is_ready() {
                        return Poll::Ready(Ok(None));
                    }
                    break;
                }
                let encoder = &mut self.encoder;
                match shared.with_link(|link| gather(body, encoder, link, cx)) {
                    Some(Gathered::Some) => {}
                    Some(Gathered::Waits) => {
                        waits = true;
                        break;
                    }
                    Some(Gathered::Whole) => self.body = None,
                    Some(Gathered::Broken) | None => return Poll::Ready(Ok(None)),
                }
            }
            match shared.poll_link(|link| link.poll_write_out(cx)) {
                Poll::Ready(written) => written?,
                Poll::Pending => {
                    let left = shared.with_link(|link| link.unwritten()).unwrap_or(0);
                    return self.poll_stalled(left, cx).map(|()| Ok(None));
                }
            }
            self.stalled = None;
            if self.body.is_none() {
                return Poll::Ready(Ok(Some(self.keep)));
            }
            if waits {
                if shared.broke.poll(cx).is_ready() {
                    return Poll::Ready(Ok(None));
                }
                return shared.poll_gone(cx).map(|()| Ok(None));
            }
        }
    }
}
