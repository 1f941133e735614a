//! An application for where there is no nginx: HTTP/1.1, and h2c for who
//! begins with its preface.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use crate::Failure;

/// How long the body of each answer is.
const BODY: usize = 1024;
/// What a connection of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI ";
/// Most bytes of a request's head.
const HEAD: usize = 64 * 1024;

pub(crate) fn run(address: &str) -> Result<Value, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await; // too many files
                continue;
            };
            tokio::task::spawn_local(async move {
                // A caller that goes away ends only its connection.
                let _ = connection(stream).await;
            });
        }
    })
}

async fn connection(stream: TcpStream) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    let mut start = [0; PREFACE.len()];
    let mut came = 0;
    while came < start.len() {
        came = stream.peek(&mut start).await?;
        if came == 0 {
            return Ok(());
        }
        if came < start.len() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    match start == PREFACE {
        true => http2(stream).await,
        false => http1(stream).await,
    }
}

async fn http1(mut stream: TcpStream) -> Result<(), Failure> {
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n{}",
        "x".repeat(BODY)
    );
    let mut buffer = vec![0; 64 * 1024];
    let mut head = Vec::new();
    loop {
        let bytes = stream.read(&mut buffer).await?;
        let Some(came) = buffer.get(..bytes).filter(|came| !came.is_empty()) else {
            return Ok(());
        };
        head.extend_from_slice(came);
        while let Some((end, length, close)) = request(&head)? {
            let mut missing = length.saturating_sub(head.len().saturating_sub(end));
            head.drain(..(end + length).min(head.len()));
            while missing > 0 {
                let most = missing.min(buffer.len());
                let bytes = stream
                    .read(buffer.get_mut(..most).unwrap_or_default())
                    .await?;
                if bytes == 0 {
                    return Ok(());
                }
                missing -= bytes;
            }
            stream.write_all(answer.as_bytes()).await?;
            if close {
                return Ok(());
            }
        }
        if head.len() > HEAD {
            return Ok(());
        }
    }
}

/// Where a head ends, how long its body is, and whether it is the last one.
fn request(bytes: &[u8]) -> Result<Option<(usize, usize, bool)>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(end) = request.parse(bytes)? else {
        return Ok(None);
    };
    let value = |name: &str| {
        let mut all = request.headers.iter();
        let found = all.find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let length = value("content-length").map_or(Ok(0), str::parse)?;
    let close = value("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(Some((end, length, close)))
}

async fn http2(stream: TcpStream) -> Result<(), Failure> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (request, mut respond) = request?;
        tokio::task::spawn_local(async move {
            let mut body = request.into_body();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
            }
            let mut response = Response::new(());
            let kind = HeaderValue::from_static("application/grpc");
            response.headers_mut().insert("content-type", kind);
            let Ok(mut stream) = respond.send_response(response, false) else {
                return;
            };
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            // A message of gRPC: not compressed, and its length.
            let mut message = vec![0, 0, 0, 4, 0];
            message.resize(message.len() + BODY, b'x');
            let _ = stream.send_data(Bytes::from(message), false);
            let _ = stream.send_trailers(trailers);
        });
    }
    Ok(())
}
