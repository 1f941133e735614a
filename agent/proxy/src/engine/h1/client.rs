//! Calls over HTTP/1.1, on connections that are kept for the next call.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, StatusCode, request};
use http_body::{Body as _, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};

use super::framing::{Decoder, Encoder, Length};
use super::head::{self, ResponseHead};
use super::link::{Link, NoHead};
use crate::engine::abort::Abort;
use crate::engine::sniff::Rewind;
use crate::engine::{SendError, SendErrorKind};
use crate::http::{Answer, Body, BodyError, Call, Tunnel};

/// Idle connections that are kept at most.
const MAX_IDLE: usize = 256;
/// Heads of answers that are none yet (103, 102 ...), for one call.
const INTERIM: usize = 32;

/// A connection for one call at a time.
pub(crate) struct H1Client(Box<Connected>);

/// Boxed, since it goes from hand to hand, and with the call that is made on it.
struct Connected {
    link: Link<Tunnel>,
    headers: usize,
    header_bytes: usize,
    /// From when on it takes nothing new, and when it is cut.
    until: Option<(Instant, Instant)>,
    made: Option<Made>,
}

/// A call whose answer has not begun.
struct Made {
    head: request::Parts,
    sending: Sending,
    cut: Option<Pin<Box<Sleep>>>,
    may_upgrade: bool,
    /// Making it twice does no harm (RFC 9110, 9.2.2), and it has no body.
    is_repeatable: bool,
    /// Nothing came yet, and whoever polls it is told when it does.
    waits: bool,
    interim: usize,
}

/// Idle connections to one place; the most recently used is taken first, so
/// that the others can end.
#[derive(Default)]
pub(crate) struct IdlePool {
    idle: RefCell<VecDeque<(H1Client, Instant)>>,
}

impl IdlePool {
    /// An idle connection on which a call can begin, if there is one.
    pub(crate) fn take(&self) -> Option<H1Client> {
        self.take_and_wait(&mut Context::from_waker(Waker::noop()))
    }

    /// The same; whoever is called by `cx` learns of what comes on it.
    pub(crate) fn take_and_wait(&self, cx: &mut Context<'_>) -> Option<H1Client> {
        let mut idle = self.idle.borrow_mut();
        while let Some((mut client, _)) = idle.pop_back() {
            if client.can_begin(cx) {
                return Some(client);
            }
        }
        None
    }

    pub(crate) fn put(&self, client: H1Client) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= MAX_IDLE {
            idle.pop_front();
        }
        idle.push_back((client, Instant::now()));
    }

    /// Closes what was idle since before, and what the other side has closed.
    pub(crate) fn close_idle_since(&self, before: Instant) {
        self.idle.borrow_mut().retain_mut(|(client, since)| {
            let mut cx = Context::from_waker(Waker::noop());
            *since > before && client.can_begin(&mut cx)
        });
    }
}

impl H1Client {
    /// A connection to make calls on.
    ///
    /// At the first of the times in `until` it takes nothing new any more, at
    /// the second it is cut.
    pub(crate) fn new<T>(
        io: T,
        headers: usize,
        header_bytes: usize,
        until: Option<(Instant, Instant)>,
    ) -> Self
    where
        T: AsyncRead + AsyncWrite + 'static,
    {
        Self(Box::new(Connected {
            link: Link::new(Box::pin(io)),
            headers,
            header_bytes,
            until,
            made: None,
        }))
    }

    /// It is idle, and nothing ends it.
    fn can_begin(&mut self, cx: &mut Context<'_>) -> bool {
        let Connected { until, link, .. } = &mut *self.0;
        until.is_none_or(|(close, _)| close > Instant::now()) && link.is_quiet(cx)
    }

    /// Makes a call; the connection goes into `pool` when the answer is read.
    pub(crate) async fn send(
        mut self,
        call: Call,
        pool: Rc<IdlePool>,
    ) -> Result<Answer, SendError> {
        if !self.can_begin(&mut Context::from_waker(Waker::noop())) {
            return Err(SendError {
                kind: SendErrorKind::Refused,
                what: "the connection has ended".to_owned(),
                call: Some(Box::new(call)),
            });
        }
        let mut underway = self.begin(call, pool, false)?;
        poll_fn(|cx| underway.poll(cx)).await
    }

