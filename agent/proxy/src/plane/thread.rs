//! A worker's thread and runtime.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::{Command, Shared};
use crate::blocks::Keeps;
use crate::telemetry::WorkerTelemetry;
use crate::worker::Worker;

/// Starts a worker. It ends when its orders do.
///
/// # Panics
/// When the system gives no thread or no epoll instance: at the start, where
/// nothing can go on without.
pub(super) fn spawn(
    index: usize,
    shared: Arc<Shared>,
    telemetry: WorkerTelemetry,
) -> mpsc::UnboundedSender<Command> {
    let (orders, received) = mpsc::unbounded_channel();
    let run = move || {
        let _keeps = Keeps::begin();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a worker needs an epoll instance");
        let local = LocalSet::new();
        local.block_on(&runtime, async move {
            let worker = Rc::new(Worker::new(index, shared, telemetry));
            worker.run(received).await;
        });
    };
    std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(run)
        .expect("a worker needs a thread");
    orders
}
