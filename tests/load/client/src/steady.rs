//! Traffic that goes on until standard input ends, whatever becomes of it.
//!
//! Requests at a constant rate, most on kept connections and some each on one of
//! its own, and byte streams on which something is always echoed. Nothing is
//! asked twice: what fails is counted, with its time and its reason, and the
//! next request is the next one. What the client itself is at fault for (no port,
//! no file, woken late) is counted apart.
//!
//! Each second a line of JSON tells what there was until then, and the failures
//! since the line before. The last line has the quantiles.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::exchange::request;
use crate::rate::at;
use crate::tally::{Kind, Tally, Told};
use crate::{Failure, Options};

/// How long an answer may take, or an echo.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long after its end a stream is opened again.
const AGAIN: Duration = Duration::from_millis(250);
/// The longest sleep, so that the end is noticed.
const NAP: Duration = Duration::from_millis(200);
/// Bytes of one echo.
const BLOCK: usize = 256;
/// Most bytes of an answer that are looked at.
const ANSWER: usize = 64 * 1024;

struct Plan {
    http: String,
    tcp: String,
    pause: Duration,
    start: Instant,
    tally: Tally,
    ends: AtomicBool,
}

pub(crate) fn run(address: &str, options: &Options) -> Result<Value, Failure> {
    let connections = options.number("connections", 40)?.clamp(1, 1024);
    let fresh = options.number("fresh", 50)?.min(1000);
    let kept = options.number("per-second", 1000)?.saturating_sub(fresh);
    let streams = options.number("streams", 50)?.min(1024);
    let plan = Arc::new(Plan {
        http: address.to_owned(),
        tcp: options.text("tcp").unwrap_or_default().to_owned(),
        pause: Duration::from_millis(options.number("pause-ms", 100)? as u64),
        start: Instant::now() + Duration::from_millis(20),
        tally: Tally::default(),
        ends: AtomicBool::new(false),
    });
    let mut threads = Vec::new();
    for number in 0..connections.min(kept) {
        let every = Duration::from_secs_f64(connections.min(kept) as f64 / kept as f64);
        let plan = plan.clone();
        let first = every.mul_f64(number as f64 / connections as f64);
        threads.push(thread::spawn(move || ask(&plan, Kind::Kept, first, every)));
    }
    // As many threads as there may be slow answers at once.
    let askers = connections.min(fresh);
    for number in 0..askers {
        let every = Duration::from_secs_f64(askers as f64 / fresh as f64);
        let plan = plan.clone();
        let first = every.mul_f64(number as f64 / askers as f64);
        threads.push(thread::spawn(move || ask(&plan, Kind::Fresh, first, every)));
    }
    for number in 0..streams {
        let plan = plan.clone();
        threads.push(thread::spawn(move || echo(&plan, number)));
    }
    let ender = plan.clone();
    thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        ender.ends.store(true, Ordering::Relaxed);
    });
    let mut next = plan.start;
    while !plan.ends.load(Ordering::Relaxed) {
        next += Duration::from_secs(1);
        if plan.sleep_until(next) {
            println!("{}", Value::from(plan.tally.line()));
        }
    }
    for thread in threads {
        thread.join().map_err(|_| "a thread ended badly")?;
    }
    let seconds = plan.start.elapsed().as_secs_f64();
    let mut line = plan.tally.line();
    let mut told = plan.tally.told();
    told.latencies.sort_unstable();
    told.echoes.sort_unstable();
    told.wakes.sort_unstable();
    let Told {
        latencies,
        echoes,
        wakes,
    } = &told;
    for (name, value) in [
        ("seconds", seconds),
        ("per_second", latencies.len() as f64 / seconds),
        ("p50_us", at(latencies, 0.5)),
        ("p99_us", at(latencies, 0.99)),
        ("max_us", at(latencies, 1.0)),
        ("echo_p99_us", at(echoes, 0.99)),
        ("echo_max_us", at(echoes, 1.0)),
        ("woken_late_p99_us", at(wakes, 0.99)),
        ("woken_late_max_us", at(wakes, 1.0)),
    ] {
        line.insert(name.to_owned(), value.into());
    }
    line.insert("last".to_owned(), true.into());
    Ok(line.into())
}

impl Plan {
    /// Whether it was slept until then, and not until the end of all.
    fn sleep_until(&self, when: Instant) -> bool {
        loop {
            if self.ends.load(Ordering::Relaxed) {
                return false;
            }
            let left = when.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(NAP));
        }
    }
}

/// Requests at their times, each on the same connection or each on its own.
fn ask(plan: &Plan, kind: Kind, first: Duration, every: Duration) {
    let _ = nix::sys::prctl::set_timerslack(1);
    let bytes = request(&plan.http, "/", 0, kind == Kind::Fresh);
    let mut kept = None;
    let mut planned = plan.start + first;
    let mut free = plan.start;
    while plan.sleep_until(planned) {
        plan.tally.woken(free.max(planned).elapsed());
        match one(&mut kept, &plan.http, &bytes) {
            Ok(()) => plan.tally.answered(kind, planned.elapsed()),
            Err(error) => {
                kept = None;
                plan.tally.failed(kind, &error);
            }
        }
        free = Instant::now();
        planned += every;
    }
}