    /// Begins a call on a connection that is idle. `waits`: whoever polls it first, in this very
    /// turn, has found that nothing came on it, and is told when that changes.
    pub(crate) fn begin(
        mut self,
        call: Call,
        pool: Rc<IdlePool>,
        waits: bool,
    ) -> Result<Underway, SendError> {
        let Call { mut head, body, .. } = call;
        // To look once costs less than to look each up, and mostly there is none.
        let says = |name: &HeaderName| {
            matches!(
                *name,
                TRANSFER_ENCODING | UPGRADE | CONTENT_LENGTH | TRAILER
            )
        };
        let plain = !head.headers.keys().any(says);
        if !plain {
            head.headers.remove(TRANSFER_ENCODING);
        }
        let may_upgrade = !plain && head.headers.contains_key(UPGRADE);
        let connected = &mut *self.0;
        connected.made = Some(Made {
            is_repeatable: head.method.is_idempotent() && body.is_empty() && !may_upgrade,
            sending: Sending::begin(&head, plain, body, &mut connected.link)?,
            cut: (connected.until).map(|(_, cut)| Box::pin(sleep_until(cut))),
            head,
            may_upgrade,
            waits,
            interim: 0,
        });
        Ok(Underway {
            client: Some(self),
            pool,
        })
    }

    /// The answer to the call that was made, of which the head has come.
    fn answer(mut self, received: ResponseHead, pool: Rc<IdlePool>) -> Answer {
        if received.parts.status == StatusCode::SWITCHING_PROTOCOLS {
            return self.upgraded(received);
        }
        let Connected { link, made, .. } = &mut *self.0;
        let is_sent = made.as_ref().is_none_or(|made| made.sending.is_done());
        let whole = match received.length {
            Length::Exact(length) => link.rest().len() as u64 == length,
            _ => false,
        };
        if whole && is_sent {
            let body = link.take_rest();
            *made = None;
            if received.keep {
                pool.put(self);
            }
            return Answer::new(received.parts, Body::full(body));
        }
        let (sending, cut) = match made.take() {
            Some(made) => (Some(made.sending).filter(|_| !is_sent), made.cut),
            None => (None, None),
        };
        let client = Rc::new(RefCell::new(self));
        let aborts = sending.map(|sending| {
            let (abort, broke) = (Rc::<Abort>::default(), Rc::<Abort>::default());
            let rest = go_on(client.clone(), sending, abort.clone(), broke.clone());
            tokio::task::spawn_local(rest);
            (abort, broke)
        });
        let (abort, broke) = aborts.unzip();
        let body = Receiving {
            client: Some(client),
            decoder: Decoder::new(received.length),
            cut,
            abort,
            broke,
            pool: (received.keep && is_sent).then_some(pool),
        };
        Answer::new(received.parts, Body::stream(body))
    }

    /// After 101 the connection is the answer.
    fn upgraded(self, received: ResponseHead) -> Answer {
        let cut_at = self.0.until.map(|(_, cut)| cut);
        let (io, seen) = self.0.link.into_parts();
        let tunnel: Tunnel = Box::pin(Rewind::new(seen, io));
        let mut answer = Answer::new(received.parts, Body::empty());
        answer.upgrade = Some(Box::pin(std::future::ready(Ok(tunnel))));
        answer.cut_at = cut_at;
        answer
    }
}

/// A call that waits for its answer.
pub(crate) struct Underway {
    /// Until it has its answer.
    client: Option<H1Client>,
    /// Where the connection goes when the answer is read.
    pool: Rc<IdlePool>,
}

impl Underway {
    /// Sends, and waits for the answer. When it is ready it is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, SendError>> {
        let polled = match &mut self.client {
            Some(client) => client.0.poll_answer(cx),
            None => return Poll::Ready(Err(gone())),
        };
        let received = match ready!(polled) {
            Ok(received) => received,
            Err(error) => return Poll::Ready(Err(error)),
        };
        let client = self.client.take().ok_or_else(gone);
        Poll::Ready(client.map(|client| client.answer(received, self.pool.clone())))
    }

    /// The same call once more, if its connection ended before the answer and
    /// making it twice does no harm.
    pub(crate) fn again(&mut self) -> Option<Call> {
        let made = self.client.take()?.0.made?;
        made.is_repeatable.then(|| Call {
            head: made.head,
            body: Body::empty(),
            upgrade: None,
        })
    }
}

