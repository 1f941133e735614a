//! What breaks a stream, and what breaks a connection (RFC 9113).
#![allow(clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use common::*;
use http::{HeaderMap, HeaderValue, Request, Response};
use mesh_h2::{Config, Connection, Event, Reason, ResetBy, Room};

/// What the server does with this: the events' number, and what it says of
/// streams (stream, code) or of the connection (0, code).
fn served(bytes: &[u8]) -> (usize, Vec<(u32, u32)>) {
    let mut server = server(Config::default());
    let (events, violation) = feed(&mut server, bytes);
    let said = said(&mut server);
    let goes = said.iter().any(|(kind, ..)| *kind == GOAWAY);
    assert_eq!(violation.is_some(), goes, "{violation:?}");
    (
        events.len(),
        said.into_iter().map(|(_, id, code)| (id, code)).collect(),
    )
}

#[test]
fn malformed_requests_are_reset() {
    let bad: &[(&str, &[(&str, &str)])] = &[
        ("upper case", &[("X-A", "b")]),
        ("a connection's own", &[("connection", "close")]),
        ("a connection's own", &[("keep-alive", "x")]),
        ("a connection's own", &[("proxy-connection", "x")]),
        ("a connection's own", &[("transfer-encoding", "chunked")]),
        ("a connection's own", &[("upgrade", "h2c")]),
        ("te but trailers", &[("te", "gzip")]),
        ("a pseudo-header at last", &[("x-a", "b"), (":path", "/")]),
        ("one twice", &[(":path", "/")]),
        ("an answer's", &[(":status", "200")]),
        ("an unknown one", &[(":other", "x")]),
        ("an extended CONNECT", &[(":protocol", "websocket")]),
        ("no name", &[("", "x")]),
        ("a name with a space", &[("x a", "x")]),
        ("a value with a line's end", &[("x-a", "b\r\nx-b: c")]),
        ("a value with a nul", &[("x-a", "\0")]),
        ("space before a value", &[("x-a", " b")]),
        ("space after a value", &[("x-a", "b\t")]),
        (
            "two lengths",
            &[("content-length", "1"), ("content-length", "2")],
        ),
        ("no number", &[("content-length", "+1")]),
        ("no number", &[("content-length", "")]),
        ("a length without a body", &[("content-length", "1")]),
    ];
    for (what, more) in bad {
        let told = served(&request(1, END, &GET, more));
        assert_eq!(told, (0, vec![(1, 1)]), "{what}: {more:?}");
    }
    let heads: &[&[(&str, &str)]] = &[
        &[],
        &GET[1..],
        &[GET[0], GET[2], GET[3]],
        &GET[..3],
        &[GET[0], GET[1], GET[2], (":path", "")],
        &[GET[0], GET[1], GET[2], (":path", "x")],
        &[GET[0], GET[1], GET[2], (":path", "*")],
        &[("(:method)", "GET"), GET[1], GET[2], GET[3]],
        &[(":method", "G T"), GET[1], GET[2], GET[3]],
        &[GET[0], (":scheme", "a b"), GET[2], GET[3]],
        &[GET[0], GET[1], (":authority", "a b"), GET[3]],
        &[GET[0], GET[1], (":authority", ""), GET[3]],
        &[(":method", "CONNECT"), GET[1], GET[2], GET[3]],
        &[(":method", "CONNECT")],
    ];
    for head in heads {
        assert_eq!(
            served(&request(1, END, head, &[])),
            (0, vec![(1, 1)]),
            "{head:?}"
        );
    }
    // One that is not.
    let fine = [("te", "trailers"), ("x-a", ""), ("content-length", "0")];
    assert_eq!(served(&request(1, END, &GET, &fine)), (1, vec![]));
    let options = [(":method", "OPTIONS"), GET[1], GET[2], (":path", "*")];
    assert_eq!(served(&request(1, END, &options, &[])), (1, vec![]));
    let connect = [(":method", "CONNECT"), (":authority", "a:1")];
    assert_eq!(served(&request(1, 0, &connect, &[])), (1, vec![]));
}

