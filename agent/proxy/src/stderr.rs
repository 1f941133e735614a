//! Standard error, for the log: JSON lines, and at the end what the process has
//! to say last.
//!
//! Workers log too, and whoever reads the other end of the pipe may have
//! stopped. So a thread of its own writes, lines that it cannot take are dropped
//! and counted, and nobody waits.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::Duration;

use crate::telemetry::LogWriter;

/// How long the last lines may take.
const LAST: Duration = Duration::from_secs(1);

/// There is one standard error; the metrics ask it what it lost.
static WRITER: OnceLock<LogWriter> = OnceLock::new();

/// Where log lines are written; it never blocks. Each `write` is taken wholly or
/// dropped.
#[derive(Clone)]
pub struct StandardError(LogWriter);

impl StandardError {
    /// Starts the thread that writes, once in a process.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start() -> io::Result<Self> {
        if let Some(writer) = WRITER.get() {
            return Ok(Self(writer.clone()));
        }
        let writer = LogWriter::to_stderr()?;
        Ok(Self(WRITER.get_or_init(|| writer).clone()))
    }

    /// Says this last, for people, and waits a moment until all is written.
    pub async fn end(&self, last: Option<&str>) {
        if let Some(last) = last {
            // What waits goes first.
            self.0.flush(LAST).await;
            self.0
                .write(format!("mesh-proxy: {last}\n").into_bytes(), 1);
        }
        self.0.flush(LAST).await;
    }
}

impl Write for StandardError {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write(line.to_vec(), 1);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines of the log that a slow reader lost.
pub(crate) fn dropped() -> Option<u64> {
    WRITER.get().map(LogWriter::dropped)
}
