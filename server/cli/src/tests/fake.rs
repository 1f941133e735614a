//! A server of canned answers, which remembers what it was asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::{Value, json};

/// The server; it ends with the test's runtime.
pub(super) struct Fake {
    pub(super) address: String,
    shared: Arc<Shared>,
}

/// Status and body.
type Canned = (u16, Vec<u8>);

#[derive(Default)]
struct Shared {
    /// By `METHOD path?query`; of several the next one each time, then the
    /// last again.
    answers: Mutex<HashMap<String, Vec<Canned>>>,
    asked: Mutex<Vec<String>>,
}

impl Fake {
    pub(super) async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let app = Router::new().fallback(answer).with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, shared }
    }

    /// What is answered to `METHOD path?query`.
    pub(super) fn on(&self, question: &str, answer: Value) -> &Self {
        self.raw(question, 200, answer.to_string().into_bytes())
    }

    pub(super) fn fails(&self, question: &str, status: u16, error: Value) -> &Self {
        let mut error = error;
        error["request_id"] = json!("req-1");
        self.raw(
            question,
            status,
            json!({ "error": error }).to_string().into_bytes(),
        )
    }

    pub(super) fn raw(&self, question: &str, status: u16, body: Vec<u8>) -> &Self {
        let mut answers = self
            .shared
            .answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        answers
            .entry(question.to_owned())
            .or_default()
            .push((status, body));
        self
    }

    /// What was asked since the last time.
    pub(super) fn take(&self) -> Vec<String> {
        let mut asked = self
            .shared
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut asked)
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Vec<u8>) {
    let question = format!("{method} {uri}");
    let mut line = question.clone();
    if let Some(owner) = headers.get("x-meshctl-owner") {
        line.push_str(&format!(" owner={}", owner.to_str().unwrap()));
    }
    if !body.is_empty() {
        let text = String::from_utf8_lossy(&body);
        match serde_json::from_str::<Value>(&text) {
            Ok(json) => {
                assert_eq!(headers["content-type"], "application/json");
                line.push_str(&format!(" {json}"));
            }
            Err(_) => line.push_str(&format!(" ({} bytes)", body.len())),
        }
    }
    shared
        .asked
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(line);
    let mut answers = shared
        .answers
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let found = answers.get_mut(&question).map(|queue| match queue.len() {
        0 | 1 => queue.first().cloned().unwrap(),
        _ => queue.remove(0),
    });
    let (status, body) = found.unwrap_or_else(|| {
        let error = json!({"error": {"code": "no_such_route", "message": format!("no answer for {question}"), "request_id": "req-0"}});
        (404, error.to_string().into_bytes())
    });
    (StatusCode::from_u16(status).unwrap(), body)
}