#[test]
fn bodies_are_as_long_as_they_say() {
    let with = |length, pieces: &[(&[u8], u8)]| {
        let mut all = request(1, 0, &POST, &[("content-length", length)]);
        for (piece, flags) in pieces {
            all.extend(frame(DATA, *flags, 1, piece));
        }
        served(&all)
    };
    assert_eq!(with("4", &[(b"ab", 0), (b"cd", END)]), (3, vec![]));
    assert_eq!(with("4", &[(b"\x01abcd\0", PADDED | END)]), (2, vec![]));
    assert_eq!(with("3", &[(b"ab", 0), (b"cd", END)]), (3, vec![(1, 1)]));
    assert_eq!(with("5", &[(b"ab", 0), (b"cd", END)]), (3, vec![(1, 1)]));
    let trailers = frame(HEADERS, WHOLE | END, 1, &block(&[("x-a", "b")]));
    let short = [request(1, 0, &POST, &[("content-length", "1")]), trailers].concat();
    assert_eq!(served(&short), (2, vec![(1, 1)]));
}

#[test]
fn trailers_are_the_end() {
    let head = request(1, 0, &POST, &[]);
    for (flags, fields, fine) in [
        (END, [("x-a", "b")], true),
        (0, [("x-a", "b")], false),
        (END, [(":path", "/")], false),
        (END, [("connection", "x")], false),
    ] {
        let trailers = frame(HEADERS, WHOLE | flags, 1, &block(&fields));
        let told = served(&[head.clone(), trailers].concat());
        let reset = if fine { vec![] } else { vec![(1, 1)] };
        assert_eq!(told, (2, reset), "{fields:?}");
    }
}

