//! A worker.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::plane::{Command, Drained, Shared};
use crate::telemetry::WorkerTelemetry;

pub(crate) struct Worker {
    _shared: Arc<Shared>,
}

impl Worker {
    pub(crate) fn new(_index: usize, shared: Arc<Shared>, _telemetry: WorkerTelemetry) -> Self {
        Self { _shared: shared }
    }

    pub(crate) async fn run(self: Rc<Self>, mut orders: mpsc::UnboundedReceiver<Command>) {
        while let Some(order) = orders.recv().await {
            match order {
                Command::Apply { done, .. } => drop(done.send(())),
                Command::DrainInbound { done, .. } | Command::DrainOutbound { done, .. } => {
                    drop(done.send(Drained::default()))
                }
            }
        }
    }
}
