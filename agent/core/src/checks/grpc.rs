//! `grpc.health.v1.Health/Check`, by hand: one message each way (gRPC over HTTP/2, "Message
//! encoding"). A unary answer has a message only when its status is OK, so the message alone says
//! enough and the trailers need not be read.

use mesh_model::{CheckKind, Status};
use prost::Message;

use super::probe::{Network, Outcome, Target, reason};

/// The most of an answer that is read, in bytes.
const MAX_ANSWER: usize = 4 * 1024;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

pub(super) async fn probe(network: &Network, kind: &CheckKind) -> Outcome {
    let CheckKind::Grpc {
        address,
        service,
        tls,
        tls_server_name,
        tls_skip_verify,
    } = kind
    else {
        return Outcome::critical("not a gRPC check");
    };
    let scheme = if *tls { "https" } else { "http" };
    let url = format!("{scheme}://{address}/grpc.health.v1.Health/Check");
    let target = Target {
        url: &url,
        tls_server_name,
        skip_verify: *tls_skip_verify,
        http2: true,
    };
    match ask(network, &target, service).await {
        Ok(1) => Outcome {
            status: Status::Passing,
            output: format!("gRPC check {address}/{service}: SERVING"),
        },
        Ok(status) => {
            let word = match status {
                2 => "NOT_SERVING",
                3 => "SERVICE_UNKNOWN",
                _ => "UNKNOWN",
            };
            Outcome::critical(format!("gRPC check {address}/{service}: {word}"))
        }
        Err(why) => Outcome::critical(format!("gRPC check {address}/{service}: {why}")),
    }
}

async fn ask(network: &Network, target: &Target<'_>, service: &str) -> Result<i32, String> {
    let (client, url) = network.client(target).await?;
    let message = HealthCheckRequest {
        service: service.to_owned(),
    };
    let mut answer = client
        .post(url)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(frame(&message.encode_to_vec()))
        .send()
        .await
        .map_err(|e| reason(&e))?;
    if let Some(status) = header(&answer, "grpc-status").filter(|status| status != "0") {
        let message = header(&answer, "grpc-message").unwrap_or_default();
        return Err(format!("status {status} {message}"));
    }
    if !answer.status().is_success() {
        return Err(format!("HTTP {}", answer.status()));
    }
    let mut bytes = Vec::new();
    while bytes.len() < MAX_ANSWER {
        match answer.chunk().await.map_err(|e| reason(&e))? {
            Some(chunk) => bytes.extend_from_slice(&chunk),
            None => break,
        }
    }
    read(&bytes).ok_or_else(|| "the answer holds no health message".to_owned())
}

fn header(answer: &reqwest::Response, name: &str) -> Option<String> {
    Some(answer.headers().get(name)?.to_str().ok()?.to_owned())
}

/// Not compressed, the length, the message.
fn frame(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend(
        u32::try_from(message.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    out.extend_from_slice(message);
    out
}

fn read(bytes: &[u8]) -> Option<i32> {
    let (head, rest) = bytes.split_first_chunk::<5>()?;
    let [0, length @ ..] = head else {
        return None;
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let message = HealthCheckResponse::decode(rest.get(..length)?).ok()?;
    Some(message.status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames() {
        assert_eq!(frame(b"ab"), [0, 0, 0, 0, 2, b'a', b'b']);
        assert_eq!(read(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(read(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(read(&[1, 0, 0, 0, 2, 8, 1]), None);
        assert_eq!(read(&[0, 0, 0, 0, 9, 8, 1]), None);
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&bytes);
        }
    }
}
