//! The fuzz targets: bytes from the other side.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};

use crate::hpack::TABLE_SIZE;
use crate::hpack::decoder::Decoder;
use crate::{Config, Connection, Event, Key, Room};

/// Header blocks, each with its length before it. Whatever comes, the table
/// stays within its size.
///
/// # Panics
/// If it does not: that is the bug it looks for.
pub fn fuzz_hpack(data: &[u8]) {
    let mut decoder = Decoder::new();
    let mut rest = data;
    while let Some((length, after)) = rest.split_first() {
        let length = usize::from(*length).min(after.len());
        let (block, next) = after.split_at(length);
        rest = next;
        let mut fields = 0;
        let read = decoder.block(block, |size, _| {
            assert!(size >= 32);
            fields += 1;
        });
        assert!(fields <= block.len());
        assert!(decoder.table_size() <= TABLE_SIZE);
        if read.is_err() {
            return;
        }
    }
}

/// Frames, whole ones or not, of a connection that is begun: the first byte
/// chooses the role and how they are cut into reads. Meanwhile an application
/// asks, answers, reads, sends and gives up.
///
/// # Panics
/// If what is held is not within its limits, or cutting changes what is read.
pub fn fuzz_connection(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else {
        return;
    };
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let begun = match choice & 1 {
        0 => [crate::frame::PREFACE, &settings, bytes].concat(),
        _ => [&settings, bytes].concat(),
    };
    run(choice, &begun, usize::from(choice >> 1) + 1);
}

/// What is at the other side of a connection says nothing of HTTP/2 at first.
pub fn fuzz_frames(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else {
        return;
    };
    let cut = events(choice, bytes, usize::from(choice >> 1) + 1);
    assert_eq!(cut, events(choice, bytes, usize::MAX));
}

fn config() -> Config {
    Config {
        streams: 8,
        stream_window: 65_535,
        connection_window: 128 * 1024,
        header_bytes: 2048,
        resets: 10,
        idle_frames: 50,
        ..Config::default()
    }
}

fn connection(choice: u8) -> Connection<Held> {
    match choice & 1 {
        0 => Connection::server(config()),
        _ => Connection::client(config()),
    }
}

/// What the frames say, however they are cut.
fn events(choice: u8, bytes: &[u8], cut: usize) -> (String, Vec<u8>) {
    let mut connection = connection(choice);
    let mut said = String::new();
    let mut bodies = 0;
    for read in bytes.chunks(cut) {
        let mut input = Bytes::copy_from_slice(read);
        loop {
            match connection.receive(&mut input) {
                Ok(Some(Event::Data { key, data, end })) => {
                    bodies += data.len();
                    if end {
                        said += &format!("{bodies} bytes to the end of {key:?}\n");
                    }
                }
                Ok(Some(other)) => said += &format!("{other:?}\n"),
                Ok(None) => break,
                Err(violation) => said += &format!("{violation}\n"),
            }
        }
    }
    (said, connection.output().take())
}

/// What an application holds of a stream.
#[derive(Default)]
struct Held(usize);

fn run(choice: u8, bytes: &[u8], cut: usize) {
    let mut connection = connection(choice);
    let mut keys: Vec<Key> = Vec::new();
    for read in bytes.chunks(cut) {
        let mut input = Bytes::copy_from_slice(read);
        loop {
            match connection.receive(&mut input) {
                Ok(Some(event)) => hear(&mut connection, &mut keys, event),
                Ok(None) => break,
                Err(_) => {
                    assert!(connection.is_done());
                    break;
                }
            }
        }
        assert!(input.is_empty() || connection.is_done());
        act(
            &mut connection,
            &mut keys,
            read.first().copied().unwrap_or(0),
        );
        assert!(connection.open_streams() <= 8);
        // A head, a body's pieces, and what is owed.
        assert!(connection.output().len() <= 1024 * 1024);
    }
}

fn hear(connection: &mut Connection<Held>, keys: &mut Vec<Key>, event: Event) {
    match event {
        Event::Request { key, .. } => keys.push(key),
        Event::Data { key, data, .. } => {
            if let Some(held) = connection.user(key) {
                held.0 += data.len();
                assert!(held.0 <= 65_535);
            }
        }
        Event::Response { .. } | Event::Trailers { .. } | Event::Reset { .. } => {}
    }
}

/// Does a little of everything, as `choice` says.
fn act(connection: &mut Connection<Held>, keys: &mut Vec<Key>, choice: u8) {
    let (mut request, ()) = Request::new(()).into_parts();
    request.headers.insert("x-a", HeaderValue::from_static("b"));
    if connection.open_streams() < 8
        && let Some(key) = connection.open(&request, choice & 1 == 0, Held::default())
    {
        keys.push(key);
    }
    for &key in &*keys {
        if choice & 2 == 0
            && let Some(held) = connection.user(key).map(|held| std::mem::take(&mut held.0))
        {
            connection.release(key, held);
        }
        if choice & 4 == 0 {
            let (head, ()) = Response::new(()).into_parts();
            connection.respond(key, &head, choice & 8 == 0);
        }
        if choice & 16 == 0 && connection.room(key) == Room::Some {
            connection.send(key, Bytes::from(vec![choice; 9000]), choice & 32 == 0);
        }
    }
    if choice & 24 == 0 && !keys.is_empty() {
        let key = keys.swap_remove(usize::from(choice) % keys.len());
        if choice & 64 == 0 {
            connection.send_trailers(key, HeaderMap::new());
        }
        let held = connection.user(key).map(std::mem::take);
        connection.forget(key);
        connection.release_connection(held.unwrap_or_default().0);
    }
    if choice & 128 == 0 {
        let length = connection.output().len();
        connection.written(length);
    }
    if choice == 255 {
        connection.drain();
    }
    while connection.take_writable().is_some() {}
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn corpus(of: &str, run: fn(&[u8])) {
        let folder = format!("{}/corpus/{of}", env!("CARGO_MANIFEST_DIR"));
        let mut paths: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|it| it.unwrap().path())
            .collect();
        paths.sort();
        assert!(!paths.is_empty());
        for path in paths {
            run(&std::fs::read(path).unwrap());
        }
    }

    #[test]
    fn of_each_corpus() {
        corpus("h2_hpack", fuzz_hpack);
        corpus("h2_frames", fuzz_frames);
        corpus("h2_connection", fuzz_connection);
    }

    /// Bytes that are frames at least.
    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let payload = proptest::collection::vec(any::<u8>(), 0..40);
        let one =
            (0u8..11, any::<u8>(), 0u8..12, payload).prop_map(|(kind, flags, id, payload)| {
                let length = u8::try_from(payload.len()).unwrap();
                [
                    &[0, 0, length, kind, flags & 0x2d, 0, 0, 0, id][..],
                    &payload,
                ]
                .concat()
            });
        proptest::collection::vec(one, 0..30).prop_map(|frames| frames.concat())
    }

    proptest! {
        #[test]
        fn hpack(data: Vec<u8>) {
            fuzz_hpack(&data);
        }

        #[test]
        fn any_frames(choice: u8, data in frames()) {
            fuzz_frames(&[&[choice][..], &data].concat());
            let begun = [&[choice][..], crate::frame::PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0], &data];
            fuzz_frames(&begun.concat());
            fuzz_connection(&[&[choice][..], &data].concat());
        }
    }
}
