//! Serves HTTP/2.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::{Response, StatusCode, request};
use mesh_h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::crew::Crew;
use super::h2_body::{self, Sending};
use super::h2_link::{Driver, Half, Incoming, Link};
use super::{STRANGERS_RESETS, ServeLimits};
use crate::http::{Answer, Body, Call, Handler};
use crate::lifecycle::{self, Phase};

/// Serves a connection until it ends. Requests that are under way at a time are answered each in a
/// task of its own.
pub(crate) async fn serve<T, H>(
    io: T,
    handler: Rc<H>,
    limits: &ServeLimits,
    mut phase: watch::Receiver<Phase>,
) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Handler,
{
    let mut config = super::h2_config(limits.header_bytes);
    config.streams = limits.streams;
    if limits.strangers {
        config.resets = STRANGERS_RESETS;
    }
    let (mut driver, link) = Driver::new(io, mesh_h2::Connection::server(config));
    let headers = limits.headers;
    let quiet = Rc::new(Quiet::new());
    let heard = Rc::new(Cell::new(false));
    let crew = Rc::new(Crew::new());
    let _ended = Ended(crew.clone());
    let how = move |asked| answer(asked, handler.clone(), headers);
    let mut accept = |incoming| crew.give(Asked::new(incoming, &link, &quiet), &how);
    // Polled after the connection, all with it: they mostly wait.
    let mut ends = pin!(async {
        lifecycle::reaches(&mut phase, Phase::Draining).await;
        if !link.look().has_begun() {
            sleep(lifecycle::FIRST_BYTES).await;
        }
        if !link.look().has_begun() {
            return;
        }
        link.with(mesh_h2::Connection::drain);
        lifecycle::reaches(&mut phase, Phase::Ended).await; // what is open is reset
    });
    let mut over = pin!(time_over(limits.until, &link));
    let mut bored = pin!(bored(limits, &link, &quiet, &heard));
    let mut shrink = pin!(crew.shrink());
    poll_fn(|cx| {
        let ended = driver.poll(cx, &mut accept, &heard);
        if ended.is_ready() {
            return ended;
        }
        let is_over = ends.as_mut().poll(cx).is_ready()
            || over.as_mut().poll(cx).is_ready()
            || bored.as_mut().poll(cx).is_ready()
            || shrink.as_mut().poll(cx).is_ready();
        match is_over {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    })
    .await
}

/// Ready when a connection is to be cut, since its peer's time is over.
async fn time_over(until: Option<(Instant, Instant)>, link: &Link) {
    let Some((close_at, cut_at)) = until else {
        return std::future::pending().await;
    };
    sleep_until(close_at).await;
    link.with(mesh_h2::Connection::drain);
    sleep_until(cut_at).await;
}

/// Ready when a connection is to be cut since nobody uses it. GOAWAY loses
/// nothing: what is on its way is still served, and the connection ends by itself
/// when all has ended. It is cut when the other side is dead to it.
async fn bored(limits: &ServeLimits, link: &Link, quiet: &Quiet, heard: &Cell<bool>) {
    let Some(patience) = limits.head else {
        return std::future::pending().await;
    };
    sleep(patience).await;
    if !link.look().has_begun() {
        return;
    }
    loop {
        let over = quiet.since() + patience;
        if Instant::now() >= over {
            break;
        }
        sleep_until(over).await;
    }
    heard.set(false);
    link.with(mesh_h2::Connection::drain);
    sleep(patience).await;
    loop {
        if limits.strangers || !heard.get() {
            return;
        }
        sleep(FAR).await;
    }
}

/// Longer than any connection lives.
const FAR: Duration = Duration::from_secs(30 * 86_400);

/// Since when a connection has had no stream.
struct Quiet {
    open: Cell<usize>,
    since: Cell<Instant>,
}

/// A stream of a connection.
struct Open(Rc<Quiet>);

impl Quiet {
    fn new() -> Self {
        Self {
            open: Cell::new(0),
            since: Cell::new(Instant::now()),
        }
    }

    fn open(self: &Rc<Self>) -> Open {
        self.open.set(self.open.get() + 1);
        Open(self.clone())
    }

    /// Now, if it has one.
    fn since(&self) -> Instant {
        match self.open.get() {
            0 => self.since.get(),
            _ => Instant::now(),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let left = self.0.open.get().saturating_sub(1);
        self.0.open.set(left);
        if left == 0 {
            self.0.since.set(Instant::now());
        }
    }
}

/// A request that waits for its answer.
struct Asked {
    head: Box<request::Parts>,
    /// Of one with a body.
    reads: Option<Half>,
    sends: Half,
    _open: Open,
}

impl Asked {
    fn new(incoming: Incoming, link: &Rc<Link>, quiet: &Rc<Quiet>) -> Self {
        let (reads, sends) = match incoming.end {
            true => (None, Half::sending(link, incoming.key)),
            false => {
                let (reads, sends) = Half::both(link, incoming.key, false);
                (Some(reads), sends)
            }
        };
        Self {
            head: incoming.head,
            reads,
            sends,
            _open: quiet.open(),
        }
    }
}

/// Ends the tasks that wait, with the connection.
struct Ended(Rc<Crew<Asked>>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Answers one request.
async fn answer<H: Handler>(asked: Asked, handler: Rc<H>, max_headers: usize) {
    let Asked {
        head,
        reads,
        sends,
        _open,
    } = asked;
    if sends.is_broken() {
        return; // given up in the same breath: it costs no more than that
    }
    if head.headers.len() > max_headers {
        let (mut head, ()) = Response::new(()).into_parts();
        head.status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        sends.link.with(|it| it.respond(sends.key, &head, true));
        return;
    }
    let body = match reads {
        None => Body::empty(),
        Some(reads) => h2_body::received(reads, &head.headers, false),
    };
    let call = Call {
        head: *head,
        body,
        upgrade: None,
    };
    let answer = {
        let mut answering = pin!(handler.handle(call));
        poll_fn(|cx| {
            if let Poll::Ready(answer) = answering.as_mut().poll(cx) {
                return Poll::Ready(Some(answer));
            }
            sends.poll_broken(cx).map(|()| None)
        })
        .await
    };
    // Where there is none the caller has gone, and took the call with it.
    if let Some(mut sending) = answer.and_then(|answer| respond(answer, sends)) {
        poll_fn(|cx| sending.poll(cx)).await;
    }
}

/// Begins an answer; gives back the body that is still to be sent.
fn respond(mut answer: Answer, sends: Half) -> Option<Sending> {
    let (link, key) = (&sends.link, sends.key);
    if answer.refused {
        link.with(|it| it.reset(key, Reason::REFUSED_STREAM));
        return None;
    }
    let end = http_body::Body::is_end_stream(&answer.body);
    let whole = match !end && link.look().has_room(key) {
        true => answer.body.take_whole(),
        false => None,
    };
    let head = &answer.head;
    let begun = match whole {
        Some(whole) => {
            link.with(|it| it.respond(key, head, false) && it.send(key, whole, true));
            false
        }
        None => link.with(|it| it.respond(key, head, end)) && !end,
    };
    begun.then(|| Sending::new(answer.body, sends))
}
