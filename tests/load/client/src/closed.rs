//! Requests one after the other on each connection.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::exchange::{Answer, request};
use crate::{Failure, Options};

/// Size of a read.
const READ: usize = 256 * 1024;

#[derive(Default)]
struct Counts {
    answered: Cell<u64>,
    bytes: Cell<u64>,
    failed: Cell<u64>,
    failure: RefCell<String>,
}

pub(crate) fn run(address: &str, options: &Options) -> Result<Value, Failure> {
    let connections = options.number("connections", 64)?;
    let body = options.number("body", 0)?;
    load(address, options, connections, body, options.is("close"))
}

/// Large bodies on one connection.
pub(crate) fn get(address: &str, options: &Options) -> Result<Value, Failure> {
    load(address, options, 1, 0, false)
}

fn load(
    address: &str,
    options: &Options,
    connections: usize,
    body: usize,
    close: bool,
) -> Result<Value, Failure> {
    let seconds = options.seconds()?;
    let request: Rc<[u8]> = request(address, options.path(), body, close).into();
    let counts = Rc::new(Counts::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = LocalSet::new();
    let began = Instant::now();
    let end = began + seconds;
    for _ in 0..connections {
        let (address, request, counts) = (address.to_owned(), request.clone(), counts.clone());
        local.spawn_local(async move {
            while Instant::now() < end {
                if let Err(error) = connection(&address, &request, close, end, &counts).await {
                    counts.failed.set(counts.failed.get() + 1);
                    *counts.failure.borrow_mut() = error.to_string();
                    // A place that refuses is not asked without end.
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        });
    }
    runtime.block_on(async {
        tokio::select! {
            () = local => {}
            // What hangs is not answered.
            () = tokio::time::sleep_until((end + seconds).into()) => {}
        }
    });
    let took = began.elapsed().as_secs_f64();
    Ok(json!({
        "requests": counts.answered.get(),
        "failed": counts.failed.get(),
        "failure": *counts.failure.borrow(),
        "seconds": took,
        "per_second": counts.answered.get() as f64 / took,
        "bytes": counts.bytes.get(),
    }))
}

async fn connection(
    address: &str,
    request: &[u8],
    close: bool,
    end: Instant,
    counts: &Counts,
) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; READ];
    let mut answer = Answer::default();
    loop {
        stream.write_all(request).await?;
        let mut whole = false;
        while !whole {
            let bytes = stream.read(&mut buffer).await?;
            if bytes == 0 {
                return Err("the connection ended before its answer".into());
            }
            whole = answer.take(buffer.get(..bytes).unwrap_or_default())?;
            counts.bytes.set(counts.bytes.get() + bytes as u64);
            if !whole && Instant::now() >= end && answer.body > 0 {
                return Ok(()); // a large body that is measured by its bytes
            }
        }
        answer.body = 0;
        counts.answered.set(counts.answered.get() + 1);
        if close || Instant::now() >= end {
            return Ok(());
        }
    }
}
