//! One request and its answer over HTTP/1.1, whether the bytes come from a
//! blocking socket or another.

use crate::Failure;

/// Most headers of an answer.
const HEADERS: usize = 64;

/// The bytes of a request.
pub(crate) fn request(host: &str, path: &str, body: usize, close: bool) -> Vec<u8> {
    let connection = if close { "connection: close\r\n" } else { "" };
    let mut bytes = match body {
        0 => format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{connection}\r\n"),
        _ => format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\n{connection}content-length: {body}\r\n\r\n"
        ),
    }
    .into_bytes();
    bytes.resize(bytes.len() + body, b'x');
    bytes
}

/// An answer, as far as it has come.
#[derive(Default)]
pub(crate) struct Answer {
    head: Vec<u8>,
    /// What is missing of the body, once the head is there.
    missing: Option<u64>,
    pub(crate) body: u64,
}

impl Answer {
    /// Takes what was read. Says whether the answer is whole. An answer that is
    /// not 200 is an error.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        let missing = match self.missing {
            Some(missing) => self.take_body(missing, bytes.len())?,
            None => {
                self.head.extend_from_slice(bytes);
                let Some((end, length)) = head(&self.head)? else {
                    return Ok(false);
                };
                let rest = self.head.len() - end;
                self.head.clear();
                self.take_body(length, rest)?
            }
        };
        self.missing = Some(missing);
        if missing == 0 {
            self.missing = None;
        }
        Ok(missing == 0)
    }

    fn take_body(&mut self, missing: u64, came: usize) -> Result<u64, Failure> {
        let came = came as u64;
        self.body += came;
        missing
            .checked_sub(came)
            .ok_or_else(|| "more bytes than the answer has".into())
    }
}

/// Where the head ends, and how long the body is; `None` if it is not whole.
fn head(bytes: &[u8]) -> Result<Option<(usize, u64)>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(end) = response.parse(bytes)? else {
        return Ok(None);
    };
    if response.code != Some(200) {
        let shown = String::from_utf8_lossy(bytes);
        return Err(format!("not 200: {}", shown.lines().next().unwrap_or_default()).into());
    }
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .ok_or("an answer without Content-Length")?;
    let length = std::str::from_utf8(length.value)?.trim().parse()?;
    Ok(Some((end, length)))
}
