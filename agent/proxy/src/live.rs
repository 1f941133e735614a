//! What is under way on a worker: to count it, to look at it again when the
//! policy changes, and to know when nothing is left.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use mesh_policy::RequestFacts;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::cut::Cut;
use crate::exchange::{ARMED_AFTER, Exchange};
use crate::flow::Flow;
use crate::http::Lookup;
use crate::link::Links;
use crate::plane::{Current, Drained};
use crate::slots::Slots;
use crate::telemetry::Direction;

/// What is under way on a worker.
#[derive(Default)]
pub(crate) struct Live {
    /// The connections to other sidecars.
    pub(crate) links: Rc<Links>,
    inbound: Open,
    outbound: Open,
    exchanges: RefCell<Slots<Weak<Exchange>>>,
    flows: RefCell<Slots<Weak<Flow>>>,
    /// A request has a deadline that nobody waits for yet.
    unarmed: Cell<bool>,
    deadline_set: Notify,
}

/// How much is under way in a direction.
#[derive(Default)]
pub(crate) struct Open {
    requests: Cell<usize>,
    streams: Cell<usize>,
    /// Something began since it was last asked.
    began: Cell<bool>,
    changed: Notify,
}

impl Open {
    pub(crate) fn request_began(&self) {
        self.requests.set(self.requests.get() + 1);
        self.began.set(true);
    }

    pub(crate) fn request_ended(&self) {
        self.requests.set(self.requests.get().saturating_sub(1));
        self.tell();
    }

    pub(crate) fn stream_began(&self) {
        self.streams.set(self.streams.get() + 1);
        self.began.set(true);
    }

    pub(crate) fn stream_ended(&self) {
        self.streams.set(self.streams.get().saturating_sub(1));
        self.tell();
    }

    fn tell(&self) {
        if self.is_quiet() {
            self.changed.notify_waiters();
        }
    }

    fn is_quiet(&self) -> bool {
        self.requests.get() == 0 && self.streams.get() == 0
    }

    /// Waits until nothing is under way.
    pub(crate) async fn quiet(&self) {
        while !self.is_quiet() {
            self.changed.notified().await;
        }
    }

    pub(crate) fn count(&self) -> Drained {
        Drained {
            requests: self.requests.get(),
            streams: self.streams.get(),
        }
    }
}

impl Live {
    pub(crate) fn open(&self, direction: Direction) -> &Open {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }

    /// Whether a request or stream began since this was last asked.
    pub(crate) fn take_began(&self) -> bool {
        self.inbound.began.take() | self.outbound.began.take()
    }

    pub(crate) fn add_exchange(&self, exchange: &Rc<Exchange>) -> usize {
        self.exchanges.borrow_mut().insert(Rc::downgrade(exchange))
    }

    pub(crate) fn remove_exchange(&self, place: usize) {
        self.exchanges.borrow_mut().remove(place);
    }

    pub(crate) fn add_flow(&self, flow: &Rc<Flow>) -> usize {
        self.flows.borrow_mut().insert(Rc::downgrade(flow))
    }

    pub(crate) fn remove_flow(&self, place: usize) {
        self.flows.borrow_mut().remove(place);
    }

    /// A request has a deadline that is far.
    pub(crate) fn deadline_set(&self) {
        if !self.unarmed.replace(true) {
            self.deadline_set.notify_one();
        }
    }

    /// Has the deadlines of the requests waited for that have been under way for a while. Most are
    /// over by then. It does not end.
    pub(crate) async fn arm_deadlines(&self) {
        loop {
            self.deadline_set.notified().await;
            sleep(ARMED_AFTER).await;
            self.unarmed.set(false);
            for exchange in self.all_exchanges() {
                exchange.arm();
            }
        }
    }

    /// Cuts all that goes through the mesh, in both directions.
    pub(crate) fn cut_all(&self, why: Cut) {
        for flow in self.all_flows() {
            flow.cut_cell().cut(why);
        }
        for exchange in self.all_exchanges() {
            exchange.cut(why);
        }
    }

    // Collected: the last that holds one takes it out of here.
    fn all_flows(&self) -> Vec<Rc<Flow>> {
        let flows = self.flows.borrow();
        flows.iter().filter_map(Weak::upgrade).collect()
    }

    fn all_exchanges(&self) -> Vec<Rc<Exchange>> {
        let exchanges = self.exchanges.borrow();
        exchanges.iter().filter_map(Weak::upgrade).collect()
    }

    /// Cuts what came from other sidecars and is denied now, or came over a
    /// connection that was cut.
    pub(crate) fn check_again(&self, current: &Current) {
        for flow in self.all_flows() {
            let Some(caller) = flow.caller() else {
                continue;
            };
            if caller.is_cut() {
                flow.revoked();
                continue;
            }
            let decision = caller.policy(current).stream(&caller.key);
            if !decision.is_allowed() {
                flow.deny(decision.by);
            }
        }
        for exchange in self.all_exchanges() {
            check_exchange(&exchange, current);
        }
    }
}

fn check_exchange(exchange: &Exchange, current: &Current) {
    let Some(asked) = exchange.asked() else {
        return;
    };
    if exchange.cut_cell().get().is_some() {
        return; // it is ending
    }
    if asked.caller.is_cut() {
        exchange.set_reason(Cut::Revoked.why());
        exchange.cut(Cut::Revoked);
        return;
    }
    // Headers are kept only where they mattered when the request began. Where
    // they matter now and are gone, nothing can be known, and that means no.
    let missing = Missing::default();
    let lookup;
    let headers: &dyn mesh_policy::HeaderLookup = match &asked.headers {
        Some(headers) => {
            lookup = Lookup(headers);
            &lookup
        }
        None => &missing,
    };
    let decision = asked.caller.policy(current).request(
        asked.source(),
        &RequestFacts {
            method: exchange.method(),
            path: asked.path().path(),
            query: asked.path().query().unwrap_or_default(),
            headers,
        },
    );
    if !decision.is_allowed() || missing.was_asked.get() {
        exchange.denied(&decision.by);
        exchange.cut(Cut::Denied);
    }
}

/// Headers that were not kept.
#[derive(Default)]
struct Missing {
    was_asked: Cell<bool>,
}

impl mesh_policy::HeaderLookup for Missing {
    fn header(&self, _name: &str) -> Option<std::borrow::Cow<'_, str>> {
        self.was_asked.set(true);
        None
    }
}