#[test]
fn rules_of_the_connection() {
    let get = request(1, END, &GET, &[]);
    let post = request(1, 0, &POST, &[]);
    let huge = vec![0; 64 * 1024 + 1];
    let half = frame(HEADERS, 0, 1, &block(&GET));
    let over: &[(&str, &[&[u8]], u32)] = &[
        (
            "a stream of the other side",
            &[&request(2, END, &GET, &[])],
            1,
        ),
        ("stream 0", &[&request(0, END, &GET, &[])], 1),
        (
            "one before",
            &[&request(5, END, &GET, &[]), &request(3, END, &GET, &[])],
            5,
        ),
        (
            "a head after the end",
            &[&get, &frame(RESET, 0, 1, &[0; 4]), &get],
            5,
        ),
        ("a body of none", &[&frame(DATA, 0, 1, b"x")], 1),
        ("a body of stream 0", &[&frame(DATA, 0, 0, b"x")], 1),
        ("a reset of none", &[&frame(RESET, 0, 1, &[0; 4])], 1),
        ("a short reset", &[&post, &frame(RESET, 0, 1, &[0; 3])], 6),
        (
            "a window of none",
            &[&frame(WINDOW, 0, 3, &[0, 0, 0, 1])],
            1,
        ),
        ("a window by nothing", &[&frame(WINDOW, 0, 0, &[0; 4])], 1),
        ("a short window", &[&frame(WINDOW, 0, 0, &[0; 3])], 6),
        (
            "a window beyond all",
            &[&frame(WINDOW, 0, 0, &[0x7f, 255, 255, 255])],
            3,
        ),
        ("a ping of a stream", &[&frame(PING, 0, 1, &[0; 8])], 1),
        ("a short ping", &[&frame(PING, 0, 0, &[0; 7])], 6),
        ("settings of a stream", &[&frame(SETTINGS, 0, 1, &[])], 1),
        ("half a setting", &[&frame(SETTINGS, 0, 0, &[0; 5])], 6),
        (
            "settings that are heard",
            &[&frame(SETTINGS, ACK, 0, &[0; 6])],
            6,
        ),
        (
            "a window that is none",
            &[&frame(SETTINGS, 0, 0, &[0, 4, 255, 0, 0, 0])],
            3,
        ),
        (
            "a frame that is none",
            &[&frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 9])],
            1,
        ),
        (
            "a push that is none",
            &[&frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2])],
            1,
        ),
        ("a push", &[&frame(PUSH, WHOLE, 1, &[0, 0, 0, 2])], 1),
        ("a short priority", &[&frame(PRIORITY, 0, 1, &[0; 4])], 6),
        (
            "a priority of stream 0",
            &[&frame(PRIORITY, 0, 0, &[0; 5])],
            1,
        ),
        ("a short GOAWAY", &[&frame(GOAWAY, 0, 0, &[0; 7])], 6),
        ("a frame that is too large", &[&frame(DATA, 0, 1, &huge)], 6),
        (
            "a continuation of nothing",
            &[&frame(CONTINUATION, WHOLE, 1, &[])],
            1,
        ),
        (
            "of another",
            &[&half, &frame(CONTINUATION, WHOLE, 3, &[])],
            1,
        ),
        (
            "something between",
            &[&half, &frame(PING, 0, 0, &[0; 8])],
            1,
        ),
        (
            "padding beyond",
            &[&frame(HEADERS, WHOLE | PADDED, 1, &[9, 0])],
            1,
        ),
        (
            "padding beyond",
            &[&post, &frame(DATA, PADDED, 1, &[2, 0])],
            1,
        ),
        (
            "no room for padding",
            &[&post, &frame(DATA, PADDED, 1, &[])],
            6,
        ),
        (
            "on itself",
            &[&frame(HEADERS, WHOLE | 0x20, 1, &[0, 0, 0, 1, 0, 0x82])],
            1,
        ),
        ("HPACK", &[&frame(HEADERS, WHOLE, 1, &[0xff, 0xff])], 9),
    ];
    for (what, bytes, code) in over {
        let (_, said) = served(&bytes.concat());
        assert_eq!(said, [(0, *code)], "{what}");
    }
    // What is not against them.
    let fine: &[&[&[u8]]] = &[
        &[&frame(77, 255, 9, b"unknown"), &get],
        &[&frame(PRIORITY, 0, 9, &[0; 5]), &get],
        &[
            &half,
            &frame(CONTINUATION, 0, 1, &[]),
            &frame(CONTINUATION, WHOLE, 1, &[]),
        ],
        &[&frame(
            HEADERS,
            WHOLE | PADDED | 0x20 | END,
            1,
            &[&[2, 0, 0, 0, 3, 9][..], &block(&GET), &[0, 0]].concat(),
        )],
        &[&frame(SETTINGS, 0, 0, &[0, 99, 1, 2, 3, 4]), &get],
    ];
    for bytes in fine {
        assert_eq!(served(&bytes.concat()), (1, vec![]), "{bytes:?}");
    }
}

#[test]
fn it_begins_as_it_must() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[PREFACE, &frame(PING, 0, 0, &[0; 8])].concat(),
        &[PREFACE, &frame(SETTINGS, ACK, 0, &[])].concat(),
    ] {
        let mut server: Connection<()> = Connection::server(Config::default());
        let (_, violation) = feed(&mut server, bytes);
        assert_eq!(violation.unwrap().reason, Reason::PROTOCOL_ERROR);
        assert!(server.is_done());
    }
}

