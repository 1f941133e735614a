//! Calls of gRPC's form on the streams of one HTTP/2 connection.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::{Failure, Options};

pub(crate) fn run(address: &str, options: &Options) -> Result<Value, Failure> {
    let streams = options.number("streams", 64)?;
    let seconds = options.seconds()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = h2::client::handshake(stream).await?;
        tokio::task::spawn_local(async move {
            let _ = connection.await; // its streams are told
        });
        let answered = Rc::new(Cell::new(0_u64));
        let failures = Rc::new(RefCell::new(Vec::new()));
        let began = Instant::now();
        let end = began + seconds;
        let mut tasks = Vec::new();
        for _ in 0..streams {
            let (sender, address) = (sender.clone(), address.to_owned());
            let (answered, failures) = (answered.clone(), failures.clone());
            tasks.push(tokio::task::spawn_local(async move {
                while Instant::now() < end {
                    match call(sender.clone(), &address).await {
                        Ok(()) => answered.set(answered.get() + 1),
                        Err(error) => {
                            failures.borrow_mut().push(error.to_string());
                            return;
                        }
                    }
                }
            }));
        }
        for task in tasks {
            task.await?;
        }
        let took = began.elapsed().as_secs_f64();
        Ok(json!({
            "requests": answered.get(),
            "failed": failures.borrow().len(),
            "failure": failures.borrow().first().cloned().unwrap_or_default(),
            "seconds": took,
            "per_second": answered.get() as f64 / took,
        }))
    })
}

async fn call(sender: SendRequest<Bytes>, address: &str) -> Result<(), Failure> {
    let mut sender = sender.ready().await?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{address}/load.Load/Call"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (answer, mut stream) = sender.send_request(request, false)?;
    // A message of gRPC: not compressed, and its length.
    stream.send_data(Bytes::from_static(b"\0\0\0\0\x04ping"), true)?;
    let answer = answer.await?;
    if answer.status() != 200 {
        return Err(format!("status {}", answer.status()).into());
    }
    let mut body = answer.into_body();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    let trailers = body.trailers().await?.ok_or("no trailers")?;
    match trailers.get("grpc-status") {
        Some(status) if status == "0" => Ok(()),
        other => Err(format!("grpc-status {other:?}").into()),
    }
}
