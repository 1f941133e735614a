//! Byte streams of the application.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use mesh_balance::{Outcome, Token};
use mesh_mux::StreamError;

use super::journal::Journal;
use super::{ClusterState, OutboundView, Pick};
use crate::cut::Cut;
use crate::flow::Flow;
use crate::lifecycle::{Member, Phase, at, reaches};
use crate::net::{Break, Socket};
use crate::peer::{ByteStream, Carried, Dialing};
use crate::relay::{Ended, Meter, relay};
use crate::worker::Worker;

/// How many instances are tried before the application hears of it.
const TRIES: usize = 4;

/// Carries a connection of the application to an instance.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    view: &OutboundView,
    socket: Socket,
    member: &Member,
) {
    let flow = Flow::begin(worker, view.cluster.streams().clone(), None);
    flow.watch();
    let mut socket = Journal::new(socket);
    let mut watch = member.watch();
    let mut tried = Vec::new();
    let mut meter = Counting {
        flow: &flow,
        again: Cell::new(0),
        carried: RefCell::default(),
    };
    let (pick, ended) = loop {
        let found = tokio::select! {
            found = connect(worker, &view.cluster, &meter, &mut tried) => found,
            () = reaches(&mut watch, Phase::Ended) => None,
        };
        let Some((pick, stream)) = found else {
            return socket.break_off();
        };
        let ended = tokio::select! {
            ended = carry(worker, &mut socket, stream, &meter) => ended,
            () = reaches(&mut watch, Phase::Ended) => Ended::Cut(Cut::Drained),
        };
        // The instance drains or is full, and has not looked at it.
        if was_turned_away(&ended)
            && let Some(again) = socket.rewind()
        {
            flow.set_reason("not taken by any instance");
            meter.again = Cell::new(again);
            pick.done(Outcome::Cancelled);
            continue;
        }
        flow.set_reason("");
        break (pick, ended);
    };
    let outcome = match ended {
        Ended::Whole => return pick.done(Outcome::Success),
        Ended::Idle => {
            flow.set_reason("idle for too long");
            Outcome::Success
        }
        Ended::Cut(why) => {
            flow.set_reason(why.why());
            Outcome::Success
        }
        Ended::Failed {
            caller: true,
            error,
        } => {
            flow.set_reason(format!("the application: {error}"));
            Outcome::Success
        }
        Ended::Failed {
            caller: false,
            error,
        } => {
            flow.set_reason(error.to_string());
            Outcome::Reset
        }
    };
    socket.break_off();
    pick.done(outcome);
}

fn was_turned_away(ended: &Ended) -> bool {
    match ended {
        Ended::Failed {
            caller: false,
            error,
        } => StreamError::of(error).is_some_and(StreamError::is_safe_to_retry),
        _ => false,
    }
}

async fn carry(
    worker: &Worker,
    socket: &mut Journal,
    stream: ByteStream,
    meter: &Counting<'_>,
) -> Ended {
    let idle = worker.shared.options.limits.stream_idle;
    let cut = meter.flow.cut_cell();
    match stream {
        ByteStream::Mux(mut stream) => relay(socket, &mut stream, idle, cut, meter).await,
        ByteStream::Plain(mut stream, cut_at) => {
            let linked = stream.get_ref().0.linked();
            let link = linked.map(|linked| linked.link().clone());
            let revoked = poll_fn(|cx| match &link {
                Some(link) => link.cut_cell().poll(cx),
                None => Poll::Pending,
            });
            tokio::select! {
                ended = relay(socket, &mut *stream, idle, cut, meter) => ended,
                () = at(cut_at) => Ended::Cut(Cut::Expired),
                why = revoked => Ended::Cut(why),
            }
        }
    }
}

/// Counts bytes, but none twice.
struct Counting<'a> {
    flow: &'a Flow,
    /// How many bytes come that were counted already.
    again: Cell<usize>,
    /// Its part in the connection that carries it, where others share that.
    carried: RefCell<Option<Carried>>,
}

impl Counting<'_> {
    fn passed(&self, bytes: usize) {
        if let Some(carried) = &*self.carried.borrow() {
            carried.passed(bytes);
        }
    }
}

impl Meter for Counting<'_> {
    fn caller_sent(&self, bytes: usize) {
        self.passed(bytes);
        let again = self.again.get().min(bytes);
        self.again.set(self.again.get() - again);
        self.flow.caller_sent(bytes - again);
    }

    fn caller_got(&self, bytes: usize) {
        self.passed(bytes);
        self.flow.caller_got(bytes);
    }
}

/// A stream to an instance that takes it.
async fn connect(
    worker: &Worker,
    cluster: &Rc<ClusterState>,
    meter: &Counting<'_>,
    tried: &mut Vec<Token>,
) -> Option<(Pick, ByteStream)> {
    let flow = meter.flow;
    let config = cluster.config();
    let dialing = Dialing {
        worker,
        name: &config.sni,
        limit: config.connect_timeout,
    };
    let service = &config.service;
    while tried.len() < TRIES {
        let Some(pick) = cluster.pick(tried, worker.now()) else {
            flow.set_reason(super::attempt::no_instance(&config));
            return None;
        };
        let token = pick.token();
        if token.is_some_and(|token| tried.contains(&token)) {
            return None; // all were tried, and the reason of the last one stands
        }
        tried.extend(token);
        flow.set_instance(pick.id());
        let peer = &pick.instance().peer;
        match peer.stream(&dialing, &meter.carried).await {
            Ok(stream) => {
                pick.connected(worker.now());
                return Some((pick, stream));
            }
            Err(error) => {
                worker
                    .metrics
                    .connect_failed(&service.to_string(), error.kind.as_str());
                let instance = &pick.instance().endpoint;
                let reason = format!(
                    "{service}: instance {} at {}: {error}",
                    instance.id, instance.address
                );
                if let Some(kept_back) = worker.dials.may_say(std::time::Instant::now()) {
                    tracing::warn!(%reason, kept_back, "an instance did not take a connection");
                }
                flow.set_reason(reason);
                pick.done(Outcome::ConnectFailure);
            }
        }
    }
    None
}
