//! Requests from other sidecars.
//!
//! What is done for a request is done at once, in one go, until it waits for the
//! application; so that a future holds only that.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::header::{CONNECTION, HOST, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderValue, StatusCode, request};
use mesh_model::Protocol;
use mesh_policy::RequestFacts;

use super::app::{Fresh, SendingH1};
use super::{Connection, InboundView, Verdict};
use crate::cut::Cut;
use crate::exchange::{Exchange, grpc_status};
use crate::http::{
    Answer, Call, Handler, Lookup, OnUpgrade, SOURCE, Side, Trouble, clean_application,
    clean_request, clean_response, denied, is_grpc, trouble,
};
use crate::target;
use crate::telemetry::continue_trace;
use crate::tunnel;

impl Handler for Connection {
    async fn handle(self: Rc<Self>, call: Call) -> Answer {
        let grpc = is_grpc(&call.head.headers);
        let exchange = Exchange::begin(&self.worker, self.http.clone(), &call.head);
        let answered = match self.ask(call, grpc, &exchange) {
            Ok(mut asked) => poll_fn(|cx| asked.poll(cx, &self, &exchange)).await,
            Err(refusal) => Err(refusal),
        };
        let answer = match answered {
            Ok(mut answer) => {
                exchange.answered(&mut answer);
                return answer;
            }
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

/// A request that the application was asked.
struct Asked {
    sending: Sending,
    /// What the caller's connection becomes, if it asks for an upgrade.
    caller: Option<OnUpgrade>,
}

#[allow(clippy::large_enum_variant)] // the large one is what most are
enum Sending {
    H1(SendingH1),
    H2(Pin<Box<dyn Future<Output = Result<Answer, Trouble>>>>),
}

impl Asked {
    /// Ready once: with the answer, or why there is none.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Connection,
        exchange: &Rc<Exchange>,
    ) -> Poll<Result<Answer, Refusal>> {
        match exchange.cut_cell().poll(cx) {
            Poll::Ready(Cut::Denied | Cut::Revoked) => return Poll::Ready(Err(Refusal::Denied)),
            Poll::Ready(why) => return Poll::Ready(Err(Trouble::unavailable(why.why()).into())),
            Poll::Pending => {}
        }
        let polled = match &mut self.sending {
            Sending::H1(sending) => sending.poll(cx),
            Sending::H2(sending) => sending.as_mut().poll(cx),
        };
        polled.map(|answered| Ok(self.answered(answered?, connection, exchange)))
    }

    fn answered(
        &mut self,
        mut answer: Answer,
        connection: &Connection,
        exchange: &Rc<Exchange>,
    ) -> Answer {
        let headers = &mut answer.head.headers;
        if answer.head.status != StatusCode::SWITCHING_PROTOCOLS {
            clean_response(headers);
        }
        clean_application(headers);
        exchange.set_grpc_status(grpc_status(headers));
        if let Some(caller) = self.caller.take()
            && let Some(app) = answer.upgrade.take()
        {
            let member = connection.listening.life.join();
            let cut_at = connection.until.map(|(_, cut)| cut);
            let worker = &connection.worker;
            tunnel::start(worker, caller, app, exchange.clone(), member, cut_at);
        }
        answer
    }
}

impl Connection {
    /// Sends a request to the application, if that may be.
    fn ask(&self, mut call: Call, grpc: bool, exchange: &Rc<Exchange>) -> Result<Asked, Refusal> {
        let Some(view) = self.listening.inbound() else {
            let gone = Trouble::unavailable("the service is not served here any more");
            return Err(gone.refused().into());
        };
        let path = target::normal(&call.head)?;
        exchange.set_target(path.clone());
        if !call.body.is_empty() {
            call.body.watch(exchange.clone(), Side::Request);
        }
        // What the policy sees is what the application will see.
        let head = &mut call.head;
        let mut authority = target::authority(head)?;
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

        let application = view.application(&self.worker)?;
        // A service outside that has a name is asked for by it.
        if view.config.outside.is_some()
            && let Some(own) = application.authority()
        {
            head.headers.remove(HOST);
            authority = Some(own);
        }
        if speaks_h2(&view, grpc) {
            if upgrade.is_some() {
                let what = "the service speaks HTTP/2, which has no upgrade of this kind";
                return Err(Trouble::bad_request(what).into());
            }
            target::for_http2(head, path, authority, &view.config.service);
            let (worker, exchange) = (self.worker.clone(), exchange.clone());
            let sending = async move {
                let limits = &worker.shared.options.limits;
                let limit = view.config.connect_timeout;
                let sent = application.send_h2(call, Some(&exchange), limit, limits);
                sent.await
            };
            return Ok(Asked {
                sending: Sending::H2(Box::pin(sending)),
                caller: None,
            });
        }
        target::for_http1(head, path, authority, application.address());
        if let Some(upgrade) = upgrade {
            let headers = &mut head.headers;
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, upgrade);
        }
        let caller = call.upgrade.take();
        let limits = &self.worker.shared.options.limits;
        let fresh = Fresh::new(view.config.connect_timeout, limits);
        Ok(Asked {
            sending: Sending::H1(application.send_h1(call, fresh)),
            caller,
        })
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
}

fn speaks_h2(view: &InboundView, grpc: bool) -> bool {
    match view.config.protocol {
        Protocol::Http2 | Protocol::Grpc => true,
        Protocol::Http => false,
        // See the module's head: such a service is called as the caller thinks.
        Protocol::Tcp => grpc,
    }
}