/// One request and its answer. The connection stays where both ends want that.
fn one(kept: &mut Option<TcpStream>, address: &str, request: &[u8]) -> io::Result<()> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => connect(address)?,
    };
    stream.write_all(request).map_err(when("sending"))?;
    let mut came = Vec::new();
    let mut buffer = [0; 8 * 1024];
    loop {
        let bytes = stream.read(&mut buffer).map_err(when("waiting"))?;
        if bytes == 0 {
            return Err(io::Error::other("closed before the answer was whole"));
        }
        came.extend_from_slice(buffer.get(..bytes).unwrap_or_default());
        if let Some(stays) = answer(&came)? {
            *kept = stays.then_some(stream);
            return Ok(());
        }
        if came.len() > ANSWER {
            return Err(io::Error::other("an answer that is too long"));
        }
    }
}

/// Whether an answer is whole, and then whether the connection stays.
fn answer(bytes: &[u8]) -> io::Result<Option<bool>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes).map_err(io::Error::other)?;
    let httparse::Status::Complete(end) = parsed else {
        return Ok(None);
    };
    let value = |name: &str| {
        let mut all = response.headers.iter();
        let found = all.find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let length = value("content-length").and_then(|text| text.trim().parse::<usize>().ok());
    let length = length.ok_or_else(|| io::Error::other("an answer without Content-Length"))?;
    let body = bytes.get(end..).unwrap_or_default();
    if body.len() < length {
        return Ok(None);
    }
    match response.code {
        Some(200) if body.len() == length => {}
        Some(200) => return Err(io::Error::other("more bytes than the answer has")),
        code => {
            let text = String::from_utf8_lossy(body);
            let line: String = text.trim().chars().take(300).collect();
            let code = code.unwrap_or_default();
            return Err(io::Error::other(format!("{code}: {line}")));
        }
    }
    let close = value("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(Some(!close))
}

/// A stream on which block after block comes back, and again when it ended.
fn echo(plan: &Plan, number: usize) {
    let mut turn = 0_u64;
    while !plan.ends.load(Ordering::Relaxed) {
        let mut whole = false;
        let ended = connect(&plan.tcp).and_then(|mut stream| {
            let ended = echoes(plan, &mut stream, number, &mut turn, &mut whole);
            if whole {
                plan.tally.closed();
            }
            ended
        });
        if let Err(error) = ended {
            let kind = match whole {
                true => Kind::Stream,
                false => Kind::Opening,
            };
            plan.tally.failed(kind, &error);
            plan.sleep_until(Instant::now() + AGAIN);
        }
    }
}

/// Until the end of all, or the first thing that is wrong.
fn echoes(
    plan: &Plan,
    stream: &mut TcpStream,
    number: usize,
    turn: &mut u64,
    whole: &mut bool,
) -> io::Result<()> {
    let mut came = [0; BLOCK];
    let mut began = Instant::now();
    loop {
        *turn += 1;
        let sent = block(number as u64, *turn);
        stream.write_all(&sent).map_err(when("sending"))?;
        stream.read_exact(&mut came).map_err(when("waiting"))?;
        if came != sent {
            return Err(io::Error::other("other bytes came back"));
        }
        if !std::mem::replace(whole, true) {
            plan.tally.opened();
        }
        plan.tally.echoed(began.elapsed());
        if !plan.sleep_until(Instant::now() + plan.pause) {
            break;
        }
        began = Instant::now();
    }
    // Its end comes back, too.
    stream
        .shutdown(Shutdown::Write)
        .map_err(when("finishing"))?;
    match stream.read(&mut came).map_err(when("finishing"))? {
        0 => Ok(()),
        _ => Err(io::Error::other("more bytes came than were sent")),
    }
}

/// Bytes that no other stream has, and none of this one before.
fn block(number: u64, turn: u64) -> [u8; BLOCK] {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ turn;
    let mut bytes = [0; BLOCK];
    for part in bytes.chunks_mut(8) {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        part.copy_from_slice(state.to_le_bytes().get(..part.len()).unwrap_or_default());
    }
    bytes
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).map_err(when("connecting"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Says at what it failed; the kind of error stays.
fn when(what: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| {
        let said = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("{what}: nothing within {} s", PATIENCE.as_secs())
            }
            io::ErrorKind::UnexpectedEof => format!("{what}: closed"),
            _ => format!("{what}: {error}"),
        };
        match is_own(&error) {
            true => io::Error::new(io::ErrorKind::AddrNotAvailable, said),
            false => io::Error::new(error.kind(), said),
        }
    }
}

/// Whether the client's own machine had no port or no file for it.
pub(crate) fn is_own(error: &io::Error) -> bool {
    let no_file = [nix::libc::EMFILE, nix::libc::ENFILE, nix::libc::ENOBUFS];
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error
            .raw_os_error()
            .is_some_and(|code| no_file.contains(&code))
}
