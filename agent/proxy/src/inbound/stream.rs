//! Byte streams from other sidecars.

use std::rc::Rc;

use mesh_mux::{Config, Connection as Mux, ResetCode};
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::Connection;
use crate::cut::Cut;
use crate::flow::Flow;
use crate::lifecycle::{Member, Phase, at, reaches};
use crate::net::Break;
use crate::relay::{Ended, Side, relay};
use crate::wide::Wide;

/// Many streams over one connection.
pub(super) async fn serve_mux(
    connection: Connection,
    tls: TlsStream<Wide>,
    until: Option<(Instant, Instant)>,
    member: &Member,
) {
    let limits = &connection.worker.shared.options.limits;
    let config = Config {
        max_streams: limits.streams as usize,
        ..Config::default()
    };
    let (mut acceptor, driver) = Mux::server(tls, config);
    let control = acceptor.control();
    let connection = Rc::new(connection);
    let mut watch = member.watch();
    let accepting = async {
        while let Some(incoming) = acceptor.accept().await {
            let connection = connection.clone();
            tokio::task::spawn_local(async move {
                if let Some(code) = carry(&connection, incoming.stream, None).await {
                    tracing::debug!(%code, "stream ended early");
                }
            });
        }
        std::future::pending::<()>().await // the driver ends the connection
    };
    let ending = async {
        tokio::select! {
            () = reaches(&mut watch, Phase::Draining) => {}
            () = at(until.map(|(close, _)| close)) => {}
        }
        control.drain();
        tokio::select! {
            () = reaches(&mut watch, Phase::Ended) => {}
            () = at(until.map(|(_, cut)| cut)) => {}
        }
    };
    tokio::select! {
        reason = driver => tracing::debug!(%reason, "mesh/1 connection from a peer ended"),
        () = accepting => {}
        () = ending => {}
    }
}

/// One stream, which is the connection.
pub(super) async fn serve_plain(
    connection: Connection,
    tls: TlsStream<Wide>,
    until: Option<(Instant, Instant)>,
    member: &Member,
) {
    let mut watch = member.watch();
    tokio::select! {
        _ = carry(&connection, tls, until.map(|(_, cut)| cut)) => {}
        () = reaches(&mut watch, Phase::Ended) => {}
    }
}

/// What can say why it ends.
pub(crate) trait Reset {
    fn reset(self, code: ResetCode);
}

impl Reset for mesh_mux::Stream {
    fn reset(self, code: ResetCode) {
        mesh_mux::Stream::reset(self, code);
    }
}

impl Reset for TlsStream<Wide> {
    fn reset(self, _code: ResetCode) {}
}

/// Carries one stream to the application. Gives back with which code it was
/// reset, if it was.
pub(crate) async fn carry<S>(
    connection: &Connection,
    mut stream: S,
    cut_at: Option<Instant>,
) -> Option<ResetCode>
where
    S: Side + Reset,
{
    let Connection {
        worker,
        caller,
        listening,
        streams,
        ..
    } = connection;
    let flow = Flow::begin(worker, streams.clone(), Some(caller.clone()));
    let decision = caller.policy(&worker.shared.policy()).stream(&caller.key);
    let Some(view) = listening.inbound() else {
        stream.reset(ResetCode::REFUSED);
        return Some(ResetCode::REFUSED);
    };
    let refused = if !decision.is_allowed() {
        flow.deny(decision.by);
        true
    } else if view.config.protocol.is_http() {
        // The protocol has changed since the connection was made.
        flow.set_reason("refused: the service's protocol is HTTP now");
        true
    } else {
        false
    };
    if refused {
        stream.reset(ResetCode::DENIED);
        return Some(ResetCode::DENIED);
    }
    let behind = match view.application(worker) {
        Ok(behind) => behind,
        Err(trouble) => {
            flow.set_reason(trouble.what);
            stream.reset(ResetCode::UNREACHABLE);
            return Some(ResetCode::UNREACHABLE);
        }
    };
    let connected = behind.connect(view.config.connect_timeout).await;
    let mut application = match connected {
        Ok(application) => application,
        Err(error) => {
            let address = behind.address();
            flow.set_reason(format!("the application at {address}: {error}"));
            stream.reset(ResetCode::UNREACHABLE);
            return Some(ResetCode::UNREACHABLE);
        }
    };
    let idle = worker.shared.options.limits.stream_idle;
    let relaying = relay(&mut stream, &mut application, idle, flow.cut_cell(), &*flow);
    let ended = tokio::select! {
        ended = relaying => ended,
        () = at(cut_at) => Ended::Cut(Cut::Expired),
    };
    let code = match ended {
        Ended::Whole => return None,
        Ended::Idle => {
            flow.set_reason("idle for too long");
            ResetCode::CANCELLED
        }
        Ended::Cut(Cut::Denied) => ResetCode::DENIED,
        Ended::Cut(why @ Cut::Revoked) => {
            flow.set_reason(why.why());
            ResetCode::DENIED
        }
        Ended::Cut(why) => {
            flow.set_reason(why.why());
            ResetCode::CANCELLED
        }
        Ended::Failed { caller, error } => {
            let who = if caller { "caller" } else { "application" };
            flow.set_reason(format!("{who}: {error}"));
            ResetCode::FAILED
        }
    };
    application.break_off();
    stream.reset(code);
    Some(code)
}
