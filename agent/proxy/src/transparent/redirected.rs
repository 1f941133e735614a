//! A connection that the kernel redirected, on a worker.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_model::{Key, VirtualAddress};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Answers, Want};
use crate::cut::Cut;
use crate::flow::Flow;
use crate::lifecycle::{Member, Phase, reaches};
use crate::listening::Listening;
use crate::net::{self, Break, Socket};
use crate::outbound;
use crate::relay::{Ended, relay};
use crate::telemetry::{Direction, StreamSeries};
use crate::worker::Worker;

/// How long a connection to an address that is not known waits for the config
/// that has it.
const HELD: Duration = Duration::from_secs(5);
/// How many do, on a worker.
const MOST_HELD: usize = 256;
/// How long to wait for a connection to the outside.
const CONNECT: Duration = Duration::from_secs(10);

/// What a worker has for redirected connections.
pub(crate) struct RedirectedView {
    mesh_only: bool,
    virtuals: HashMap<VirtualAddress, (Key, Rc<Listening>)>,
    outside: Rc<StreamSeries>,
    unknown: Rc<StreamSeries>,
    held: Rc<Cell<usize>>,
}

impl RedirectedView {
    pub(crate) fn new(
        worker: &Worker,
        source: &str,
        mesh_only: bool,
        virtuals: HashMap<VirtualAddress, (Key, Rc<Listening>)>,
    ) -> Self {
        let series =
            |destination| (worker.metrics).streams(Direction::Outbound, source, destination, "tcp");
        Self {
            mesh_only,
            virtuals,
            outside: series("outside"),
            unknown: series("unknown"),
            held: worker.held.clone(),
        }
    }
}

/// Serves a redirected connection.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    listening: Rc<Listening>,
    mut socket: Socket,
    member: Member,
) {
    let Socket::Tcp(tcp) = &socket else {
        return;
    };
    // Whoever calls here by this address, or is ourselves, would be sent here
    // again.
    let Some(to) = worker.shared.options.original.of(tcp) else {
        return socket.break_off();
    };
    let is_own = |from| worker.shared.transparent.marking.is_own(from);
    if tcp.peer_addr().is_ok_and(is_own) {
        if let Some(kept_back) = worker.redirects.may_say(Instant::now()) {
            tracing::error!(
                %to, kept_back,
                "the sidecar's own connection came back to it: it may not mark its sockets, and the rules let another uid pass; give transparent_proxy the uid that the sidecar runs as"
            );
        }
        return socket.break_off();
    }
    match VirtualAddress::of(to.ip()) {
        Some(address) => Box::pin(mesh(worker, listening, socket, member, address)).await,
        None => Box::pin(outside(&worker, &listening, socket, &member, to)).await,
    }
}

/// A call of a service: from here on as at an upstream's own port.
async fn mesh(
    worker: Rc<Worker>,
    listening: Rc<Listening>,
    socket: Socket,
    member: Member,
    address: VirtualAddress,
) {
    let (service, at) = match find(&worker, &listening, &member, address).await {
        Ok(found) => found,
        Err(reason) => {
            let view = listening.redirected();
            let series = view.map(|view| view.unknown.clone());
            return refuse(&worker, series, socket, address.to_string(), reason);
        }
    };
    let held = worker.shared.transparent.wanted.hold(&service, address);
    let joined = at.life.join();
    drop((member, listening));
    outbound::serve(worker, at, socket, joined).await;
    drop(held);
}

