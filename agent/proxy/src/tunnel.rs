//! What an upgraded request becomes: bytes both ways.

use std::rc::Rc;

use crate::cut::Cut;
use crate::exchange::Exchange;
use crate::http::{OnUpgrade, Side};
use crate::lifecycle::{Member, Phase, reaches};
use crate::relay::{Ended, Meter, relay};
use crate::worker::Worker;

/// Carries an upgraded request until it ends. It runs on its own: the HTTP
/// connection that it was is over.
pub(crate) fn start(
    worker: &Rc<Worker>,
    caller: OnUpgrade,
    other: OnUpgrade,
    exchange: Rc<Exchange>,
    member: Member,
) {
    exchange.tunnelled();
    let idle = worker.shared.options.limits.stream_idle;
    tokio::task::spawn_local(async move {
        let mut watch = member.watch();
        let (mut caller, mut other) = match tokio::try_join!(caller, other) {
            Ok(both) => both,
            Err(error) => return exchange.set_reason(format!("upgrade: {error}")),
        };
        let meter = Count(&exchange);
        let relaying = relay(&mut caller, &mut other, idle, exchange.cut_cell(), &meter);
        let ended = tokio::select! {
            ended = relaying => ended,
            () = reaches(&mut watch, Phase::Ended) => Ended::Cut(Cut::Drained),
        };
        match ended {
            Ended::Whole | Ended::Cut(Cut::Denied) => {}
            Ended::Idle => exchange.set_reason("idle for too long"),
            Ended::Cut(why) => exchange.set_reason(why.why()),
            Ended::Failed { error, .. } => exchange.set_reason(error.to_string()),
        }
        drop(member);
    });
}

struct Count<'a>(&'a Exchange);

impl Meter for Count<'_> {
    fn caller_sent(&self, bytes: usize) {
        self.0.count(Side::Request, bytes);
    }

    fn caller_got(&self, bytes: usize) {
        self.0.count(Side::Response, bytes);
    }
}
