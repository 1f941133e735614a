//! Serves HTTP/2.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::coalesce::Coalesce;
use super::h2_body::{self, Received};
use super::{CONNECTION_WINDOW, FRAME, RESETS, STREAM_WINDOW, ServeLimits, into_io};
use crate::http::{Body, Call, Handler};
use crate::lifecycle::{self, Phase};

/// Serves a connection until it ends. Calls are made each in its own task.
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
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(256 * 1024);
    if !limits.strangers {
        builder
            .max_concurrent_reset_streams(RESETS)
            .max_pending_accept_reset_streams(RESETS)
            .max_local_error_reset_streams(None);
    }
    let heard = Rc::new(Cell::new(false));
    let (io, mut flusher) = Coalesce::hearing(io, heard.clone());
    let handshake = builder.handshake::<_, Bytes>(io);
    let mut connection = tokio::select! {
        biased;
        connection = handshake => connection.map_err(into_io)?,
        error = flusher.run() => return Err(error),
        () = lifecycle::drains(&mut phase) => return Ok(()),
        () = sleep(limits.head.unwrap_or(FAR)) => return Ok(()),
    };
    let (close_at, cut_at) = limits.until.unwrap_or_else(|| {
        let far = Instant::now() + FAR;
        (far, far)
    });
    let mut alarm = pin!(sleep_until(close_at));
    let patience = limits.head.unwrap_or(FAR);
    let quiet = Rc::new(Quiet::new());
    let mut bored = pin!(sleep(patience));
    let mut closing = false;
    let mut asked_to_go = false;
    loop {
        tokio::select! {
            biased;
            next = connection.accept() => match next {
                Some(Ok((request, respond))) => {
                    let handler = handler.clone();
                    let headers = limits.headers;
                    let open = quiet.open();
                    // Boxed, since it is large: a task is moved a few times until
                    // it stands where it stays.
                    let serving = Box::pin(stream(request, respond, handler, headers));
                    tokio::task::spawn_local(async move {
                        serving.await;
                        drop(open);
                    });
                }
                Some(Err(error)) => return Err(into_io(error)),
                None => return Ok(()),
            },
            // After all that writes.
            error = flusher.run() => return Err(error),
            () = lifecycle::reaches(&mut phase, if closing { Phase::Ended } else { Phase::Draining }) => {
                if *phase.borrow() == Phase::Ended {
                    return Ok(()); // what is open is reset with the connection
                }
                closing = true;
                connection.graceful_shutdown();
            }
            () = alarm.as_mut(), if limits.until.is_some() => {
                if Instant::now() >= cut_at {
                    return Ok(());
                }
                alarm.as_mut().reset(cut_at);
                closing = true;
                connection.graceful_shutdown();
            }
            // GOAWAY loses nothing: what is on its way is still served, and the
            // connection ends by itself when all has ended. It is cut when the
            // other side is dead to it.
            () = bored.as_mut(), if limits.head.is_some() => {
                let over = quiet.since() + patience;
                if Instant::now() < over {
                    bored.as_mut().reset(over);
                } else if !asked_to_go {
                    asked_to_go = true;
                    closing = true;
                    heard.set(false);
                    connection.graceful_shutdown();
                    bored.as_mut().reset(Instant::now() + patience);
                } else if limits.strangers || !heard.get() {
                    return Ok(());
                } else {
                    bored.as_mut().reset(Instant::now() + FAR);
                }
            }
        }
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
        self.0.open.set(self.0.open.get().saturating_sub(1));
        self.0.since.set(Instant::now());
    }
}

/// Answers one request.
async fn stream<H: Handler>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    handler: Rc<H>,
    max_headers: usize,
) {
    let (head, received) = request.into_parts();
    if head.headers.len() > max_headers {
        let (mut head, ()) = Response::new(()).into_parts();
        head.status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let _ = respond.send_response(Response::from_parts(head, ()), true);
        return;
    }
    let body = Body::stream(Received::new(received, &head.headers, None));
    let call = Call {
        head,
        body,
        upgrade: None,
    };
    let answer = {
        let mut answering = pin!(handler.handle(call));
        poll_fn(|cx| {
            if let Poll::Ready(answer) = answering.as_mut().poll(cx) {
                return Poll::Ready(Some(answer));
            }
            respond.poll_reset(cx).map(|_| None)
        })
        .await
    };
    let Some(mut answer) = answer else {
        return; // the caller has gone, and took the call with it
    };
    if answer.refused {
        return respond.send_reset(Reason::REFUSED_STREAM);
    }
    let end = http_body::Body::is_end_stream(&answer.body);
    answer.head.version = Version::HTTP_2;
    match respond.send_response(Response::from_parts(answer.head, ()), end) {
        Ok(mut stream) if !end => {
            h2_body::send(answer.body, &mut stream).await;
        }
        Ok(_) => {}
        Err(_) => respond.send_reset(Reason::INTERNAL_ERROR),
    }
}
