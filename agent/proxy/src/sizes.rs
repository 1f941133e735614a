//! What a request, a stream and a connection hold while they run: a task's
//! future is one allocation, as large as the deepest call in it may need. What
//! is rare (a dial, a handshake) is boxed there, so that not all pay for it.
//!
//! The bounds are what is held now, rounded up: who goes beyond them knows it.

use std::rc::Rc;

use tokio::time::Instant;

use crate::exchange::Exchange;
use crate::flow::Flow;
use crate::http::{Call, Handler};
use crate::inbound::Connection;
use crate::lifecycle::Member;
use crate::listening::Listening;
use crate::net::Socket;
use crate::outbound::Outgoing;
use crate::worker::Worker;

/// The size of what a function gives back; it is not called.
macro_rules! size_of_result {
    ($($kind:ident),+) => {
        fn size_of_result<$($kind,)+ R>(_: impl Fn($($kind),+) -> R) -> usize {
            size_of::<R>()
        }
    };
}

fn of_request<H: Handler>() -> usize {
    size_of_result!(A, B);
    size_of_result(|handler: Rc<H>, call: Call| handler.handle(call))
}

fn of_connection<F>(_: impl Fn(Rc<Worker>, Rc<Listening>, Socket, Member) -> F) -> usize {
    size_of::<F>()
}

fn of_stream() -> usize {
    size_of_result!(A, B, C);
    size_of_result(
        |connection: &'static Connection, stream: mesh_mux::Stream, cut: Option<Instant>| {
            crate::inbound::carry(connection, stream, cut)
        },
    )
}

#[test]
fn they_stay_small() {
    let sizes = [
        ("the application's request", of_request::<Outgoing>(), 4736),
        ("a peer's request", of_request::<Connection>(), 5760),
        (
            "the application's byte stream",
            of_connection(crate::outbound::serve_stream),
            1408,
        ),
        (
            "the application's connection of HTTP",
            of_connection(crate::outbound::serve_http),
            608,
        ),
        (
            "a redirected connection",
            of_connection(crate::transparent::serve),
            512,
        ),
        (
            "a peer's connection",
            of_connection(crate::inbound::serve),
            8320,
        ),
        ("a peer's stream", of_stream(), 1024),
        ("exchange", size_of::<Exchange>(), 512),
        ("flow", size_of::<Flow>(), 224),
    ];
    let too_large: Vec<_> = (sizes.iter())
        .filter(|(_, size, bound)| size > bound)
        .collect();
    assert!(too_large.is_empty(), "size, bound: {too_large:?}");
}
