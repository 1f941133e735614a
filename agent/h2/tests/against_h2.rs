//! Against the library h2: whatever a client says, we take what it takes, and
//! read the same in it, or refuse.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::future::poll_fn;

use bytes::Bytes;
use common::*;
use http::{HeaderMap, request};
use mesh_h2::{Config, Event, Key};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A request as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Read {
    head: String,
    body: Vec<u8>,
    trailers: Vec<String>,
    whole: bool,
}

fn lines(headers: &HeaderMap) -> Vec<String> {
    let mut all: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {:?}", value.as_bytes()))
        .collect();
    all.sort();
    all
}

fn head_line(head: &request::Parts) -> String {
    format!("{} {} {:?}", head.method, head.uri, lines(&head.headers))
}

/// What we read, and whether the connection went on to its end.
fn by_us(bytes: &[u8], cut: usize) -> (BTreeMap<u32, Read>, bool) {
    let mut server = mesh_h2::Connection::<()>::server(Config::default());
    let mut all: BTreeMap<u32, Read> = BTreeMap::new();
    let mut fine = true;
    for piece in bytes.chunks(cut) {
        let (events, violation) = feed(&mut server, piece);
        for event in events {
            take(&mut server, &mut all, event);
        }
        fine &= violation.is_none();
        let length = server.output().len();
        server.written(length);
    }
    (all, fine)
}

fn take(server: &mut mesh_h2::Connection<()>, all: &mut BTreeMap<u32, Read>, event: Event) {
    let entry = |all: &mut BTreeMap<u32, Read>, key: Key| all.entry(key.id()).or_default().clone();
    match event {
        Event::Request { key, head, end } => {
            let mut read = entry(all, key);
            (read.head, read.whole) = (head_line(&head), end);
            all.insert(key.id(), read);
        }
        Event::Data { key, data, end } => {
            server.release(key, data.len());
            let mut read = entry(all, key);
            read.body.extend_from_slice(&data);
            read.whole = end;
            all.insert(key.id(), read);
        }
        Event::Trailers { key, trailers } => {
            let mut read = entry(all, key);
            (read.trailers, read.whole) = (lines(&trailers), true);
            all.insert(key.id(), read);
        }
        Event::Reset { key, .. } => {
            all.remove(&key.id());
        }
        Event::Response { .. } => panic!("of a client"),
    }
}

/// What h2 reads.
fn by_h2(bytes: &[u8]) -> (BTreeMap<u32, Read>, bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let bytes = bytes.to_vec();
    runtime.block_on(async move {
        let (near, far) = tokio::io::duplex(1 << 22);
        let (mut reads, mut writes) = tokio::io::split(near);
        writes.write_all(&bytes).await.unwrap();
        // It lets go of what it has not given out when the other side closes: first
        // all tasks have had their turns.
        let closes = tokio::spawn(async move {
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            let _ = writes.shutdown().await;
        });
        let drain = tokio::spawn(async move {
            let mut sink = Vec::new();
            let _ = reads.read_to_end(&mut sink).await;
        });
        let begun = h2::server::Builder::new()
            .max_frame_size(64 * 1024)
            .initial_window_size(1024 * 1024)
            .initial_connection_window_size(8 * 1024 * 1024)
            .max_header_list_size(64 * 1024)
            .max_concurrent_streams(100)
            .max_concurrent_reset_streams(1000)
            .handshake::<_, Bytes>(far)
            .await;
        let Ok(mut connection) = begun else {
            return (BTreeMap::new(), false);
        };
        let mut reading = Vec::new();
        let mut fine = true;
        while let Some(next) = connection.accept().await {
            match next {
                Err(_) => {
                    fine = false;
                    break;
                }
                Ok((request, respond)) => reading.push(tokio::spawn(read_h2(request, respond))),
            }
        }
        drop(connection);
        let mut all = BTreeMap::new();
        for one in reading {
            let (id, read) = one.await.unwrap();
            all.insert(id, read);
        }
        drain.abort();
        closes.abort();
        (all, fine)
    })
}