#[test]
fn what_is_too_much() {
    let small = Config {
        streams: 2,
        header_bytes: 200,
        resets: 3,
        idle_frames: 20,
        ..Config::default()
    };
    let over = |bytes: &[u8]| {
        let mut server = server(small);
        let (events, violation) = feed(&mut server, bytes);
        (events.len(), violation.map(|it| it.reason))
    };
    // Rapid resets.
    let calm = Some(Reason::ENHANCE_YOUR_CALM);
    let rapid = |count: u32| -> Vec<u8> {
        let ids = (0..count).map(|number| number * 2 + 1);
        let each =
            ids.map(|id| [request(id, 0, &POST, &[]), frame(RESET, 0, id, &[0; 4])].concat());
        each.collect::<Vec<_>>().concat()
    };
    assert_eq!(over(&rapid(3)), (6, None));
    assert_eq!(over(&rapid(4)).1, calm);
    // Malformed ones count as much.
    let bad = (0..4).map(|number| request(number * 2 + 1, END, &[], &[]));
    assert_eq!(over(&bad.collect::<Vec<_>>().concat()), (0, calm));
    // Frames that bring nothing.
    for one in [
        frame(PING, 0, 0, &[0; 8]),
        frame(PING, ACK, 0, &[0; 8]),
        frame(SETTINGS, 0, 0, &[]),
        frame(SETTINGS, ACK, 0, &[]),
        frame(PRIORITY, 0, 1, &[0; 5]),
        frame(WINDOW, 0, 0, &[0, 0, 0, 1]),
        frame(99, 0, 0, &[]),
    ] {
        assert_eq!(over(&one.repeat(18)), (0, None));
        assert_eq!(over(&one.repeat(22)), (0, calm));
    }
    let empty = [request(1, 0, &POST, &[]), frame(DATA, 0, 1, &[]).repeat(22)].concat();
    assert_eq!(over(&empty), (1, calm));
    // A head without end, and one that is only too large.
    let endless = [
        frame(HEADERS, 0, 1, &[]),
        frame(CONTINUATION, 0, 1, &[]).repeat(80),
    ]
    .concat();
    assert_eq!(over(&endless), (0, calm));
    let mut server = server(small);
    let large = [("x-a", "b"); 9];
    let (events, violation) = feed(&mut server, &request(1, 0, &POST, &large));
    assert!(events.is_empty() && violation.is_none());
    let written = frames(&server.output().take());
    assert_eq!(written[0].3, [&[0x08, 0x03][..], b"431"].concat());
    assert_eq!((written[1].0, &written[1].3[..]), (RESET, &[0; 4][..]));
    // What is still on its way does no harm.
    assert_eq!(feed(&mut server, &frame(DATA, END, 1, b"x")).1, None);
    // A stream more than there may be.
    let three: Vec<u8> = [1, 3, 5].map(|id| request(id, 0, &POST, &[])).concat();
    let mut server = common::server(small);
    assert_eq!(feed(&mut server, &three).0.len(), 2);
    assert_eq!(said(&mut server), [(RESET, 5, 7)]);
}

/// A reader may tell often what it has read, and no more often than there was
/// something.
#[test]
fn updates_of_what_was_sent_are_not_idle() {
    let config = Config {
        idle_frames: 20,
        ..Config::default()
    };
    const STEP: u32 = 1024;
    let mut server = server(config);
    let update = |id| frame(WINDOW, 0, id, &STEP.to_be_bytes());
    let (events, _) = feed(&mut server, &request(1, END, &GET, &[]));
    let Event::Request { key, .. } = events[0] else {
        panic!("{events:?}");
    };
    let (head, ()) = Response::new(()).into_parts();
    assert!(server.respond(key, &head, false));
    let mut left = 1024 * 1024;
    while left > 0 {
        while server.room(key) == Room::Some {
            assert!(server.send(key, vec![0; STEP as usize].into(), false));
        }
        let sent = frames(&server.output().take());
        let bytes: usize = sent.iter().map(|frame| frame.3.len()).sum();
        left -= bytes.min(left);
        let read = [update(0), update(1)].concat();
        let read = read.repeat(bytes / STEP as usize);
        assert_eq!(
            feed(&mut server, &read).1,
            None,
            "{left} bytes before the end"
        );
        while server.take_writable().is_some() {}
    }
    let (_, violation) = feed(&mut server, &update(0).repeat(100_000));
    assert_eq!(violation.unwrap().reason, Reason::ENHANCE_YOUR_CALM);
}

