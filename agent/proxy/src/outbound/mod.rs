//! Calls of the application.

mod attempt;
mod cluster;
mod http;
mod journal;
mod repeat;
mod stream;
mod view;

use std::rc::Rc;

pub(crate) use cluster::{ClusterState, Pick};
use futures::future::LocalBoxFuture;
pub(crate) use http::Outgoing;
pub(crate) use view::OutboundView;

use crate::engine::h1::server as h1_server;
use crate::engine::sniff::{Spoken, sniff};
use crate::engine::{ServeLimits, h2_server};
use crate::lifecycle::Member;
use crate::listening::Listening;
use crate::net::Socket;
use crate::telemetry::Direction;
use crate::worker::Worker;

/// Serves a connection of the application. Boxed, so that each holds what its own kind needs.
pub(crate) fn serve(
    worker: Rc<Worker>,
    listening: Rc<Listening>,
    socket: Socket,
    member: Member,
) -> LocalBoxFuture<'static, ()> {
    let http = |view: Rc<OutboundView>| view.config.protocol.is_http();
    match listening.outbound().is_some_and(http) {
        true => Box::pin(serve_http(worker, listening, socket, member)),
        false => Box::pin(serve_stream(worker, listening, socket, member)),
    }
}

pub(crate) async fn serve_stream(
    worker: Rc<Worker>,
    listening: Rc<Listening>,
    socket: Socket,
    member: Member,
) {
    if let Some(view) = listening.outbound() {
        stream::serve(&worker, &view, socket, &member).await;
    }
}

pub(crate) async fn serve_http(
    worker: Rc<Worker>,
    listening: Rc<Listening>,
    socket: Socket,
    member: Member,
) {
    let Some(view) = listening.outbound() else {
        return;
    };
    let series = view.cluster.http();
    let metrics = &worker.metrics;
    let _opened = metrics
        .streams(
            Direction::Outbound,
            series.source(),
            series.destination(),
            series.protocol(),
        )
        .opened();
    drop(view); // each request looks at the one of its time
    let limits = &worker.shared.options.limits;
    // Reading ends with the application: it may open a connection beforehand.
    let (spoken, io) = {
        let mut watch = member.watch();
        tokio::select! {
            sniffed = sniff(socket) => match sniffed {
                Ok(sniffed) => sniffed,
                Err(_) => return,
            },
            () = crate::lifecycle::drains(&mut watch) => return,
        }
    };
    let serve = ServeLimits {
        streams: limits.streams,
        headers: limits.headers,
        header_bytes: limits.header_bytes,
        // It is our own application: it keeps its connections as it likes.
        head: None,
        strangers: false,
        until: None,
    };
    let handler = Rc::new(http::Outgoing::new(worker, listening));
    let ended = match spoken {
        Spoken::Http1 => Box::pin(h1_server::serve(io, handler, &serve, member.watch()))
            .await
            .map_err(|error| error.to_string()),
        Spoken::Http2 => Box::pin(h2_server::serve(io, handler, &serve, member.watch()))
            .await
            .map_err(|error| error.to_string()),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection of the application");
    }
}