async fn read_h2(
    request: http::Request<h2::RecvStream>,
    respond: h2::server::SendResponse<Bytes>,
) -> (u32, Read) {
    let (head, mut body) = request.into_parts();
    let id = u32::from(body.stream_id());
    let mut read = Read {
        head: head_line(&head),
        ..Read::default()
    };
    let failed = loop {
        match body.data().await {
            None => break false,
            Some(Err(_)) => break true,
            Some(Ok(data)) => {
                let _ = body.flow_control().release_capacity(data.len());
                read.body.extend_from_slice(&data);
            }
        }
    };
    if !failed && let Ok(trailers) = poll_fn(|cx| body.poll_trailers(cx)).await {
        read.trailers = trailers.as_ref().map(lines).unwrap_or_default();
        read.whole = true;
    }
    drop(respond);
    (id, read)
}

/// What a client does.
#[derive(Clone, Debug)]
enum Step {
    Head(u8, Vec<(usize, usize)>, u8, bool),
    Data(u8, usize, u8, bool),
    Reset(u8),
    Window(u8, u32),
    Ping(bool),
    Settings(u16, u32),
    Priority(u8, u8),
    GoAway(u8),
    Unknown(u8),
    Raw(Vec<u8>),
}

const FIELDS: [(&str, &str); 34] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "a:1"),
    (":path", "/x?y"),
    (":method", "POST"),
    (":scheme", "https"),
    (":authority", "b"),
    (":path", "/"),
    (":method", "CONNECT"),
    (":method", "OPTIONS"),
    (":path", "*"),
    (":path", ""),
    (":path", "x"),
    (":status", "200"),
    (":protocol", "websocket"),
    (":other", "x"),
    ("x-a", "b"),
    ("x-a", ""),
    ("x-a", "\u{e9}"),
    ("x-a", " b"),
    ("x-a", "b\r\nc"),
    ("X-A", "b"),
    ("x a", "b"),
    ("", "b"),
    ("te", "trailers"),
    ("te", "gzip"),
    ("connection", "close"),
    ("transfer-encoding", "chunked"),
    ("content-length", "0"),
    ("content-length", "5"),
    ("content-length", "-5"),
    ("cookie", "a=b"),
    ("host", "a:1"),
    ("content-type", "text/plain"),
];

/// One field, written in one of the ways that there are.
fn field(out: &mut Vec<u8>, which: usize, how: usize) {
    let (name, value) = FIELDS[which % FIELDS.len()];
    let string = |out: &mut Vec<u8>, text: &str| {
        out.push(u8::try_from(text.len()).unwrap());
        out.extend_from_slice(text.as_bytes());
    };
    match how % 8 {
        // Whatever is there in the tables, or is not.
        6 => return out.push(0x80 | u8::try_from(which).unwrap()),
        7 => {
            out.push(0x40 | u8::try_from(which).unwrap());
            return string(out, value);
        }
        0..3 => out.push(0x40),
        3 => out.push(0x10),
        _ => out.push(0),
    }
    string(out, name);
    string(out, value);
}

