//! What an upgraded request becomes: bytes both ways.

use std::future::poll_fn;
use std::rc::Rc;

use tokio::time::Instant;

use crate::cut::Cut;
use crate::exchange::Exchange;
use crate::http::{OnUpgrade, Side};
use crate::lifecycle::{Member, Phase, at, reaches};
use crate::relay::{Ended, Meter, relay};
use crate::worker::Worker;

/// Carries an upgraded request until it ends. It runs on its own: the HTTP
/// connection that it was is over. At `cut_at` the peer's certificate has been
/// over for long.
pub(crate) fn start(
    worker: &Rc<Worker>,
    caller: OnUpgrade,
    other: OnUpgrade,
    exchange: Rc<Exchange>,
    member: Member,
    cut_at: Option<Instant>,
) {
    exchange.tunnelled();
    let idle = worker.shared.options.limits.stream_idle;
    tokio::task::spawn_local(async move {
        let mut watch = member.watch();
        let meter = Count(&exchange);
        let carrying = async {
            let (mut caller, mut other) = tokio::try_join!(caller, other)?;
            let cut = exchange.cut_cell();
            std::io::Result::Ok(relay(&mut caller, &mut other, idle, cut, &meter).await)
        };
        // Either side may never finish the upgrade.
        let ended = tokio::select! {
            ended = carrying => match ended {
                Ok(ended) => ended,
                Err(error) => return exchange.set_reason(format!("upgrade: {error}")),
            },
            why = poll_fn(|cx| exchange.cut_cell().poll(cx)) => Ended::Cut(why),
            () = reaches(&mut watch, Phase::Ended) => Ended::Cut(Cut::Drained),
            () = at(cut_at) => Ended::Cut(Cut::Expired),
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
