//! Calls from outside the mesh, at the ports of an ingress gateway.
//!
//! Whoever calls has proved nothing: who may call what is decided behind, by
//! the intentions of the service, for the gateway as the caller. A request goes
//! the way that an application's own would go at an upstream; here is only
//! decided at which, by the host that it asks for.

mod hosts;

use std::collections::HashMap;
use std::rc::Rc;

use http::{HeaderName, HeaderValue, StatusCode, request};
use mesh_model::Protocol;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use hosts::Hosts;

use crate::config::{Ingress, ListenKey};
use crate::engine::h1::server as h1_server;
use crate::engine::sniff::{Spoken, sniff};
use crate::engine::{ServeLimits, h2_server};
use crate::http::{Answer, Call, Handler, Trouble, is_grpc, trouble};
use crate::lifecycle::Member;
use crate::listening::Listening;
use crate::net::Socket;
use crate::outbound::{self, Outgoing};
use crate::peer::{H2, HTTP_1};
use crate::target;
use crate::telemetry::Direction;
use crate::worker::Worker;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What a worker has for an ingress listener.
pub(crate) struct IngressView {
    protocol: Protocol,
    tls: bool,
    hosts: Hosts<Rc<Outgoing>>,
    /// Of byte streams: the one service.
    streams: Option<Rc<Listening>>,
}

impl IngressView {
    pub(crate) fn new(
        worker: &Rc<Worker>,
        config: &Ingress,
        now: &HashMap<ListenKey, Rc<Listening>>,
    ) -> Self {
        let behind = now.iter().filter_map(|(key, listening)| match key {
            ListenKey::Host(port, hosts) if *port == config.port => Some((hosts, listening)),
            _ => None,
        });
        let behind: Vec<_> = behind.collect();
        let all = behind.iter().flat_map(|(hosts, listening)| {
            let outgoing = Rc::new(Outgoing::new(worker.clone(), (*listening).clone()));
            let hosts = hosts.iter();
            hosts.map(move |host| (host.as_str(), outgoing.clone()))
        });
        Self {
            protocol: config.protocol,
            tls: config.tls,
            hosts: Hosts::new(all),
            streams: match config.protocol.is_http() {
                true => None,
                false => behind.first().map(|(_, listening)| (*listening).clone()),
            },
        }
    }
}

/// Serves a connection from outside.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    listening: Rc<Listening>,
    socket: Socket,
    member: Member,
) {
    let Some(view) = listening.ingress() else {
        return;
    };
    let from = match &socket {
        Socket::Tcp(socket) => socket.peer_addr().ok().map(|from| from.ip().to_canonical()),
        _ => None,
    };
    let (tls, is_http) = (view.tls, view.protocol.is_http());
    let socket = match (tls, socket) {
        (true, Socket::Tcp(socket)) => match accept(&worker, socket, is_http).await {
            Some(socket) => socket,
            None => return,
        },
        (_, socket) => socket,
    };
    if !is_http {
        let Some(behind) = view.streams.clone() else {
            return;
        };
        drop((view, listening));
        let joined = behind.life.join();
        // The listener's own member stays, so that a drain waits for it.
        outbound::serve(worker, behind, socket, joined).await;
        return drop(member);
    }
    drop(view); // each request looks at the one of its time
    let limits = &worker.shared.options.limits;
    let from = from.and_then(|from| HeaderValue::from_str(&from.to_string()).ok());
    let Ok(Ok((spoken, io))) = timeout(limits.head, sniff(socket)).await else {
        return;
    };
    let serve = ServeLimits {
        streams: limits.streams,
        headers: limits.headers,
        header_bytes: limits.header_bytes,
        head: Some(limits.head),
        strangers: true,
        until: None,
    };
    let proto = HeaderValue::from_static(if tls { "https" } else { "http" });
    let handler = Rc::new(FromOutside {
        worker: worker.clone(),
        listening,
        from,
        proto,
    });
    let ended = match spoken {
        Spoken::Http1 => Box::pin(h1_server::serve(io, handler, &serve, member.watch()))
            .await
            .map_err(|error| error.to_string()),
        Spoken::Http2 => Box::pin(h2_server::serve(io, handler, &serve, member.watch()))
            .await
            .map_err(|error| error.to_string()),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection from outside");
    }
}

/// The caller's TLS. Which service is meant is said later, by the host: a caller that says another one
/// there than in its hello could have said it in both.
async fn accept(worker: &Worker, socket: TcpStream, is_http: bool) -> Option<Socket> {
    let alpn: &[&[u8]] = if is_http { &[H2, HTTP_1] } else { &[] };
    let config = worker.shared.tls.outside_config(alpn);
    let handshake = TlsAcceptor::from(config).accept(socket);
    let limit = worker.shared.options.limits.handshake;
    match timeout(limit, handshake).await {
        Ok(Ok(tls)) => Some(Socket::Tls(Box::new(tls))),
        Ok(Err(error)) => {
            worker.metrics.handshake_failed("outside");
            tracing::debug!(%error, "TLS handshake with a caller from outside failed");
            None
        }
        Err(_) => {
            worker.metrics.handshake_failed("timeout");
            None
        }
    }
}

/// Answers the requests of a connection from outside.
struct FromOutside {
    worker: Rc<Worker>,
    listening: Rc<Listening>,
    /// The address that calls.
    from: Option<HeaderValue>,
    /// How.
    proto: HeaderValue,
}

impl Handler for FromOutside {
    async fn handle(self: Rc<Self>, mut call: Call) -> Answer {
        let authority = match target::authority(&mut call.head) {
            Ok(authority) => authority,
            Err(what) => return trouble(&what, is_grpc(&call.head.headers)),
        };
        let view = self.listening.ingress();
        let outgoing = view.and_then(|view| view.hosts.find(authority.as_ref()).cloned());
        match outgoing {
            Some(outgoing) => {
                self.say_from(&mut call.head);
                outgoing.handle(call).await
            }
            None => {
                let grpc = is_grpc(&call.head.headers);
                let what = Trouble::new(StatusCode::NOT_FOUND, "no service has this host here");
                trouble(&what, grpc)
            }
        }
    }

    /// Which service was meant cannot be known.
    fn refused(&self, status: StatusCode) {
        let metrics = &self.worker.metrics;
        let series = metrics.http(Direction::Outbound, "", "", "http");
        series.count(status.as_u16());
    }
}

impl FromOutside {
    /// Says who calls, and how, in place of what the caller says of itself:
    /// nobody knows who is before a gateway that anybody can call.
    fn say_from(&self, head: &mut request::Parts) {
        head.headers.remove(FORWARDED_FOR);
        if let Some(from) = &self.from {
            head.headers.insert(FORWARDED_FOR, from.clone());
        }
        head.headers.insert(FORWARDED_PROTO, self.proto.clone());
    }
}