fn bytes_of(steps: &[Step]) -> Vec<u8> {
    let mut out = beginning(true);
    for step in steps {
        let id = |id: &u8| u32::from(id % 12);
        let end = |end: &bool| if *end { END } else { 0 };
        out.extend(match step {
            Step::Head(stream, fields, how, ends) => {
                let mut block = Vec::new();
                if how & 1 == 0 {
                    block.extend(common::block(if *ends { &GET } else { &POST }));
                }
                for (which, how) in fields {
                    field(&mut block, *which, *how);
                }
                let (first, rest) = block.split_at(block.len() / 2);
                match how % 8 {
                    6 | 7 => [
                        frame(HEADERS, end(ends), id(stream), first),
                        frame(CONTINUATION, WHOLE, id(stream), rest),
                    ]
                    .concat(),
                    4 | 5 => {
                        let padded = [&[2, 0, 0, 0, 0, 7], &block[..], &[0, 0]].concat();
                        let flags = end(ends) | WHOLE | PADDED | 0x20;
                        frame(HEADERS, flags, id(stream), &padded)
                    }
                    _ => frame(HEADERS, end(ends) | WHOLE, id(stream), &block),
                }
            }
            Step::Data(stream, length, padding, ends) => match padding % 4 {
                0 => {
                    let padded = [
                        &[*padding],
                        &vec![b'd'; *length][..],
                        &vec![0; usize::from(*padding)],
                    ];
                    frame(DATA, end(ends) | PADDED, id(stream), &padded.concat())
                }
                _ => frame(DATA, end(ends), id(stream), &vec![b'd'; *length]),
            },
            Step::Reset(stream) => frame(RESET, 0, id(stream), &[0, 0, 0, 8]),
            Step::Window(stream, more) => frame(WINDOW, 0, id(stream), &more.to_be_bytes()),
            Step::Ping(ack) => frame(PING, end(ack), 0, b"12345678"),
            Step::Settings(name, value) => {
                let setting = [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
                frame(SETTINGS, 0, 0, &setting)
            }
            // On another: that none may be on itself is no rule of RFC 9113 any more.
            Step::Priority(stream, on) => {
                frame(PRIORITY, 0, id(stream), &[0, 0, 0, 12 + on % 12, 1])
            }
            Step::GoAway(last) => frame(GOAWAY, 0, 0, &[0, 0, 0, *last, 0, 0, 0, 0]),
            Step::Unknown(kind) => frame(kind | 0x10, *kind, u32::from(*kind), b"unknown"),
            Step::Raw(bytes) => bytes.clone(),
        });
    }
    out
}

fn step() -> impl Strategy<Value = Step> {
    let fields = vec((0usize..64, 0usize..8), 0..5);
    prop_oneof![
        8 => (any::<u8>(), fields, any::<u8>(), any::<bool>())
            .prop_map(|(id, fields, how, end)| Step::Head(id | 1, fields, how, end)),
        6 => (any::<u8>(), 0usize..40, any::<u8>(), any::<bool>())
            .prop_map(|(id, length, padding, end)| Step::Data(id | 1, length, padding, end)),
        1 => any::<u8>().prop_map(|id| Step::Reset(id | 1)),
        1 => (any::<u8>(), prop_oneof![Just(0), Just(1), any::<u32>()])
            .prop_map(|(id, more)| Step::Window(id, more)),
        1 => any::<bool>().prop_map(Step::Ping),
        1 => (0u16..9, prop_oneof![Just(0), Just(1), 0u32..70_000, any::<u32>()])
            .prop_map(|(name, value)| Step::Settings(name, value)),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(id, on)| Step::Priority(id, on)),
        1 => any::<u8>().prop_map(Step::GoAway),
        1 => any::<u8>().prop_map(Step::Unknown),
        1 => vec(any::<u8>(), 0..20).prop_map(Step::Raw),
    ]
}

/// What is well formed: heads in order, each with a body of its length.
fn proper() -> impl Strategy<Value = Vec<Step>> {
    let extra = vec(
        (prop_oneof![16usize..18, Just(24), 31usize..34], 0usize..6),
        0..5,
    );
    let one = (
        extra,
        0u8..4,
        any::<bool>(),
        vec(0usize..40, 0..4),
        any::<u8>(),
    );
    vec(one, 1..6).prop_map(|requests| {
        let mut steps = Vec::new();
        for (number, (fields, how, end, pieces, padding)) in requests.into_iter().enumerate() {
            let id = u8::try_from(number * 2 + 1).unwrap();
            steps.push(Step::Head(id, fields, how * 2, end));
            if !end {
                let pieces = pieces.into_iter();
                steps.extend(pieces.map(|length| Step::Data(id, length, padding, false)));
                steps.push(Step::Data(id, 1, padding, true));
            }
        }
        steps
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes(steps in vec(step(), 1..20), cut in 1usize..200) {
        let bytes = bytes_of(&steps);
        let (ours, we_fine) = by_us(&bytes, cut);
        let (theirs, they_fine) = by_h2(&bytes);
        // What we pass on is what h2 reads too.
        for (id, read) in &ours {
            if let Some(other) = theirs.get(id) {
                prop_assert_eq!(&read.head, &other.head);
                if read.whole && other.whole {
                    prop_assert_eq!(read, other);
                }
            }
            if read.whole && they_fine && we_fine {
                prop_assert_eq!(Some(read), theirs.get(id), "stream {}", id);
            }
        }
    }

    #[test]
    fn what_is_proper_is_taken(steps in proper(), cut in 1usize..200) {
        let bytes = bytes_of(&steps);
        let (ours, we_fine) = by_us(&bytes, cut);
        let (theirs, they_fine) = by_h2(&bytes);
        prop_assert!(we_fine && they_fine);
        prop_assert_eq!(&ours, &theirs);
        let heads = steps.iter().filter(|step| matches!(step, Step::Head(..)));
        prop_assert_eq!(ours.len(), heads.count());
    }
}