/// A connection whose window is full of what nobody takes says so, until it is
/// taken; and one on which nothing can be sent.
#[test]
fn what_nobody_takes_clogs() {
    let config = Config {
        stream_window: 100_000,
        connection_window: 100_000,
        ..Config::default()
    };
    let mut client = client(config);
    let (head, ()) = Request::new(()).into_parts();
    let key = client.open(&head, true, ()).unwrap();
    let answer = frame(HEADERS, WHOLE, 1, &block(&[(":status", "200")]));
    assert_eq!(feed(&mut client, &answer).0.len(), 1);
    let piece = frame(DATA, 0, 1, &[0; 10_000]);
    assert_eq!(feed(&mut client, &piece.repeat(5)).1, None);
    assert!(!client.is_clogged());
    assert_eq!(feed(&mut client, &piece).1, None);
    assert!(client.is_clogged());
    client.release(key, 10_000);
    assert!(!client.is_clogged());

    // The other side's window is what it begins with.
    let key = client.open(&head, false, ()).unwrap();
    assert!(client.send(key, Bytes::from(vec![0; 65_535]), false));
    assert!(client.is_clogged());
    let update = frame(WINDOW, 0, 0, &1u32.to_be_bytes());
    assert_eq!(feed(&mut client, &update).1, None);
    assert!(!client.is_clogged());
}

/// One byte of a block may stand for a whole entry of the table.
#[test]
fn a_head_that_grows_is_bounded() {
    let mut block = [&[0x40, 1][..], b"x", &[0x7f, 0xa1, 0x1e], &[b'y'; 4000]].concat();
    block.splice(0..0, common::block(&GET));
    block.extend([0xbe; 10_000]);
    let mut server = server(Config::default());
    let (events, violation) = feed(&mut server, &frame(HEADERS, WHOLE | END, 1, &block));
    assert!(events.is_empty() && violation.is_none());
    assert_eq!(frames(&server.output().take()).len(), 1); // 431
}

#[test]
fn answers_that_nobody_reads_are_bounded() {
    let config = Config {
        idle_frames: u32::MAX,
        ..Config::default()
    };
    let mut server = server(config);
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(10_000);
    let (_, violation) = feed(&mut server, &pings);
    assert_eq!(violation.unwrap().reason, Reason::ENHANCE_YOUR_CALM);
    assert!(server.output().len() < 100_000);
}

#[test]
fn a_peer_keeps_to_its_windows() {
    let config = Config {
        stream_window: 65_535,
        connection_window: 65_535,
        ..Config::default()
    };
    let piece = vec![0; 16_000];
    let mut server = server(config);
    let mut bytes = request(1, 0, &POST, &[]);
    bytes.extend(frame(DATA, 0, 1, &piece).repeat(4));
    let (events, violation) = feed(&mut server, &bytes);
    assert_eq!((events.len(), violation), (5, None));
    let Event::Request { key, .. } = events[0] else {
        panic!()
    };
    // It may send more when enough was taken.
    server.release(key, 48_000);
    let updates: Vec<_> = frames(&server.output().take())
        .into_iter()
        .map(|(kind, _, id, _)| (kind, id))
        .collect();
    assert_eq!(updates, [(WINDOW, 0), (WINDOW, 1)]);
    assert_eq!(
        feed(&mut server, &frame(DATA, 0, 1, &piece).repeat(3)).1,
        None
    );
    let (_, violation) = feed(&mut server, &frame(DATA, 0, 1, &piece));
    assert_eq!(violation.unwrap().reason, Reason::FLOW_CONTROL_ERROR);
}

