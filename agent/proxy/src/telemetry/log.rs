//! Threads that write the logs, since standard output and error may block.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::AccessLog;

/// What may wait for a slow reader; what comes then is dropped, and counted.
const WAITING: usize = 256;

/// Where lines are handed over. Never blocks.
#[derive(Clone)]
pub(crate) struct LogWriter {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

type WriteLines = Box<dyn FnMut(&[u8]) + Send>;

enum Message {
    Lines(Vec<u8>),
    Flush(oneshot::Sender<()>),
}

impl LogWriter {
    /// Starts the thread; it ends with the last handle. `None`: there is no log.
    pub(crate) fn start(to: &AccessLog) -> Option<Self> {
        let write: WriteLines = match to.clone() {
            AccessLog::Off => return None,
            AccessLog::Stdout => Box::new(|lines| {
                let mut out = std::io::stdout().lock();
                // A reader that is gone is no reason to end.
                let _ = out.write_all(lines).and_then(|()| out.flush());
            }),
            AccessLog::To(write) => Box::new(move |lines| write(lines)),
        };
        Self::spawn("access-log", write).ok()
    }

    /// Starts a thread that writes to standard error.
    pub(crate) fn to_stderr() -> std::io::Result<Self> {
        let write = |lines: &[u8]| {
            let _ = std::io::stderr().write_all(lines);
        };
        Self::spawn("log", Box::new(write))
    }

    fn spawn(name: &str, write: WriteLines) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&receiver, write))?;
        Ok(Self {
            sender,
            dropped: Arc::default(),
        })
    }

    pub(crate) fn write(&self, lines: Vec<u8>, count: u64) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Message::Lines(lines)) {
            self.dropped.fetch_add(count, Relaxed);
        }
    }

    /// How many lines were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Waits until all that was handed over is written, at most so long.
    pub(crate) async fn flush(&self, limit: Duration) {
        let (done, is_done) = oneshot::channel();
        if self.sender.try_send(Message::Flush(done)).is_ok() {
            let _ = tokio::time::timeout(limit, is_done).await;
        }
    }
}

fn run(receiver: &Receiver<Message>, mut write: WriteLines) {
    while let Ok(message) = receiver.recv() {
        match message {
            Message::Lines(lines) => write(&lines),
            Message::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}
