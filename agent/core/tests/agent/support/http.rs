//! A client for the agent's doors.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

pub async fn request(
    at: SocketAddr,
    method: &str,
    uri: &str,
    headers: &[(&str, &str)],
    body: String,
) -> Answer {
    let io = tokio::net::TcpStream::connect(at).await.unwrap();
    send(io, method, uri, headers, body).await
}

pub async fn request_unix(at: &Path, method: &str, uri: &str, body: String) -> Answer {
    let io = tokio::net::UnixStream::connect(at).await.unwrap();
    send(io, method, uri, &[], body).await
}

async fn send(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    method: &str,
    uri: &str,
    headers: &[(&str, &str)],
    body: String,
) -> Answer {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut request = hyper::Request::builder()
        .method(method)
        .uri(uri)
        .header("host", "agent");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    Answer {
        status,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}