#[test]
fn we_keep_to_theirs() {
    let mut server = server(Config::default());
    let asks = [1, 3].map(|id| request(id, END, &GET, &[])).concat();
    let (events, _) = feed(&mut server, &asks);
    let keys: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::Request { key, .. } => *key,
            other => panic!("{other:?}"),
        })
        .collect();
    let (head, ()) = Response::new(()).into_parts();
    for key in &keys {
        assert!(server.respond(*key, &head, false));
    }
    server.output().take();
    // 64 KiB for both together.
    assert_eq!(server.room(keys[0]), Room::Some);
    assert!(server.send(keys[0], Bytes::from(vec![1; 60_000]), false));
    assert!(server.send(keys[1], Bytes::from(vec![2; 60_000]), true));
    let sizes = |server: &mut Connection<()>| -> Vec<(u32, usize, u8)> {
        let all = frames(&server.output().take()).into_iter();
        all.map(|(_, flags, id, payload)| (id, payload.len(), flags))
            .collect()
    };
    let first = sizes(&mut server);
    assert_eq!(
        first,
        [
            (1, 16_384, 0),
            (1, 16_384, 0),
            (1, 16_384, 0),
            (1, 10_848, 0),
            (3, 5535, 0)
        ]
    );
    assert_eq!(server.room(keys[0]), Room::Wait);
    // Each has its turn when there is more.
    let more = frame(WINDOW, 0, 0, &100_000u32.to_be_bytes());
    feed(&mut server, &more);
    assert_eq!(
        sizes(&mut server),
        [
            (3, 16_384, 0),
            (3, 16_384, 0),
            (3, 16_384, 0),
            (3, 5313, END)
        ]
    );
    assert_eq!(server.take_writable(), Some(keys[0]));
    assert_eq!(server.room(keys[0]), Room::Some);
    // Its window becomes smaller than what is under way.
    feed(&mut server, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 10]));
    assert_eq!(server.room(keys[0]), Room::Wait);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-a", HeaderValue::from_static("b"));
    assert!(server.send(keys[0], Bytes::from_static(b"last"), false));
    assert!(server.send_trailers(keys[0], trailers));
    // Nobody holds it any more, but it is sent to its end.
    server.forget(keys[0]);
    server.output().take();
    feed(&mut server, &frame(WINDOW, 0, 1, &100_000u32.to_be_bytes()));
    let last: Vec<_> = sizes(&mut server);
    assert_eq!(last[0], (1, 4, 0));
    assert_eq!((last[1].0, last[1].2), (1, END | WHOLE));
    assert_eq!(server.open_streams(), 0);
    assert!(server.user(keys[0]).is_none());
}

#[test]
fn a_drain_loses_nothing() {
    let mut server = server(Config::default());
    server.drain();
    let written = frames(&server.output().take());
    assert_eq!(written[0].3, [0x7f, 255, 255, 255, 0, 0, 0, 0]);
    let (PING, _, _, ping) = &written[1] else {
        panic!()
    };
    // What was on its way is served, and what comes later is not.
    let (events, _) = feed(&mut server, &request(1, END, &GET, &[]));
    let Event::Request { key, .. } = events[0] else {
        panic!()
    };
    feed(&mut server, &frame(PING, ACK, 0, ping));
    assert_eq!(
        frames(&server.output().take())[0].3,
        [0, 0, 0, 1, 0, 0, 0, 0]
    );
    assert!(feed(&mut server, &request(3, END, &GET, &[])).0.is_empty());
    assert!(!server.is_done());
    let (head, ()) = Response::new(()).into_parts();
    server.respond(key, &head, true);
    assert!(server.is_done());
}

/// A client with a call on streams 1, 3 ….
fn calling(count: usize) -> (Connection<()>, Vec<mesh_h2::Key>) {
    let mut client = client(Config::default());
    let (head, ()) = Request::new(()).into_parts();
    let keys = (0..count)
        .map(|_| client.open(&head, true, ()).unwrap())
        .collect();
    client.output().take();
    (client, keys)
}

#[test]
fn a_server_that_goes() {
    let (mut client, keys) = calling(3);
    let bytes = frame(GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]);
    let (events, violation) = feed(&mut client, &bytes);
    assert!(violation.is_none() && client.is_going() && !client.can_open());
    let [Event::Reset { key, by }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(
        (*key, *by),
        (keys[2], ResetBy::Unprocessed(Reason::NO_ERROR))
    );
    let answer = |id| frame(HEADERS, WHOLE | END, id, &[0x88]);
    assert_eq!(feed(&mut client, &answer(1)).0.len(), 1);
    assert!(!client.is_done());
    feed(&mut client, &answer(3));
    assert!(client.is_done());
}

