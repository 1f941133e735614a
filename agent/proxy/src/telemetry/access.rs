//! A line of JSON for each request and each connection.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use time::OffsetDateTime;

use super::LogWriter;

/// From this size on lines are handed over at once.
const BATCH: usize = 32 * 1024;
/// How long a line waits for others at most.
const WAIT: Duration = Duration::from_millis(50);

/// Which way a request goes, seen from the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    Inbound,
    Outbound,
}

impl Direction {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// What is said of a request.
pub(crate) struct HttpRecord<'a> {
    pub(crate) direction: Direction,
    pub(crate) source: &'a str,
    pub(crate) destination: &'a str,
    pub(crate) instance: &'a str,
    pub(crate) protocol: &'a str,
    pub(crate) method: &'a str,
    /// Without the query, which may hold secrets.
    pub(crate) path: &'a str,
    pub(crate) status: u16,
    pub(crate) duration: Duration,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) trace_id: &'a str,
    pub(crate) rule: &'a str,
    pub(crate) retries: u32,
    pub(crate) reason: &'a str,
}

/// What is said of a byte stream.
pub(crate) struct StreamRecord<'a> {
    pub(crate) direction: Direction,
    pub(crate) source: &'a str,
    pub(crate) destination: &'a str,
    pub(crate) instance: &'a str,
    pub(crate) duration: Duration,
    /// From the caller.
    pub(crate) request_bytes: u64,
    /// To the caller.
    pub(crate) response_bytes: u64,
    /// Whether it was denied before it began.
    pub(crate) denied: bool,
    pub(crate) reason: &'a str,
}

/// The log of one worker.
pub(crate) struct WorkerLog {
    writer: Option<LogWriter>,
    lines: Rc<Lines>,
}

#[derive(Default)]
struct Lines {
    text: RefCell<Vec<u8>>,
    count: Cell<u64>,
    /// Whether a task waits to hand over.
    waited_for: Cell<bool>,
}

impl WorkerLog {
    pub(crate) fn new(writer: Option<LogWriter>) -> Self {
        Self {
            writer,
            lines: Rc::default(),
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.writer.is_some()
    }

    pub(crate) fn http(&self, record: &HttpRecord<'_>) {
        self.line(|line| {
            line.text("direction", record.direction.as_str());
            line.text("source", record.source);
            line.text("destination", record.destination);
            line.some("instance", record.instance);
            line.text("protocol", record.protocol);
            line.text("method", record.method);
            line.text("path", record.path);
            line.number("status", record.status.into());
            line.millis("duration_ms", record.duration);
            line.number("request_bytes", record.request_bytes);
            line.number("response_bytes", record.response_bytes);
            line.text("trace_id", record.trace_id);
            line.some("rule", record.rule);
            if record.retries > 0 {
                line.number("retries", record.retries.into());
            }
            line.some("reason", record.reason);
        });
    }

    pub(crate) fn stream(&self, record: &StreamRecord<'_>) {
        self.line(|line| {
            line.text("direction", record.direction.as_str());
            line.text("source", record.source);
            line.text("destination", record.destination);
            line.some("instance", record.instance);
            line.text("protocol", "tcp");
            line.millis("duration_ms", record.duration);
            line.number("request_bytes", record.request_bytes);
            line.number("response_bytes", record.response_bytes);
            if record.denied {
                line.raw("denied", "true");
            }
            line.some("reason", record.reason);
        });
    }

    /// Hands over what there is.
    pub(crate) fn flush(&self) {
        if let Some(writer) = &self.writer {
            self.lines.hand_over(writer);
        }
    }

    fn line(&self, fill: impl FnOnce(&mut Line<'_>)) {
        let Some(writer) = &self.writer else { return };
        let mut text = self.lines.text.borrow_mut();
        text.push(b'{');
        let mut line = Line(&mut text);
        line.time();
        fill(&mut line);
        text.extend_from_slice(b"}\n");
        let length = text.len();
        drop(text);
        self.lines.count.set(self.lines.count.get() + 1);
        if length >= BATCH {
            self.lines.hand_over(writer);
        } else if !self.lines.waited_for.replace(true) {
            let (writer, lines) = (writer.clone(), self.lines.clone());
            tokio::task::spawn_local(async move {
                tokio::time::sleep(WAIT).await;
                lines.waited_for.set(false);
                lines.hand_over(&writer);
            });
        }
    }
}

impl Lines {
    fn hand_over(&self, writer: &LogWriter) {
        let mut text = self.text.borrow_mut();
        if !text.is_empty() {
            let size = text.len().max(1024);
            let lines = std::mem::replace(&mut *text, Vec::with_capacity(size));
            writer.write(lines, self.count.take());
        }
    }
}

/// Writes the members of one JSON object.
struct Line<'a>(&'a mut Vec<u8>);

impl Line<'_> {
    fn time(&mut self) {
        let now = OffsetDateTime::now_utc();
        let _ = write!(
            self.0,
            "\"time\":\"{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z\"",
            now.year(),
            u8::from(now.month()),
            now.day(),
            now.hour(),
            now.minute(),
            now.second(),
            now.millisecond()
        );
    }

    fn text(&mut self, name: &str, value: &str) {
        let _ = write!(self.0, ",\"{name}\":");
        let _ = serde_json::to_writer(&mut *self.0, value); // writing to memory
    }

    fn some(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.text(name, value);
        }
    }

    fn number(&mut self, name: &str, value: u64) {
        let _ = write!(self.0, ",\"{name}\":{value}");
    }

    fn millis(&mut self, name: &str, value: Duration) {
        let micros = value.as_micros();
        let _ = write!(self.0, ",\"{name}\":{}.{:03}", micros / 1000, micros % 1000);
    }

    fn raw(&mut self, name: &str, value: &str) {
        let _ = write!(self.0, ",\"{name}\":{value}");
    }
}
