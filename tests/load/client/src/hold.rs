//! Connections that are open and say nothing: after one request each, and its
//! answer, or without reading that.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::exchange::{Answer, request};
use crate::{Failure, Options};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(address: &str, options: &Options) -> Result<Value, Failure> {
    let connections = options.number("connections", 1000)?;
    let request = request(address, options.path(), 0, false);
    let read = options.text("read") != Some("no");
    let mut streams = Vec::new();
    for _ in 0..connections {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&request)?;
        streams.push(stream);
        // As many at once as a browser farm would, not a flood.
        if read && streams.len().is_multiple_of(100) {
            answers(&mut streams)?;
        }
    }
    if read {
        answers(&mut streams)?;
    }
    let open = json!({ "open": streams.len() });
    println!("{open}");
    let _ = std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(json!({ "closed": streams.len() }))
}

/// Reads the answers of those that have not got theirs.
fn answers(streams: &mut [TcpStream]) -> Result<(), Failure> {
    let first = streams.len().saturating_sub(100);
    for stream in streams.iter_mut().skip(first) {
        let mut buffer = [0; 16 * 1024];
        let mut answer = Answer::default();
        // Those of the batch before have theirs.
        if stream.read_timeout()?.is_none() {
            continue;
        }
        loop {
            let bytes = stream.read(&mut buffer)?;
            if bytes == 0 {
                return Err("a connection ended before its answer".into());
            }
            if answer.take(buffer.get(..bytes).unwrap_or_default())? {
                break;
            }
        }
        stream.set_read_timeout(None)?;
    }
    Ok(())
}
