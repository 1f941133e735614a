//! Requests of the application.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::StatusCode;
use mesh_policy::RequestFacts;

use super::attempt::Attempt;
use super::view::RuleView;
use super::{ClusterState, OutboundView};
use crate::exchange::Exchange;
use crate::http::{Answer, Call, Handler, Lookup, Side, Trouble, clean_request, is_grpc, trouble};
use crate::listening::Listening;
use crate::target;
use crate::telemetry::continue_trace;
use crate::tunnel;
use crate::worker::Worker;

/// Answers the application's requests at one upstream.
pub(crate) struct Outgoing {
    worker: Rc<Worker>,
    listening: Rc<Listening>,
}

impl Handler for Outgoing {
    async fn handle(self: Rc<Self>, mut call: Call) -> Answer {
        let grpc = is_grpc(&call.head.headers);
        let Some(view) = self.listening.outbound() else {
            let gone = Trouble::unavailable("this upstream is not in the job any more");
            return trouble(&gone, grpc);
        };
        let exchange = Exchange::begin(&self.worker, view.cluster.http().clone(), &call.head);
        exchange.watch();
        match self.answer(&view, &mut call, &exchange).await {
            Ok(mut answer) => {
                exchange.answered(&mut answer);
                answer
            }
            Err(what) => {
                exchange.set_reason(what.what.clone());
                exchange.answered_as(what.status.as_u16(), trouble(&what, grpc))
            }
        }
    }

    fn refused(&self, status: StatusCode) {
        if let Some(view) = self.listening.outbound() {
            view.cluster.http().count(status.as_u16());
        }
    }
}

impl Outgoing {
    pub(crate) fn new(worker: Rc<Worker>, listening: Rc<Listening>) -> Self {
        Self { worker, listening }
    }

    async fn answer(
        &self,
        view: &OutboundView,
        call: &mut Call,
        exchange: &Rc<Exchange>,
    ) -> Result<Answer, Trouble> {
        let service = &view.config.service;
        if let Some(why) = exchange.cut_cell().get() {
            return Err(Trouble::unavailable(why.why()));
        }
        if !view.config.protocol.is_http() {
            return Err(Trouble::unavailable(format!(
                "{service}: its protocol is tcp now; open a new connection"
            )));
        }
        let path = target::normal(&call.head)?;
        exchange.set_target(path.clone());
        call.body.watch(exchange.clone(), Side::Request);
        let head = &mut call.head;
        let authority = target::authority(head)?;
        let upgrade = clean_request(&mut head.headers, head.version);
        let rule = self.rule(view, head, &path);
        let trace = continue_trace(&mut head.headers, &mut *self.worker.random.borrow_mut());
        exchange.set_trace(trace);

        let cluster = self.cluster(view, rule).clone();
        exchange.set_series(cluster.http().clone());
        let (timeout, retries) = match rule {
            Some(RuleView { rule, .. }) => {
                exchange.set_rule(&rule.name);
                (rule.timeout, rule.retries.as_ref())
            }
            None => (view.config.timeout, None),
        };
        if let Some(timeout) = timeout {
            exchange.set_deadline(timeout);
        }
        let caller = call.upgrade.take();
        let config = cluster.config();
        target::for_http2(&mut call.head, path, authority, &config.service);
        let attempt = Attempt {
            worker: &self.worker,
            cluster: &cluster,
            config: &config,
            retries,
            exchange,
            upgrade,
            bulk: call.body.is_bulk(),
        };
        let mut running = pin!(attempt.run(call));
        let mut answer = poll_fn(|cx| {
            if let Poll::Ready(result) = running.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            if let Poll::Ready(why) = exchange.cut_cell().poll(cx) {
                return Poll::Ready(Err(Trouble::unavailable(why.why())));
            }
            let over = exchange.poll_deadline(cx);
            over.map(|()| {
                if exchange.timed_out() {
                    let metrics = &self.worker.metrics;
                    metrics.connect_failed(&config.service.to_string(), "timeout");
                }
                Err(no_answer(service, rule, timeout))
            })
        })
        .await?;
        if let (Some(caller), Some(other)) = (caller, answer.upgrade.take()) {
            let member = self.listening.life.join();
            let (exchange, cut_at) = (exchange.clone(), answer.cut_at);
            tunnel::start(&self.worker, caller, other, exchange, member, cut_at);
        }
        Ok(answer)
    }

    /// The first rule that is for this request.
    fn rule<'a>(
        &self,
        view: &'a OutboundView,
        head: &http::request::Parts,
        path: &http::uri::PathAndQuery,
    ) -> Option<&'a RuleView> {
        let facts = RequestFacts {
            method: head.method.as_str(),
            path: path.path(),
            query: path.query().unwrap_or_default(),
            headers: &Lookup(&head.headers),
        };
        view.rules().iter().find(|view| view.rule.matches(&facts))
    }

    fn cluster<'a>(
        &self,
        view: &'a OutboundView,
        rule: Option<&'a RuleView>,
    ) -> &'a Rc<ClusterState> {
        let drawn = rule.and_then(|rule| rule.draw(&mut *self.worker.random.borrow_mut()));
        drawn.unwrap_or(&view.cluster)
    }
}

fn no_answer(
    service: &mesh_model::Key,
    rule: Option<&RuleView>,
    timeout: Option<Duration>,
) -> Trouble {
    let millis = timeout.unwrap_or_default().as_millis();
    Trouble::timeout(match rule {
        Some(rule) => format!(
            "{service}: no answer within {millis} ms, the timeout of route rule {}",
            rule.rule.name
        ),
        None => format!("{service}: no answer within {millis} ms, the service's request_timeout"),
    })
}