impl Connected {
    /// Sends what was not sent yet of the call, and waits for an answer's head.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, SendError>> {
        let link = &mut self.link;
        let Some(made) = &mut self.made else {
            return Poll::Ready(Err(gone()));
        };
        if poll_cut(&mut made.cut, cx).is_ready() {
            return Poll::Ready(Err(reset("the peer's certificate has expired")));
        }
        // A write that fails may have been answered all the same.
        if let Poll::Ready(Err(Stopped::Body)) = made.sending.poll(link, cx) {
            return Poll::Ready(Err(of_body()));
        }
        if std::mem::take(&mut made.waits) {
            return Poll::Pending;
        }
        loop {
            let bytes = match ready!(link.poll_head(cx, self.header_bytes)) {
                Ok(bytes) => bytes,
                Err(error) => return Poll::Ready(Err(no_answer(error))),
            };
            let read = head::response(&bytes, self.headers, &made.head.method);
            let mut read = read.map_err(|error| no_answer(NoHead::Malformed(error)))?;
            forget_connection(&mut read.parts.headers);
            match read.parts.status {
                StatusCode::SWITCHING_PROTOCOLS if made.may_upgrade => {}
                StatusCode::SWITCHING_PROTOCOLS => {
                    return Poll::Ready(Err(malformed("an upgrade that nobody asked for")));
                }
                status if status.is_informational() => {
                    made.interim += 1;
                    if made.interim > INTERIM {
                        return Poll::Ready(Err(malformed("no end of interim answers")));
                    }
                    continue;
                }
                _ => {}
            }
            return Poll::Ready(Ok(read));
        }
    }
}

/// Sends the rest of a call whose answer has begun. When its body breaks that
/// ends the answer too: the caller may have gone, and the application would
/// wait for the rest as long as it likes.
async fn go_on(
    client: Rc<RefCell<H1Client>>,
    mut sending: Sending,
    abort: Rc<Abort>,
    broke: Rc<Abort>,
) {
    poll_fn(|cx| {
        if abort.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        sending
            .poll(&mut client.borrow_mut().0.link, cx)
            .map(|sent| {
                if let Err(Stopped::Body) = sent {
                    broke.fire();
                }
            })
    })
    .await;
}

/// A call on its way out.
struct Sending {
    body: Option<Body>,
    encoder: Encoder,
    done: bool,
}

/// Why a call is not sent to its end.
enum Stopped {
    /// Its own body broke, or is not as long as it says.
    Body,
    /// It was not taken.
    Write,
}

