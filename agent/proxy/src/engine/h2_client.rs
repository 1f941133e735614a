//! Calls over HTTP/2.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::request;
use http::response::Parts as Head;
use mesh_h2::{Connection, Reason, ResetBy};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::greeting::Greeted;
use super::h2_body::{self, Sending};
use super::h2_link::{Broken, Driver, Half, Link};
use super::{SendError, SendErrorKind, h2_config};
use crate::http::{Answer, Body, Call};
use crate::peer::Warm;

/// A connection to call on. Clones share it; when the last one goes it ends,
/// after its streams.
#[derive(Clone)]
pub(crate) struct H2Client(Rc<Caller>);

struct Caller(Rc<Link>);

/// Why a call has no answer, and its body if nothing of it was sent.
pub(crate) enum NoAnswer {
    Sent(SendError),
    Unsent(SendError, Body),
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.set_unused();
    }
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
        let connection = Connection::client(h2_config(header_bytes));
        let (mut driver, link) = Driver::new(io, connection);
        let client = Self(Rc::new(Caller(link.clone())));
        let (failed, has_failed) = oneshot::channel();
        tokio::task::spawn_local(async move {
            let result = drive(&mut driver, &link, until).await;
            driver.ended(result.as_ref().err().map(ToString::to_string));
            drop(driver);
            let _ = failed.send(result);
        });
        // Dropped with the connection when it fails before its first byte.
        if greeted.await.is_err() {
            return Err(match has_failed.await {
                Ok(Err(error)) => error,
                _ => io::ErrorKind::UnexpectedEof.into(),
            });
        }
        Ok(client)
    }

    /// Makes a call. The answer's body is what its stream still receives.
    pub(crate) async fn send(&self, call: Call) -> Result<Answer, SendError> {
        let Call { head, body, .. } = call;
        match self.ask(&head, body).await {
            Ok(answer) => Ok(answer),
            Err(NoAnswer::Sent(error)) => Err(error),
            Err(NoAnswer::Unsent(mut error, body)) => {
                error.call = Some(Box::new(Call {
                    head,
                    body,
                    upgrade: None,
                }));
                Err(error)
            }
        }
    }

    /// The same of a head that the caller may need again.
    pub(crate) async fn ask(&self, head: &request::Parts, body: Body) -> Result<Answer, NoAnswer> {
        let link = &self.0.0;
        let end = http_body::Body::is_end_stream(&body);
        let Some(key) = link.open(head, end).await else {
            let error = SendError {
                kind: SendErrorKind::Refused,
                what: self.why(Broken::Lost),
                call: None,
            };
            return Err(NoAnswer::Unsent(error, body));
        };
        let (reads, sends) = Half::both(link, key, true);
        if end {
            drop((sends, body));
        } else {
            start_sending(Sending::new(body, sends)).await;
        }
        match poll_fn(|cx| poll_head(&reads, cx)).await {
            Ok(head) => {
                let body = h2_body::received(reads, &head.headers, true);
                Ok(Answer::new(*head, body))
            }
            Err(broken) => Err(NoAnswer::Sent(self.failed(broken))),
        }
    }

    fn failed(&self, broken: Broken) -> SendError {
        let kind = match broken {
            Broken::By(ResetBy::Unprocessed(_) | ResetBy::Peer(Reason::REFUSED_STREAM)) => {
                SendErrorKind::Refused
            }
            Broken::By(_) | Broken::Lost => SendErrorKind::Reset,
            Broken::Body => SendErrorKind::Body,
        };
        SendError {
            kind,
            what: self.why(broken),
            call: None,
        }
    }

    /// A connection's own end says more than what its streams are told.
    fn why(&self, broken: Broken) -> String {
        match (broken, self.0.0.why()) {
            (Broken::Lost, Some(why)) => why,
            _ => broken.to_string(),
        }
    }
}

/// Waits for an answer's head.
fn poll_head(half: &Half, cx: &Context<'_>) -> Poll<Result<Box<Head>, Broken>> {
    let head = half.link.ends(half.key, |ends| {
        if let Some(head) = ends.head.take() {
            return Some(Ok(head));
        }
        if let Some(broken) = ends.broken {
            return Some(Err(broken));
        }
        ends.wait_to_read(cx);
        None
    });
    match head {
        None => Poll::Ready(Err(Broken::Lost)),
        Some(None) => Poll::Pending,
        Some(Some(head)) => Poll::Ready(head),
    }
}

/// Runs a connection until its end, or until its time is over.
async fn drive<T>(
    driver: &mut Driver<T>,
    link: &Link,
    until: Option<(Instant, Instant)>,
) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let connection = driver.run();
    let Some((close, cut)) = until else {
        return connection.await;
    };
    let end = async {
        sleep_until(close).await;
        link.end();
        sleep_until(cut).await;
    };
    tokio::select! {
        biased;
        result = connection => result,
        () = end => Ok(()),
    }
}

impl Warm for H2Client {
    fn is_ended(&self) -> bool {
        self.0.0.is_ended()
    }

    fn has_room(&self) -> bool {
        self.0.0.look().can_open()
    }

    fn load(&self) -> usize {
        self.0.0.look().open_streams()
    }

    fn is_clogged(&self) -> bool {
        self.0.0.look().is_clogged()
    }
}

/// Sends as much of a body as can be sent now, and the rest in a task.
async fn start_sending(mut sending: Sending) {
    let pending = poll_fn(|cx| Poll::Ready(sending.poll(cx).is_pending())).await;
    if pending {
        tokio::task::spawn_local(async move {
            poll_fn(|cx| sending.poll(cx)).await;
        });
    }
}
