//! Frames by hand.
#![allow(dead_code)] // each test uses a part

use bytes::Bytes;
use mesh_h2::{Config, Connection, Event, Violation};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const WHOLE: u8 = 4;
pub(crate) const PADDED: u8 = 8;

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    [&length[1..], &[kind, flags], &id.to_be_bytes(), payload].concat()
}

/// What a client, or a server, says first.
pub(crate) fn beginning(client: bool) -> Vec<u8> {
    let settings = frame(SETTINGS, 0, 0, &[]);
    match client {
        true => [PREFACE, &settings].concat(),
        false => settings,
    }
}

/// Fields in full, not in the table.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            out.push(u8::try_from(text.len()).expect("short"));
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

pub(crate) const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "a"),
    (":path", "/"),
];

pub(crate) const POST: [(&str, &str); 4] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "a"),
    (":path", "/"),
];

/// A request's head, with these fields too.
pub(crate) fn request(
    id: u32,
    flags: u8,
    first: &[(&str, &str)],
    more: &[(&str, &str)],
) -> Vec<u8> {
    frame(HEADERS, WHOLE | flags, id, &block(&[first, more].concat()))
}

/// Gives a connection what its other side says. What it made of it.
pub(crate) fn feed<S: Default>(
    connection: &mut Connection<S>,
    bytes: &[u8],
) -> (Vec<Event>, Option<Violation>) {
    let mut events = Vec::new();
    let mut input = Bytes::copy_from_slice(bytes);
    loop {
        match connection.receive(&mut input) {
            Ok(Some(event)) => events.push(event),
            Ok(None) => return (events, None),
            Err(violation) => return (events, Some(violation)),
        }
    }
}

/// A server to which its client has said what it says first.
pub(crate) fn server(config: Config) -> Connection<()> {
    let mut server = Connection::server(config);
    assert!(feed(&mut server, &beginning(true)).0.is_empty());
    server.output().take();
    server
}

/// A client to which its server has.
pub(crate) fn client(config: Config) -> Connection<()> {
    let mut client = Connection::client(config);
    assert!(feed(&mut client, &beginning(false)).0.is_empty());
    client.output().take();
    client
}

/// What was written, as (kind, flags, stream, payload).
pub(crate) fn frames(bytes: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut rest = bytes;
    let mut all = Vec::new();
    while let Some((head, after)) = rest.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let (payload, next) = after.split_at(length);
        all.push((head[3], head[4], id, payload.to_vec()));
        rest = next;
    }
    assert!(rest.is_empty());
    all
}

/// The code of the GOAWAY, or the resets of these streams, that was written.
pub(crate) fn said<S>(connection: &mut Connection<S>) -> Vec<(u8, u32, u32)> {
    let code = |bytes: &[u8]| u32::from_be_bytes(bytes[bytes.len() - 4..].try_into().expect("4"));
    frames(&connection.output().take())
        .into_iter()
        .filter(|(kind, ..)| [RESET, GOAWAY].contains(kind))
        .map(|(kind, _, id, payload)| (kind, id, code(&payload)))
        .collect()
}
