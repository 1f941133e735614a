//! Requests from other sidecars.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use http::header::{CONNECTION, HOST, UPGRADE};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, StatusCode, request};
use mesh_model::Protocol;
use mesh_policy::RequestFacts;

use super::{Application, Connection, InboundView, Verdict};
use crate::cut::Cut;
use crate::exchange::{Exchange, grpc_status};
use crate::http::{
    Answer, Call, Handler, Lookup, SOURCE, Side, Trouble, clean_application, clean_request,
    clean_response, denied, is_grpc, trouble,
};
use crate::target;
use crate::telemetry::continue_trace;
use crate::tunnel;

impl Handler for Connection {
    async fn handle(self: Rc<Self>, call: Call) -> Answer {
        let grpc = is_grpc(&call.head.headers);
        let exchange = Exchange::begin(&self.worker, self.http.clone(), &call.head);
        let answer = match self.answer(call, &exchange).await {
            Ok(answer) => return exchange.answered(answer),
            Err(Refusal::Denied) => denied_answer(&exchange, grpc),
            Err(Refusal::Trouble(what)) => {
                exchange.set_reason(what.what.clone());
                (what.status.as_u16(), trouble(&what, grpc))
            }
        };
        exchange.answered_as(answer.0, answer.1)
    }

    fn refused(&self, status: StatusCode) {
        self.http.count(status.as_u16());
    }
}

/// Why the application does not get a request.
enum Refusal {
    /// The exchange knows by what.
    Denied,
    Trouble(Trouble),
}

impl From<Trouble> for Refusal {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

fn denied_answer(exchange: &Exchange, grpc: bool) -> (u16, Answer) {
    let reason = exchange.reason();
    let reason = reason.strip_prefix("denied by ").unwrap_or(&reason);
    (403, denied(reason, grpc))
}

impl Connection {
    async fn answer(&self, mut call: Call, exchange: &Rc<Exchange>) -> Result<Answer, Refusal> {
        let Some(view) = self.listening.inbound() else {
            let gone = Trouble::unavailable("the service is not served here any more");
            return Err(gone.refused().into());
        };
        let path = target::normal(&call.head)?;
        exchange.set_target(path.clone());
        call.body = call.body.watched(exchange.clone(), Side::Request);
        // What the policy sees is what the application will see.
        let head = &mut call.head;
        let authority = target::authority(head)?;
        let upgrade = clean_request(&mut head.headers, head.version);
        let by_request = self.decide(head, &path, exchange)?;
        let headers = by_request.then(|| head.headers.clone());
        exchange.watch_policy(self.caller.clone(), headers);
        if view.config.outside.is_none() {
            // Outside the mesh it is nobody's business who calls.
            head.headers.insert(SOURCE, self.caller.header.clone());
        }
        let trace = continue_trace(&mut head.headers, &mut *self.worker.random.borrow_mut());
        exchange.set_trace(trace);

        let mut sending = pin!(self.send(&view, call, path, authority, upgrade, exchange));
        poll_fn(|cx| {
            match exchange.cut_cell().poll(cx) {
                Poll::Ready(Cut::Denied | Cut::Revoked) => {
                    return Poll::Ready(Err(Refusal::Denied));
                }
                Poll::Ready(why) => {
                    return Poll::Ready(Err(Trouble::unavailable(why.why()).into()));
                }
                Poll::Pending => {}
            }
            std::future::Future::poll(sending.as_mut(), cx).map_err(Refusal::Trouble)
        })
        .await
    }

    /// Asks the policy. Gives back whether it had to look at the request.
    fn decide(
        &self,
        head: &request::Parts,
        path: &PathAndQuery,
        exchange: &Exchange,
    ) -> Result<bool, Refusal> {
        let shared = &self.worker.shared;
        match &*self.caller.verdict(shared) {
            Verdict::Allow => return Ok(false),
            Verdict::Deny(by) => {
                exchange.denied(by);
                return Err(Refusal::Denied);
            }
            Verdict::ByRequest => {}
        }
        let current = shared.policy();
        let decision = self.caller.policy(&current).request(
            &self.caller.key,
            &RequestFacts {
                method: head.method.as_str(),
                path: path.path(),
                query: path.query().unwrap_or_default(),
                headers: &Lookup(&head.headers),
            },
        );
        if decision.is_allowed() {
            return Ok(true);
        }
        exchange.denied(&decision.by);
        Err(Refusal::Denied)
    }

    async fn send(
        &self,
        view: &InboundView,
        mut call: Call,
        path: PathAndQuery,
        authority: Option<Authority>,
        upgrade: Option<HeaderValue>,
        exchange: &Rc<Exchange>,
    ) -> Result<Answer, Trouble> {
        let http2 = match view.config.protocol {
            Protocol::Http2 | Protocol::Grpc => true,
            Protocol::Http => false,
            // See the module's head: such a service is called as the caller thinks.
            Protocol::Tcp => is_grpc(&call.head.headers),
        };
        let application = view.application(&self.worker)?;
        // A service outside that has a name is asked for by it.
        let own = view.config.outside.as_ref();
        let authority = match own.and_then(|_| application.authority()) {
            Some(own) => {
                call.head.headers.remove(HOST);
                Some(own)
            }
            None => authority,
        };
        let mut answer = if http2 {
            if upgrade.is_some() {
                return Err(Trouble::bad_request(
                    "the service speaks HTTP/2, which has no upgrade of this kind",
                ));
            }
            target::for_http2(&mut call.head, path, authority, &view.config.service);
            let limits = &self.worker.shared.options.limits;
            let limit = view.config.connect_timeout;
            application
                .send_h2(call, Some(exchange), limit, limits)
                .await?
        } else {
            target::for_http1(&mut call.head, path, authority, application.address());
            if let Some(upgrade) = upgrade {
                let headers = &mut call.head.headers;
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(UPGRADE, upgrade);
            }
            self.send_h1(view, &application, call, exchange).await?
        };
        if answer.head.status != StatusCode::SWITCHING_PROTOCOLS {
            clean_response(&mut answer.head.headers);
        }
        clean_application(&mut answer.head.headers);
        exchange.set_grpc_status(grpc_status(&answer.head.headers));
        Ok(answer)
    }

    async fn send_h1(
        &self,
        view: &InboundView,
        application: &Application,
        mut call: Call,
        exchange: &Rc<Exchange>,
    ) -> Result<Answer, Trouble> {
        let caller = call.upgrade.take();
        let limits = &self.worker.shared.options.limits;
        let sent = application.send_h1(call, view.config.connect_timeout, limits);
        let mut answer = sent.await?;
        if let (Some(caller), Some(app)) = (caller, answer.upgrade.take()) {
            let member = self.listening.life.join();
            let cut_at = self.until.map(|(_, cut)| cut);
            tunnel::start(&self.worker, caller, app, exchange.clone(), member, cut_at);
        }
        Ok(answer)
    }
}
