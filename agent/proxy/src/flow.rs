//! One byte stream under way: what is known and counted of it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use mesh_policy::Decider;

use crate::cut::{Cut, CutCell};
use crate::inbound::Caller;
use crate::relay::Meter;
use crate::telemetry::{Opened, StreamRecord, StreamSeries};
use crate::worker::Worker;

/// One byte stream; it is counted and logged when it goes.
pub(crate) struct Flow {
    worker: Rc<Worker>,
    series: Rc<StreamSeries>,
    _opened: Opened,
    /// Of a stream from another sidecar: who asks.
    caller: Option<Rc<Caller>>,
    began: Instant,
    from_caller: Cell<u64>,
    to_caller: Cell<u64>,
    instance: RefCell<Option<Arc<str>>>,
    reason: RefCell<String>,
    denied: Cell<bool>,
    cut: CutCell,
    place: Cell<Option<usize>>,
}

impl Flow {
    pub(crate) fn begin(
        worker: &Rc<Worker>,
        series: Rc<StreamSeries>,
        caller: Option<Rc<Caller>>,
    ) -> Rc<Self> {
        worker.live.open(series.direction()).stream_began();
        let flow = Rc::new(Self {
            worker: worker.clone(),
            _opened: series.opened(),
            series,
            caller,
            began: Instant::now(),
            from_caller: Cell::new(0),
            to_caller: Cell::new(0),
            instance: RefCell::default(),
            reason: RefCell::default(),
            denied: Cell::new(false),
            cut: CutCell::default(),
            place: Cell::new(None),
        });
        if flow.caller.is_some() {
            flow.watch();
        }
        flow
    }

    /// Lets it be ended with all that goes through the mesh. One from another sidecar is
    /// watched from its beginning.
    pub(crate) fn watch(self: &Rc<Self>) {
        self.place.set(Some(self.worker.live.add_flow(self)));
        if self.worker.has_expired() {
            self.cut.cut(Cut::OwnExpired);
        }
    }

    pub(crate) fn caller(&self) -> Option<&Rc<Caller>> {
        self.caller.as_ref()
    }

    pub(crate) fn cut_cell(&self) -> &CutCell {
        &self.cut
    }

    pub(crate) fn set_instance(&self, id: &Arc<str>) {
        *self.instance.borrow_mut() = Some(id.clone());
    }

    pub(crate) fn set_reason(&self, reason: impl Into<String>) {
        *self.reason.borrow_mut() = reason.into();
    }

    /// Ends it because the caller's certificate is revoked.
    pub(crate) fn revoked(&self) {
        self.cut.cut(Cut::Revoked);
    }

    /// Ends it, or never lets it begin, because an intention denies it.
    pub(crate) fn deny(&self, by: Decider) {
        if self.denied.replace(true) {
            return;
        }
        self.set_reason(format!("denied by {by}"));
        let (source, destination) = (self.series.source(), self.series.destination());
        let intention = intention_of(&by);
        self.worker.metrics.denied(source, destination, &intention);
        let reason = self.reason.borrow();
        let worker = &self.worker;
        worker.say_denied(source, destination, "a byte stream", &reason);
        drop(reason);
        self.cut.cut(Cut::Denied);
    }
}

/// The intention that decided, as a label.
pub(crate) fn intention_of(by: &Decider) -> String {
    match by {
        Decider::Intention {
            source,
            destination,
            ..
        }
        | Decider::Permission {
            source,
            destination,
            ..
        }
        | Decider::NoPermission {
            source,
            destination,
            ..
        }
        | Decider::ByteStream {
            source,
            destination,
        }
        | Decider::NotUnderstood {
            pair: Some((source, destination)),
        } => format!("{source} => {destination}"),
        Decider::Default { .. } => "default".to_owned(),
        Decider::NotUnderstood { pair: None } => "not understood".to_owned(),
    }
}

impl Meter for Flow {
    fn caller_sent(&self, bytes: usize) {
        self.from_caller.set(self.from_caller.get() + bytes as u64);
        self.series.request_bytes.add(bytes as u64);
    }

    fn caller_got(&self, bytes: usize) {
        self.to_caller.set(self.to_caller.get() + bytes as u64);
        self.series.response_bytes.add(bytes as u64);
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        if let Some(place) = self.place.get() {
            self.worker.live.remove_flow(place);
        }
        self.worker
            .live
            .open(self.series.direction())
            .stream_ended();
        if !self.worker.log.is_on() {
            return;
        }
        let instance = self.instance.borrow();
        self.worker.log.stream(&StreamRecord {
            direction: self.series.direction(),
            source: self.series.source(),
            destination: self.series.destination(),
            instance: instance.as_deref().unwrap_or_default(),
            duration: self.began.elapsed(),
            request_bytes: self.from_caller.get(),
            response_bytes: self.to_caller.get(),
            denied: self.denied.get(),
            reason: &self.reason.borrow(),
        });
    }
}