#[test]
fn answers() {
    let told = |bytes: &[u8]| {
        let (mut client, _) = calling(1);
        let (events, violation) = feed(&mut client, bytes);
        let resets = events
            .iter()
            .filter(|event| matches!(event, Event::Reset { .. }));
        (
            events.len(),
            resets.count(),
            violation.map(|it| it.reason.0),
        )
    };
    let head = |flags, fields: &[(&str, &str)]| frame(HEADERS, WHOLE | flags, 1, &block(fields));
    let ok = (":status", "200");
    assert_eq!(told(&head(END, &[ok])), (1, 0, None));
    let interim = head(0, &[(":status", "103")]);
    assert_eq!(told(&[interim, head(END, &[ok])].concat()), (1, 0, None));
    for bad in [
        head(END, &[]),
        head(END, &[(":status", "20")]),
        head(END, &[(":status", "101")]),
        head(END, &[(":status", "103")]),
        head(END, &[ok, (":path", "/")]),
        head(END, &[ok, ("content-length", "1")]),
        head(END, &[ok, ("transfer-encoding", "chunked")]),
        frame(DATA, END, 1, b"x"),
        [head(0, &[(":status", "204")]), frame(DATA, END, 1, b"x")].concat(),
    ] {
        let (_, resets, violation) = told(&bad);
        assert_eq!((resets, violation), (1, None), "{bad:?}");
    }
    // Not what a server may say.
    for (bad, code) in [
        (request(2, END, &GET, &[]), 1),
        (frame(HEADERS, WHOLE, 3, &[0x88]), 1),
        (frame(PUSH, WHOLE, 1, &[0, 0, 0, 2, 0x82]), 1),
        (frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 1]), 1),
        ([head(END, &[ok]), head(END, &[ok])].concat(), 5),
    ] {
        assert_eq!(told(&bad).2, Some(code), "{bad:?}");
    }
    // A body that HEAD does not have is as long as its length says.
    let mut client = client(Config::default());
    let (head_call, ()) = Request::head("http://a/").body(()).unwrap().into_parts();
    client.open(&head_call, true, ()).unwrap();
    let (events, _) = feed(&mut client, &head(END, &[ok, ("content-length", "5")]));
    assert!(matches!(events[..], [Event::Response { end: true, .. }]));
}

#[test]
fn as_many_as_the_server_takes() {
    let mut client = client(Config::default());
    feed(&mut client, &frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1]));
    let (head, ()) = Request::new(()).into_parts();
    let key = client.open(&head, false, ()).unwrap();
    assert!(!client.can_open() && client.open(&head, true, ()).is_none());
    client.forget(key);
    assert_eq!(said(&mut client), [(RESET, 1, 8)]);
    assert!(client.can_open());
    // What was on its way to it is let go, its head too.
    let late = [frame(HEADERS, WHOLE, 1, &[0x88]), frame(DATA, END, 1, b"x")].concat();
    let (events, violation) = feed(&mut client, &late);
    assert!(events.is_empty() && violation.is_none());
}

/// A head that is larger than a frame.
#[test]
fn large_heads_take_several_frames() {
    let (mut client, mut server) = (client(Config::default()), server(Config::default()));
    let mut request = Request::get("http://a/");
    for number in 0..40 {
        request = request.header(format!("x-{number}"), "v".repeat(1000));
    }
    let (head, ()) = request.body(()).unwrap().into_parts();
    client.open(&head, true, ()).unwrap();
    let written = client.output().take();
    let kinds: Vec<_> = frames(&written).iter().map(|frame| frame.0).collect();
    assert_eq!(kinds, [HEADERS, CONTINUATION, CONTINUATION]);
    let (events, _) = feed(&mut server, &written);
    let Event::Request { head: read, .. } = &events[0] else {
        panic!()
    };
    assert_eq!(read.headers, head.headers);
}
