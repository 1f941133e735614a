//! Byte streams of the application.

use std::rc::Rc;

use mesh_balance::Outcome;

use super::{ClusterState, OutboundView, Pick};
use crate::cut::Cut;
use crate::flow::Flow;
use crate::lifecycle::{Member, Phase, reaches};
use crate::net::{Break, Socket};
use crate::peer::{ByteStream, Dialing};
use crate::relay::{Ended, relay};
use crate::worker::Worker;

/// How many instances are tried before the application hears of it.
const TRIES: usize = 4;

/// Carries a connection of the application to an instance.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    view: &OutboundView,
    mut socket: Socket,
    member: &Member,
) {
    let flow = Flow::begin(worker, view.cluster.streams.clone(), None);
    let mut watch = member.watch();
    let found = tokio::select! {
        found = connect(worker, &view.cluster, &flow) => found,
        () = reaches(&mut watch, Phase::Ended) => None,
    };
    let Some((pick, stream)) = found else {
        return socket.break_off();
    };
    let idle = worker.shared.options.limits.stream_idle;
    let cut = flow.cut_cell();
    let relaying = async {
        match stream {
            ByteStream::Mux(mut stream) => relay(&mut socket, &mut stream, idle, cut, &*flow).await,
            ByteStream::Plain(mut stream) => {
                relay(&mut socket, &mut *stream, idle, cut, &*flow).await
            }
        }
    };
    let ended = tokio::select! {
        ended = relaying => ended,
        () = reaches(&mut watch, Phase::Ended) => Ended::Cut(Cut::Drained),
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

/// A stream to an instance that takes it.
async fn connect(
    worker: &Worker,
    cluster: &Rc<ClusterState>,
    flow: &Flow,
) -> Option<(Pick, ByteStream)> {
    let config = cluster.config();
    let dialing = Dialing {
        shared: &worker.shared,
        name: &config.sni,
        limit: config.connect_timeout,
    };
    let service = &config.service;
    let mut tried = Vec::new();
    while tried.len() < TRIES {
        let Some(pick) = cluster.pick(&tried) else {
            flow.set_reason(super::attempt::no_instance(&config));
            return None;
        };
        let token = pick.token();
        if token.is_some_and(|token| tried.contains(&token)) {
            return None; // all were tried, and the reason of the last one stands
        }
        tried.extend(token);
        flow.set_instance(pick.id());
        match pick.instance().peer.stream(&dialing).await {
            Ok(stream) => {
                pick.connected();
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
                tracing::warn!(%reason, "an instance did not take a connection");
                flow.set_reason(reason);
                pick.done(Outcome::ConnectFailure);
            }
        }
    }
    None
}