/// The service that has an address, once it is known.
async fn find(
    worker: &Worker,
    listening: &Listening,
    member: &Member,
    address: VirtualAddress,
) -> Result<(Key, Rc<Listening>), String> {
    let known = || {
        let view = listening.redirected()?;
        view.virtuals.get(&address).cloned()
    };
    if let Some(found) = known() {
        return Ok(found);
    }
    let transparent = &worker.shared.transparent;
    let wanted = transparent.wanted.ask(Want::Address(address));
    let absent = |answers: &Option<Arc<Answers>>| {
        let answers = answers.as_ref();
        answers.is_none_or(|answers| answers.absent.contains(&address))
    };
    let nobody = || "no service has this virtual address".to_owned();
    let mut answers = transparent.answers.subscribe();
    if absent(&answers.borrow_and_update()) {
        return Err(nobody());
    }
    if !wanted || !transparent.questions.has_anybody() {
        return Err("it is not known here, and cannot be asked for".to_owned());
    }
    let held = listening.redirected().map(|view| view.held.clone());
    let Some(_place) = held.and_then(|held| Place::take(&held)) else {
        return Err(format!("{MOST_HELD} connections wait to be known already"));
    };
    let waiting = async {
        loop {
            // A worker has a config before its answers are known to all.
            if let Some(found) = known() {
                return Ok(found);
            }
            if answers.changed().await.is_err() || absent(&answers.borrow_and_update()) {
                return known().ok_or_else(nobody);
            }
        }
    };
    let mut watch = member.watch();
    tokio::select! {
        found = timeout(HELD, waiting) => match found {
            Ok(found) => found,
            Err(_) => Err(format!("the agent did not say within {} s whose it is", HELD.as_secs())),
        },
        () = reaches(&mut watch, Phase::Draining) => Err("the sidecar ends".to_owned()),
    }
}

/// A place among those that wait.
struct Place(Rc<Cell<usize>>);

impl Place {
    fn take(held: &Rc<Cell<usize>>) -> Option<Self> {
        (held.get() < MOST_HELD).then(|| {
            held.set(held.get() + 1);
            Self(held.clone())
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// A call of what is not in the mesh: bytes, to where they were going.
async fn outside(
    worker: &Rc<Worker>,
    listening: &Listening,
    mut socket: Socket,
    member: &Member,
    to: SocketAddr,
) {
    let Some(view) = listening.redirected() else {
        return socket.break_off();
    };
    let series = view.outside.clone();
    if view.mesh_only {
        let reason =
            "it is outside the mesh, and `mesh { outbound = \"mesh_only\" }` allows no such call";
        return refuse(
            worker,
            Some(series),
            socket,
            to.to_string(),
            reason.to_owned(),
        );
    }
    drop(view);
    let flow = Flow::begin(worker, series, None);
    flow.set_instance(&Arc::from(to.to_string()));
    let ended = carry(worker, &mut socket, &flow, member, to).await;
    match ended {
        Ended::Whole => return,
        Ended::Idle => flow.set_reason("idle for too long"),
        Ended::Cut(why) => flow.set_reason(why.why()),
        Ended::Failed { caller, error } => {
            let who = if caller { "the application" } else { "outside" };
            flow.set_reason(format!("{who}: {error}"));
        }
    }
    socket.break_off();
}

async fn carry(
    worker: &Worker,
    socket: &mut Socket,
    flow: &Flow,
    member: &Member,
    to: SocketAddr,
) -> Ended {
    let mut watch = member.watch();
    let marking = &worker.shared.transparent.marking;
    let carrying = async {
        let (mut other, _own) = match net::connect_outside(to, marking, CONNECT).await {
            Ok(connected) => connected,
            Err(error) => {
                return Ended::Failed {
                    caller: false,
                    error,
                };
            }
        };
        let idle = worker.shared.options.limits.stream_idle;
        let ended = relay(socket, &mut other, idle, flow.cut_cell(), flow).await;
        if !matches!(ended, Ended::Whole) {
            TcpStream::break_off(&mut other);
        }
        ended
    };
    tokio::select! {
        ended = carrying => ended,
        () = reaches(&mut watch, Phase::Ended) => Ended::Cut(Cut::Drained),
    }
}

/// Ends a connection with an error that the application sees; it is counted and
/// logged as one that was tried.
fn refuse(
    worker: &Rc<Worker>,
    series: Option<Rc<StreamSeries>>,
    mut socket: Socket,
    to: String,
    reason: String,
) {
    socket.break_off();
    if let Some(kept_back) = worker.redirects.may_say(Instant::now()) {
        tracing::warn!(to, reason, kept_back, "a call is refused");
    }
    if let Some(series) = series {
        let flow = Flow::begin(worker, series, None);
        flow.set_instance(&Arc::from(to));
        flow.set_reason(reason);
    }
}
