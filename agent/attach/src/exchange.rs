//! One HTTP request over a connection that there is already.
//!
//! An agent's doors are asked once and by name; a client with pools, names and proxies of its own
//! would be more than that, and might go elsewhere than was meant.

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// What came is not HTTP.
    #[error("what answers does not speak HTTP: {0}")]
    NotHttp(String),
    /// The connection or the answer broke off, or the answer is too long.
    #[error("{0}")]
    Broken(String),
}

/// Asks once; the status of the answer and its body, which has at most `limit` bytes.
///
/// # Errors
/// When no whole answer came.
pub async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    mut request: Request<Full<Bytes>>,
    limit: usize,
) -> Result<(StatusCode, Bytes), ExchangeError> {
    let host = header::HeaderValue::from_static("localhost");
    request.headers_mut().entry(header::HOST).or_insert(host);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let driver = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(failed)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), limit)
        .collect()
        .await
        .map_err(|error| ExchangeError::Broken(error.to_string()))?
        .to_bytes();
    driver.abort();
    Ok((status, body))
}

fn failed(error: hyper::Error) -> ExchangeError {
    match error.is_parse() {
        true => ExchangeError::NotHttp(error.to_string()),
        false => ExchangeError::Broken(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Asks somebody who answers so, whatever it is asked.
    async fn asked(answer: &'static [u8]) -> Result<(StatusCode, Bytes), ExchangeError> {
        let (near, mut far) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\nbody") {
                seen.push(far.read_u8().await.unwrap());
            }
            let seen = String::from_utf8(seen).unwrap();
            assert!(seen.contains("host: localhost\r\n"), "{seen}");
            far.write_all(answer).await.unwrap();
        });
        let request = Request::post("/a").body(Full::from("body")).unwrap();
        exchange(near, request, 10).await
    }

    #[tokio::test]
    async fn an_answer_is_whole_or_none() {
        let (status, body) = asked(b"HTTP/1.1 404 No\r\ncontent-length: 2\r\n\r\nno")
            .await
            .unwrap();
        assert_eq!((status.as_u16(), &body[..]), (404, &b"no"[..]));
        let alert = asked(b"\x15\x03\x01\x00\x02\x02\x46").await;
        assert!(matches!(alert, Err(ExchangeError::NotHttp(_))), "{alert:?}");
        for (answer, why) in [
            (
                &b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nhello world"[..],
                "too long",
            ),
            (
                b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel",
                "broken off",
            ),
            (b"", "no answer"),
        ] {
            let got = asked(answer).await;
            assert!(
                matches!(got, Err(ExchangeError::Broken(_))),
                "{why}: {got:?}"
            );
        }
    }
}
