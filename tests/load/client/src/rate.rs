//! Requests at a constant rate.
//!
//! The times of all requests are fixed before the first: one that is late
//! because the one before took long counts its wait, as its user would
//! (a client that waits for answers leaves out just the requests that would
//! have waited). A thread for each connection, since a timer of a runtime is
//! too coarse for what is measured here.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::exchange::{Answer, request};
use crate::{Failure, Options};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(address: &str, options: &Options) -> Result<Value, Failure> {
    let connections = options.number("connections", 64)?.clamp(1, 1024);
    let rate = options.number("per-second", 2000)?.max(1);
    let seconds = options.seconds()?;
    let request = request(address, options.path(), 0, false);
    let mut streams = Vec::new();
    for _ in 0..connections {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // What the first request of a connection sets up is not measured.
        one(&mut stream, &request)?;
        streams.push(stream);
    }
    let between = Duration::from_secs_f64(1.0 / rate as f64);
    let count = (seconds.as_secs_f64() * rate as f64) as u32;
    let start = Instant::now() + Duration::from_millis(20);
    let mut threads = Vec::new();
    for (number, mut stream) in streams.into_iter().enumerate() {
        let request = request.clone();
        threads.push(thread::spawn(move || {
            // So that a sleep ends when it should, and not 50 µs later.
            let _ = nix::sys::prctl::set_timerslack(1);
            let mut latencies = Vec::new();
            let mut late = Vec::new();
            let mut failure = None;
            for turn in (number as u32..count).step_by(connections) {
                let planned = start + between * turn;
                thread::sleep(planned.saturating_duration_since(Instant::now()));
                late.push(planned.elapsed());
                match one(&mut stream, &request) {
                    Ok(()) => latencies.push(planned.elapsed()),
                    Err(error) => {
                        failure = Some(error.to_string());
                        break;
                    }
                }
            }
            (latencies, late, failure)
        }));
    }
    let (mut latencies, mut late, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for thread in threads {
        let (some, some_late, failure) = thread.join().map_err(|_| "a thread ended badly")?;
        latencies.extend(some);
        late.extend(some_late);
        failures.extend(failure);
    }
    let took = start.elapsed().as_secs_f64();
    latencies.sort_unstable();
    late.sort_unstable();
    Ok(json!({
        "requests": latencies.len(),
        "failed": count as usize - latencies.len(),
        "failure": failures.first().cloned().unwrap_or_default(),
        "seconds": took,
        "per_second": latencies.len() as f64 / took,
        "p50_us": at(&latencies, 0.5),
        "p90_us": at(&latencies, 0.9),
        "p99_us": at(&latencies, 0.99),
        "max_us": at(&latencies, 1.0),
        "late_p50_us": at(&late, 0.5),
    }))
}

fn one(stream: &mut TcpStream, request: &[u8]) -> Result<(), Failure> {
    stream.write_all(request)?;
    let mut buffer = [0; 16 * 1024];
    let mut answer = Answer::default();
    loop {
        let bytes = stream.read(&mut buffer)?;
        if bytes == 0 {
            return Err("the connection ended before its answer".into());
        }
        if answer.take(buffer.get(..bytes).unwrap_or_default())? {
            return Ok(());
        }
    }
}

/// A quantile of sorted times, in microseconds.
pub(crate) fn at(sorted: &[Duration], quantile: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let place = (quantile * last as f64).round() as usize;
    sorted
        .get(place)
        .map_or(0.0, |time| time.as_nanos() as f64 / 1000.0)
}
