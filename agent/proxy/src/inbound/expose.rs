//! Paths that are open without mTLS, for health checks from outside the mesh.
//! Exactly these paths, and nothing else of the application.

use std::rc::Rc;

use http::{StatusCode, Version};
use mesh_model::Protocol;

use crate::config::Expose;
use crate::engine::sniff::{Spoken, sniff};
use crate::engine::{ServeLimits, h1_server, h2_server};
use crate::http::{
    Answer, Call, Handler, Trouble, clean_request, clean_response, is_grpc, trouble,
};
use crate::lifecycle::Member;
use crate::listening::Listening;
use crate::net::Socket;
use crate::target;
use crate::worker::Worker;

/// Serves a connection to exposed paths.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    listening: Rc<Listening>,
    socket: Socket,
    member: Member,
) {
    let limits = &worker.shared.options.limits;
    let Ok(Ok((spoken, io))) = tokio::time::timeout(limits.head, sniff(socket)).await else {
        return;
    };
    let serve = ServeLimits {
        streams: 32,
        headers: limits.headers,
        header_bytes: limits.header_bytes,
        head: Some(limits.head),
        until: None,
    };
    let handler = Rc::new(Exposed { worker, listening });
    let ended = match spoken {
        Spoken::Http1 => Box::pin(h1_server::serve(io, handler, &serve, member.watch()))
            .await
            .map_err(|error| error.to_string()),
        Spoken::Http2 => Box::pin(h2_server::serve(io, handler, &serve, member.watch()))
            .await
            .map_err(|error| error.to_string()),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection to an exposed path");
    }
}

struct Exposed {
    worker: Rc<Worker>,
    listening: Rc<Listening>,
}

impl Handler for Exposed {
    async fn handle(self: Rc<Self>, call: Call) -> Answer {
        let grpc = is_grpc(&call.head.headers);
        match self.answer(call).await {
            Ok(answer) => answer,
            Err(what) => trouble(&what, grpc),
        }
    }
}

impl Exposed {
    async fn answer(&self, mut call: Call) -> Result<Answer, Trouble> {
        let path = target::normal(&call.head)?;
        let config: Option<Rc<Expose>> = self.listening.exposed();
        let not_here = || Trouble::new(StatusCode::NOT_FOUND, "this path is not exposed");
        let config = config.ok_or_else(not_here)?;
        let to = config
            .paths
            .iter()
            .find(|(exposed, _)| exposed == path.path());
        let (_, address) = to.ok_or_else(not_here)?;
        let application = self.worker.application(address);
        let head = &mut call.head;
        let authority = target::authority(head);
        clean_request(&mut head.headers, head.version);
        call.upgrade = None;
        let limits = &self.worker.shared.options.limits;
        let mut answer = match config.protocol {
            Protocol::Http2 | Protocol::Grpc => {
                let service = mesh_model::Key::of("exposed");
                target::for_http2(head, path, authority, &service);
                head.version = Version::HTTP_2;
                application.send_h2(call, limits.handshake, limits).await?
            }
            Protocol::Http | Protocol::Tcp => {
                target::for_http1(head, path, authority);
                application.send_h1(call, limits.handshake, limits).await?
            }
        };
        clean_response(&mut answer.head.headers);
        Ok(answer)
    }
}
