//! Serves HTTP/2.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::coalesce::Coalesce;
use super::h2_body::{self, Received};
use super::{CONNECTION_WINDOW, RESETS, STREAM_WINDOW, ServeLimits};
use crate::http::{Body, Call, Handler};
use crate::lifecycle::Phase;

/// Serves a connection until it ends. Calls are made each in its own task.
pub(crate) async fn serve<T, H>(
    io: T,
    handler: Rc<H>,
    limits: &ServeLimits,
    mut phase: watch::Receiver<Phase>,
) -> Result<(), h2::Error>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Handler,
{
    let handshake = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(256 * 1024)
        .max_concurrent_reset_streams(RESETS)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(None)
        .handshake::<_, Bytes>(Coalesce::new(io));
    let mut connection = tokio::select! {
        connection = handshake => connection?,
        () = crate::lifecycle::reaches(&mut phase, Phase::Draining) => return Ok(()),
    };
    let far = || Instant::now() + std::time::Duration::from_secs(30 * 86_400);
    let (close_at, cut_at) = limits.until.unwrap_or_else(|| (far(), far()));
    let mut alarm = pin!(sleep_until(close_at));
    let mut closing = false;
    loop {
        tokio::select! {
            biased;
            next = connection.accept() => match next {
                Some(Ok((request, respond))) => {
                    let handler = handler.clone();
                    let headers = limits.headers;
                    tokio::task::spawn_local(stream(request, respond, handler, headers));
                }
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            () = crate::lifecycle::reaches(&mut phase, if closing { Phase::Ended } else { Phase::Draining }) => {
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
        }
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
