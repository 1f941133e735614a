//! Calls over HTTP/2.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use h2::{Reason, SendStream};
use http::{Request, Version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::coalesce::{Coalesce, Flusher};
use super::greeting::Greeted;
use super::h2_body::{self, Abort, Received, Sent, StreamGuard};
use super::{CONNECTION_WINDOW, FRAME, RESETS, STREAM_WINDOW, SendError, SendErrorKind, into_io};
use crate::http::{Answer, Body, Call};
use crate::peer::Warm;

/// A connection to call on. Clones share it; when the last one goes it ends,
/// after its streams.
#[derive(Clone)]
pub(crate) struct H2Client {
    sender: SendRequest<Bytes>,
    streams: Rc<Cell<usize>>,
    ended: Rc<Ended>,
}

#[derive(Default)]
struct Ended {
    ended: Cell<bool>,
    why: RefCell<Option<String>>,
}

impl H2Client {
    /// Begins HTTP/2 on a connection, and waits for the other side's greeting.
    /// The error says why there was none.
    ///
    /// At the first of the times in `until` it takes nothing new any more, at
    /// the second it is cut.
    pub(crate) async fn begin<T>(
        io: T,
        header_bytes: usize,
        until: Option<(Instant, Instant)>,
    ) -> Result<Self, io::Error>
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (io, greeted) = Greeted::new(io);
        let (io, flusher) = Coalesce::new(io);
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
            .max_send_buffer_size(256 * 1024)
            .max_concurrent_reset_streams(RESETS)
            .max_local_error_reset_streams(None)
            .enable_push(false)
            .initial_max_send_streams(100)
            .handshake::<_, Bytes>(io)
            .await
            .map_err(into_io)?;
        let ended = Rc::new(Ended::default());
        let (failed, has_failed) = oneshot::channel();
        let mark = ended.clone();
        tokio::task::spawn_local(async move {
            let result = drive(connection, flusher, until, &mark).await;
            mark.ended.set(true);
            *mark.why.borrow_mut() = result.as_ref().err().map(ToString::to_string);
            let _ = failed.send(result);
        });
        // Dropped with the connection when it fails before its first byte.
        if greeted.await.is_err() {
            return Err(match has_failed.await {
                Ok(Err(error)) => error,
                _ => io::ErrorKind::UnexpectedEof.into(),
            });
        }
        Ok(Self {
            sender,
            streams: Rc::default(),
            ended,
        })
    }

    /// Makes a call. The answer's body is what its stream still receives.
    pub(crate) async fn send(&self, call: Call) -> Result<Answer, SendError> {
        let mut sender = self.sender.clone();
        if let Err(error) = poll_fn(|cx| sender.poll_ready(cx)).await {
            self.ended.ended.set(true); // its own task may learn it later
            return Err(SendError {
                kind: SendErrorKind::Refused,
                what: self.why(&error),
                call: Some(Box::new(call)),
            });
        }
        let Call { mut head, body, .. } = call;
        head.version = Version::HTTP_2;
        let end = http_body::Body::is_end_stream(&body);
        let (answer, stream) = sender
            .send_request(Request::from_parts(head, ()), end)
            .map_err(|error| self.failed(&error))?;
        drop(sender);
        self.streams.set(self.streams.get() + 1);
        let mut guard = StreamGuard {
            count: self.streams.clone(),
            abort: None,
        };
        let broke = Rc::new(Cell::new(false));
        if !end {
            let abort = Rc::new(Abort::default());
            guard.abort = Some(abort.clone());
            start_sending(body, stream, abort, broke.clone()).await;
        }
        let answer = answer.await.map_err(|error| match broke.get() {
            true => SendError {
                kind: SendErrorKind::Body,
                what: "the request's body broke off".to_owned(),
                call: None,
            },
            false => self.failed(&error),
        })?;
        let (head, received) = answer.into_parts();
        let body = Body::stream(Received::new(received, &head.headers, Some(guard)));
        Ok(Answer::new(head, body))
    }

    fn failed(&self, error: &h2::Error) -> SendError {
        let refused = error.reason() == Some(Reason::REFUSED_STREAM)
            || error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR);
        SendError {
            kind: match refused {
                true => SendErrorKind::Refused,
                false => SendErrorKind::Reset,
            },
            what: self.why(error),
            call: None,
        }
    }

    /// A connection's own end says more than what its streams are told.
    fn why(&self, error: &h2::Error) -> String {
        match self.ended.why.borrow().as_ref() {
            Some(why) if !error.is_reset() => why.clone(),
            _ => error.to_string(),
        }
    }
}

/// Runs a connection until its end, or until its time is over.
async fn drive<T>(
    connection: Connection<Coalesce<T>, Bytes>,
    mut flusher: Flusher<T>,
    until: Option<(Instant, Instant)>,
    mark: &Ended,
) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let connection = async {
        tokio::select! {
            biased;
            result = connection => result.map_err(into_io),
            error = flusher.run() => Err(error),
        }
    };
    let Some((close, cut)) = until else {
        return connection.await;
    };
    let end = async {
        sleep_until(close).await;
        mark.ended.set(true);
        sleep_until(cut).await;
    };
    tokio::select! {
        result = connection => result,
        () = end => Ok(()),
    }
}

impl Warm for H2Client {
    fn is_ended(&self) -> bool {
        self.ended.ended.get()
    }

    fn has_room(&self) -> bool {
        self.streams.get() < self.sender.current_max_send_streams()
    }

    fn load(&self) -> usize {
        self.streams.get()
    }
}

/// Sends as much of a body as can be sent now, and the rest in a task. `broke`:
/// whether the stream was reset since the body broke, which is not the fault of
/// whom it was for.
async fn start_sending(
    body: Body,
    mut stream: SendStream<Bytes>,
    abort: Rc<Abort>,
    broke: Rc<Cell<bool>>,
) {
    let mut sending = Box::pin(async move {
        let stopped = {
            let mut sending = pin!(h2_body::send(body, &mut stream));
            poll_fn(|cx: &mut Context<'_>| {
                // First: the body is another try's already.
                if abort.poll(cx).is_ready() {
                    return Poll::Ready(true);
                }
                sending.as_mut().poll(cx).map(|sent| {
                    broke.set(matches!(sent, Sent::Broken));
                    false
                })
            })
            .await
        };
        if stopped {
            stream.send_reset(Reason::CANCEL);
        }
    });
    let pending = poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx).is_pending())).await;
    if pending {
        tokio::task::spawn_local(sending);
    }
}