impl Sending {
    /// `plain`: the head says nothing of the body.
    fn begin(
        head: &request::Parts,
        plain: bool,
        body: Body,
        link: &mut Link<Tunnel>,
    ) -> Result<Self, SendError> {
        let exact = body.size_hint().exact();
        let length = match plain {
            true => exact.map_or(Length::Chunked, Length::Exact),
            false => head::length_to_send(&head.headers, exact).map_err(|_| of_body())?,
        };
        // A length is said where there is a body, or where one is usual.
        let usual = matches!(head.method, Method::POST | Method::PUT | Method::PATCH);
        let said = (length != Length::Exact(0) || usual).then_some(length);
        head::put_request(link.out(), head, said);
        let is_over = body.is_empty() && length == Length::Exact(0);
        Ok(Self {
            body: (!is_over).then_some(body),
            encoder: Encoder::new(length, !plain && head.headers.contains_key(TRAILER)),
            done: false,
        })
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn poll(&mut self, link: &mut Link<Tunnel>, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        loop {
            let waits = self.poll_gather(link, cx)?;
            if ready!(link.poll_write_out(cx)).is_err() {
                self.body = None;
                return Poll::Ready(Err(Stopped::Write));
            }
            if self.body.is_none() {
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            if waits {
                return Poll::Pending;
            }
        }
    }

    /// Puts as much of the body as there is where it is written from. Says
    /// whether more must be waited for.
    fn poll_gather(
        &mut self,
        link: &mut Link<Tunnel>,
        cx: &mut Context<'_>,
    ) -> Result<bool, Stopped> {
        while let Some(body) = &mut self.body {
            if link.is_full() {
                // Also while nothing is taken: a deny must not wait for a reader.
                if body.poll_cut(cx).is_ready() {
                    return self.broke();
                }
                return Ok(false);
            }
            match gather(body, &mut self.encoder, link, cx) {
                Gathered::Some => {}
                Gathered::Waits => return Ok(true),
                Gathered::Whole => self.body = None,
                Gathered::Broken => return self.broke(),
            }
        }
        Ok(false)
    }

    fn broke(&mut self) -> Result<bool, Stopped> {
        self.body = None;
        Err(Stopped::Body)
    }
}

/// What came of asking a body for more.
pub(super) enum Gathered {
    Some,
    Waits,
    Whole,
    Broken,
}

/// Puts the next of a body where it is written from.
pub(super) fn gather<T>(
    body: &mut Body,
    encoder: &mut Encoder,
    link: &mut Link<T>,
    cx: &mut Context<'_>,
) -> Gathered {
    let frame = match Pin::new(&mut *body).poll_frame(cx) {
        Poll::Pending => return Gathered::Waits,
        Poll::Ready(Some(Err(_))) => return Gathered::Broken,
        Poll::Ready(Some(Ok(frame))) => frame,
        Poll::Ready(None) => return finish(encoder, link, None),
    };
    let data = match frame.into_data() {
        Ok(data) => data,
        Err(frame) => {
            let trailers = frame.into_trailers().ok();
            return finish(encoder, link, trailers.as_ref());
        }
    };
    let put = match encoder.is_plain() {
        true => encoder.count(data.len()).map(|()| link.put_piece(data)),
        false => encoder.put(link.out(), &data),
    };
    match put {
        Ok(()) if body.is_end_stream() => finish(encoder, link, None),
        Ok(()) => Gathered::Some,
        Err(_) => Gathered::Broken,
    }
}

fn finish<T>(
    encoder: &mut Encoder,
    link: &mut Link<T>,
    trailers: Option<&http::HeaderMap>,
) -> Gathered {
    let mut end = Vec::new();
    match encoder.finish(&mut end, trailers) {
        Ok(()) => {
            // Pieces stand only where nothing follows them.
            if !end.is_empty() {
                link.out().extend_from_slice(&end);
            }
            Gathered::Whole
        }
        Err(_) => Gathered::Broken,
    }
}

/// A body whose connection is idle when it has ended.
struct Receiving {
    client: Option<Rc<RefCell<H1Client>>>,
    decoder: Decoder,
    cut: Option<Pin<Box<Sleep>>>,
    /// Ends the sending of the call.
    abort: Option<Rc<Abort>>,
    /// Fired when the call's own body has broken.
    broke: Option<Rc<Abort>>,
    /// Where the connection goes, if it can be used again.
    pool: Option<Rc<IdlePool>>,
}

impl Receiving {
    fn end(&mut self) {
        if let Some(abort) = self.abort.take() {
            abort.fire();
        }
        let (Some(client), Some(pool)) = (self.client.take(), self.pool.take()) else {
            self.client = None;
            return;
        };
        if let Some(client) = Rc::into_inner(client) {
            pool.put(client.into_inner());
        }
    }
}

impl http_body::Body for Receiving {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if poll_cut(&mut this.cut, cx).is_ready() {
            this.pool = None;
            this.end();
            let why = "cut: the peer's certificate has expired";
            return Poll::Ready(Some(Err(BodyError::Cut(why))));
        }
        let Some(client) = &this.client else {
            let trailers = this.decoder.take_trailers();
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        };
        let polled = client.borrow_mut().0.link.poll_body(cx, &mut this.decoder);
        let frame = match (polled, &this.broke) {
            (Poll::Ready(frame), _) => frame,
            (Poll::Pending, Some(broke)) => {
                ready!(broke.poll(cx));
                let why = "the request's body broke off";
                Some(Err(BodyError::Source(why.into())))
            }
            (Poll::Pending, None) => return Poll::Pending,
        };
        if matches!(frame, Some(Err(_))) {
            this.pool = None;
        }
        if this.decoder.is_done() || matches!(frame, Some(Err(_))) {
            this.end();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.client.is_none() && self.decoder.is_done() && !self.decoder.has_trailers()
    }

    fn size_hint(&self) -> SizeHint {
        self.decoder
            .missing()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if !self.decoder.is_done() {
            self.pool = None;
        }
        self.end();
    }
}

fn poll_cut(cut: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> Poll<()> {
    match cut {
        Some(cut) => cut.as_mut().poll(cx),
        None => Poll::Pending,
    }
}

fn no_answer(error: NoHead) -> SendError {
    match error {
        NoHead::End | NoHead::Early => reset("the connection ended"),
        NoHead::Io(error) => reset(&error.to_string()),
        NoHead::Malformed(error) => malformed(&error.to_string()),
    }
}

/// What mostly is said of the connection is read by now, and goes no further.
fn forget_connection(headers: &mut HeaderMap) {
    let mut all = headers.get_all(CONNECTION).iter();
    if let (Some(one), None) = (all.next(), all.next())
        && ["keep-alive", "close"]
            .iter()
            .any(|usual| one.as_bytes().eq_ignore_ascii_case(usual.as_bytes()))
    {
        headers.remove(CONNECTION);
    }
}

/// It has its answer already.
fn gone() -> SendError {
    reset("the call is over")
}

fn reset(what: &str) -> SendError {
    SendError {
        kind: SendErrorKind::Reset,
        what: what.to_owned(),
        call: None,
    }
}

fn malformed(what: &str) -> SendError {
    SendError {
        kind: SendErrorKind::Malformed,
        what: what.to_owned(),
        call: None,
    }
}

fn of_body() -> SendError {
    SendError {
        kind: SendErrorKind::Body,
        what: "the request's body broke off, or is not as long as its head says".to_owned(),
        call: None,
    }
}
