//! How streams and connections begin and end.
#![allow(clippy::unwrap_used)]

mod common;

use std::future::poll_fn;
use std::io::ErrorKind;
use std::time::Duration;

use common::{Pair, buffered, default_pair, pair, run, settle};
use mesh_mux::{CloseReason, Config, MAX_METADATA, OpenError, ResetCode, StreamError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

#[test]
fn halves_close_one_by_one() {
    run(async {
        let mut pair = default_pair();
        let mut near = pair.opener.open("m".into()).await.unwrap();
        let mut far = pair.acceptor.accept().await.unwrap().stream;
        near.write_all(b"question").await.unwrap();
        near.shutdown().await.unwrap();
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "question");

        far.write_all(b"answer").await.unwrap();
        far.shutdown().await.unwrap();
        drop(far); // both halves have ended: nothing to reset
        text.clear();
        near.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "answer");
        assert_eq!(
            near.read(&mut [0]).await.unwrap(),
            0,
            "the end stays the end"
        );
        let error = near.write(b"more").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_dropped_stream_is_reset() {
    run(async {
        let mut pair = default_pair();
        let near = pair.opener.open("m".into()).await.unwrap();
        let mut far = pair.acceptor.accept().await.unwrap().stream;
        drop(near);
        let error = far.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(matches!(
            StreamError::of(&error),
            Some(StreamError::Reset(ResetCode::CANCELLED))
        ));
        let error = far.write(b"x").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        drop(far);
        settle().await;
        assert_eq!(pair.acceptor.active_streams(), 0);
    });
}

#[test]
fn a_reset_carries_its_code_and_wakes_both_directions() {
    run(async {
        let mut pair = default_pair();
        let near = pair.opener.open("m".into()).await.unwrap();
        let far = pair.acceptor.accept().await.unwrap().stream;
        let (mut input, mut output) = tokio::io::split(near);
        let reader = tokio::spawn(async move { input.read(&mut [0]).await });
        let writer = tokio::spawn(async move { output.write_all(&vec![0; 1 << 20]).await });
        settle().await;
        far.reset(ResetCode::DENIED);
        for error in [
            reader.await.unwrap().unwrap_err(),
            writer.await.unwrap().unwrap_err(),
        ] {
            assert!(matches!(
                StreamError::of(&error),
                Some(StreamError::Reset(ResetCode::DENIED))
            ));
        }
        settle().await;
        assert_eq!(
            pair.opener.stats(),
            Default::default(),
            "nothing is left behind"
        );
    });
}

#[test]
fn a_reset_after_fin_leaves_what_was_sent() {
    run(async {
        let mut pair = default_pair();
        let mut near = pair.opener.open("m".into()).await.unwrap();
        let mut far = pair.acceptor.accept().await.unwrap().stream;
        far.write_all(b"all of it").await.unwrap();
        far.shutdown().await.unwrap();
        drop(far); // it does not want our half
        settle().await;
        let mut text = String::new();
        near.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "all of it");
        let error = near.write(b"x").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn readers_that_do_not_read_block_nobody_else() {
    run(async {
        let mut pair = default_pair();
        let mut stuck = Vec::new();
        let mut writers = Vec::new();
        for _ in 0..200 {
            let near = pair.opener.open("stuck".into()).await.unwrap();
            let far = pair.acceptor.accept().await.unwrap().stream;
            stuck.push(far);
            let mut near = near;
            writers.push(tokio::spawn(async move {
                let _ = near.write_all(&vec![1; 1 << 20]).await;
            }));
        }
        settle().await;
        let held = pair.acceptor.stats().unread;
        assert_eq!(held, 200 * 32 * 1024, "each stops at its first window");

        let near = pair.opener.open("quick".into()).await.unwrap();
        let far = pair.acceptor.accept().await.unwrap().stream;
        let (mut from, mut to) = tokio::io::split(far);
        let echo = tokio::spawn(async move {
            tokio::io::copy(&mut from, &mut to).await.unwrap();
            to.shutdown().await.unwrap();
        });
        let (mut input, mut output) = tokio::io::split(near);
        tokio::spawn(async move {
            output.write_all(&vec![2; 8 << 20]).await.unwrap();
            output.shutdown().await.unwrap();
        });
        let mut total = Vec::new();
        input.read_to_end(&mut total).await.unwrap();
        assert_eq!(total.len(), 8 << 20);
        echo.await.unwrap();

        // When they go, what they held comes back.
        drop(stuck);
        for writer in writers {
            writer.await.unwrap();
        }
        settle().await;
        assert_eq!(pair.acceptor.stats(), Default::default());
    });
}

#[test]
fn what_nobody_reads_leaves_the_others_what_is_free() {
    run(async {
        let mut pair = default_pair();
        let mut stuck = Vec::new();
        // More than half of the connection's window, which is 16 MiB.
        for _ in 0..400 {
            let mut near = pair.opener.open("stuck".into()).await.unwrap();
            let far = pair.acceptor.accept().await.unwrap().stream;
            near.write_all(&[1; 32 * 1024]).await.unwrap();
            stuck.push((near, far));
        }
        settle().await;
        assert_eq!(pair.acceptor.stats().unread, 400 * 32 * 1024);
        let mut near = pair.opener.open("quick".into()).await.unwrap();
        let mut far = pair.acceptor.accept().await.unwrap().stream;
        let mut buffer = vec![0; 32 * 1024];
        // All that was granted before it began, twice.
        for turn in 0..1000 {
            let writing = near.write_all(&[2; 32 * 1024]);
            let both = async { tokio::try_join!(writing, far.read_exact(&mut buffer)) };
            let passed = tokio::time::timeout(Duration::from_secs(1), both).await;
            assert!(passed.is_ok(), "stopped after {turn} pieces of 32 KiB");
        }
    });
}

#[test]
fn a_window_grows_for_a_reader_that_keeps_up_and_only_then() {
    run(async {
        let mut pair = default_pair();
        let mut near = pair.opener.open("m".into()).await.unwrap();
        let mut far = pair.acceptor.accept().await.unwrap().stream;
        let writer = tokio::spawn(async move { near.write_all(&vec![0; 16 << 20]).await });
        let mut read = 0;
        while read < 4 << 20 {
            let length = far.fill_buf().await.unwrap().len();
            far.consume(length);
            read += length;
        }
        settle().await; // now it does not read
        let held = pair.acceptor.stats().unread;
        assert_eq!(held, 1 << 20, "the largest window");
        writer.abort();
    });
}

#[test]
fn writers_take_turns() {
    run(async {
        let config = Config {
            write_buffer: 16 * 1024,
            ..Config::default()
        };
        let mut pair = pair(4096, config, Config::default());
        let mut readers = Vec::new();
        for _ in 0..10 {
            let mut near = pair.opener.open("m".into()).await.unwrap();
            tokio::spawn(async move {
                loop {
                    near.write_all(&[0; 64 * 1024]).await.unwrap();
                }
            });
        }
        let counts = std::sync::Arc::new(std::sync::Mutex::new(vec![0usize; 10]));
        for i in 0..10 {
            let mut far = pair.acceptor.accept().await.unwrap().stream;
            let counts = counts.clone();
            readers.push(tokio::spawn(async move {
                loop {
                    let length = far.fill_buf().await.unwrap().len();
                    far.consume(length);
                    counts.lock().unwrap()[i] += length;
                    let total: usize = counts.lock().unwrap().iter().sum();
                    if total > 20 << 20 {
                        return;
                    }
                }
            }));
        }
        readers.pop().unwrap().await.unwrap();
        let counts = counts.lock().unwrap().clone();
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(most - least < 256 * 1024, "{counts:?}");
    });
}

#[test]
fn a_server_that_drains_finishes_what_it_has() {
    run(async {
        let Pair {
            opener,
            mut acceptor,
            client,
            server,
        } = default_pair();
        let mut first = opener.open("first".into()).await.unwrap();
        let mut far = acceptor.accept().await.unwrap().stream;
        acceptor.drain();
        // The client does not know yet, and opens one more: too late.
        let mut second = opener.open("second".into()).await.unwrap();
        second.write_all(b"lost, and known to be").await.unwrap();
        let error = second.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(StreamError::of(&error).unwrap().is_safe_to_retry());
        drop(second);
        let error = opener.open("third".into()).await.unwrap_err();
        assert!(matches!(error, OpenError::Draining) && error.is_safe_to_retry());
        assert!(opener.is_closed() && !opener.is_ready());
        assert!(acceptor.accept().await.is_none());

        first.write_all(b"goes on").await.unwrap();
        first.shutdown().await.unwrap();
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "goes on");
        assert!(!client.is_finished() && !server.is_finished());
        far.shutdown().await.unwrap();
        assert_eq!(first.read(&mut [0]).await.unwrap(), 0);
        assert!(matches!(client.await.unwrap(), CloseReason::Drained));
        assert!(matches!(server.await.unwrap(), CloseReason::Drained));
        assert!(matches!(opener.closed().await, CloseReason::Drained));
    });
}

#[test]
fn streams_that_wait_are_still_accepted_after_a_drain() {
    run(async {
        let mut pair = default_pair();
        let _first = pair.opener.open("first".into()).await.unwrap();
        settle().await;
        pair.acceptor.drain();
        let incoming = pair.acceptor.accept().await.unwrap();
        assert_eq!(&incoming.metadata[..], b"first");
        assert!(pair.acceptor.accept().await.is_none());
    });
}

#[test]
fn without_openers_the_connection_drains() {
    run(async {
        let Pair {
            opener,
            mut acceptor,
            client,
            server,
        } = default_pair();
        let near = opener.clone().open("m".into()).await.unwrap();
        drop(opener);
        let incoming = acceptor.accept().await.unwrap();
        assert!(acceptor.accept().await.is_none());
        assert!(!client.is_finished());
        drop((near, incoming));
        assert!(matches!(client.await.unwrap(), CloseReason::Drained));
        assert!(server.await.unwrap().is_clean());
    });
}

#[test]
fn without_an_acceptor_streams_are_refused() {
    run(async {
        let Pair {
            opener,
            acceptor,
            client,
            server,
        } = default_pair();
        let mut waiting = opener.open("m".into()).await.unwrap();
        settle().await;
        drop(acceptor);
        let error = waiting.read(&mut [0]).await.unwrap_err();
        assert!(StreamError::of(&error).unwrap().is_safe_to_retry());
        drop(waiting);
        assert!(client.await.unwrap().is_clean());
        assert!(server.await.unwrap().is_clean());
    });
}

#[test]
fn a_server_refuses_more_than_it_allows() {
    run(async {
        let server = Config {
            max_streams: 2,
            ..Config::default()
        };
        let mut pair = pair(4096, Config::default(), server);
        // Before the client knows the limit.
        let mut streams = Vec::new();
        for _ in 0..3 {
            streams.push(pair.opener.open("m".into()).await.unwrap());
        }
        let error = streams[2].read(&mut [0]).await.unwrap_err();
        assert!(StreamError::of(&error).unwrap().is_safe_to_retry());
        drop(streams.pop());
        // Now it knows, and waits.
        assert!(!pair.opener.is_ready());
        let opener = pair.opener.clone();
        let waiting = tokio::spawn(async move { opener.open("later".into()).await });
        settle().await;
        assert!(!waiting.is_finished());
        let first = pair.acceptor.accept().await.unwrap();
        drop(first);
        drop(streams.remove(0));
        let mut later = waiting.await.unwrap().unwrap();
        assert_eq!(&pair.acceptor.accept().await.unwrap().metadata[..], b"m");
        let incoming = pair.acceptor.accept().await.unwrap();
        assert_eq!(&incoming.metadata[..], b"later");
        later.write_all(b"x").await.unwrap();
    });
}

#[test]
fn callers_that_wait_for_a_stream_are_bounded_and_served_in_order() {
    run(async {
        let config = Config {
            max_streams: 1,
            max_pending_opens: 2,
            ..Config::default()
        };
        let mut pair = pair(4096, config, Config::default());
        let first = pair.opener.open("1".into()).await.unwrap();
        let spawn = |name: &'static str| {
            let opener = pair.opener.clone();
            tokio::spawn(async move { opener.open(name.into()).await })
        };
        let gives_up = spawn("2");
        settle().await;
        let third = spawn("3");
        settle().await;
        let error = pair.opener.open("4".into()).await.unwrap_err();
        assert!(matches!(error, OpenError::Busy { waiting: 2 }));
        gives_up.abort();
        settle().await;
        drop(first);
        let third = third.await.unwrap().unwrap();
        drop(third);
        pair.opener.drain();
        settle().await;
        assert!(
            pair.acceptor.accept().await.is_none(),
            "both were reset before"
        );
    });
}

#[test]
fn metadata_has_a_limit() {
    run(async {
        let mut pair = default_pair();
        let longest = vec![b'x'; MAX_METADATA];
        let _stream = pair.opener.open(longest.clone().into()).await.unwrap();
        assert_eq!(pair.acceptor.accept().await.unwrap().metadata, longest);
        let error = pair
            .opener
            .open(vec![0; MAX_METADATA + 1].into())
            .await
            .unwrap_err();
        assert!(!error.is_safe_to_retry());
    });
}

#[test]
fn a_cut_connection_is_not_the_end_of_a_stream() {
    run(async {
        let Pair {
            opener,
            mut acceptor,
            client,
            server,
        } = default_pair();
        let mut near = opener.open("m".into()).await.unwrap();
        let mut far = acceptor.accept().await.unwrap().stream;
        far.write_all(b"half").await.unwrap();
        settle().await;
        server.abort(); // the driver is dropped, and with it the transport
        let mut bytes = Vec::new();
        let error = near.read_to_end(&mut bytes).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        assert_eq!(bytes, b"half");
        let error = far.read(&mut [0]).await.unwrap_err();
        assert!(matches!(
            StreamError::of(&error),
            Some(StreamError::Connection(CloseReason::Dropped))
        ));
        assert!(matches!(client.await.unwrap(), CloseReason::Lost));
        assert!(matches!(
            opener.open("m".into()).await,
            Err(OpenError::Closed(_))
        ));
    });
}

#[test]
fn a_silent_peer_is_noticed() {
    run(async {
        let config = Config {
            keepalive_interval: Some(Duration::from_secs(15)),
            keepalive_timeout: Duration::from_secs(10),
            ..Config::default()
        };
        let (_raw, opener, driver) = common::raw_server(config);
        let begin = tokio::time::Instant::now();
        let mut stream = opener.open("m".into()).await.unwrap();
        let error = stream.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        assert!(matches!(
            driver.await.unwrap(),
            CloseReason::KeepaliveTimeout
        ));
        assert_eq!(begin.elapsed().as_secs(), 25);
    });
}

#[test]
fn an_idle_connection_stays() {
    run(async {
        let mut pair = default_pair();
        tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
        let _near = pair.opener.open("m".into()).await.unwrap();
        assert!(pair.acceptor.accept().await.is_some());
    });
}

#[test]
fn a_connection_closed_at_rest_is_clean() {
    run(async {
        let (raw, opener, driver) = common::raw_server(Config::default());
        settle().await;
        drop(raw);
        assert!(driver.await.unwrap().is_clean() || opener.is_closed());
    });
}

#[test]
fn handles_can_be_sent() {
    fn is_send<T: Send>(_: &T) {}
    let (near, _) = tokio::io::duplex(1);
    let (opener, driver) = mesh_mux::Connection::client(buffered(near), Config::default());
    is_send(&opener);
    is_send(&driver);
    is_send(&opener.open("m".into()));
    assert!(size_of::<mesh_mux::Stream>() <= 64);
}

/// Who asks for room gets what the next write takes, and is called when there
/// is some again.
#[test]
fn room_is_what_a_write_takes() {
    run(async {
        let mut pair = default_pair();
        let mut near = pair.opener.open("m".into()).await.unwrap();
        let mut far = pair.acceptor.accept().await.unwrap().stream;
        let room = poll_fn(|cx| near.poll_room(cx)).await.unwrap();
        assert_eq!(room, 32 * 1024);
        let written = near.write(&vec![1; room + 1]).await.unwrap();
        assert_eq!(written, room);

        let waiting = tokio::spawn(async move {
            let room = poll_fn(|cx| near.poll_room(cx)).await.unwrap();
            let written = near.write(&vec![2; 1 << 20]).await.unwrap();
            assert_eq!(written, room);
            near.shutdown().await.unwrap();
            let error = poll_fn(|cx| near.poll_room(cx)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            written
        });
        settle().await;
        assert!(!waiting.is_finished());
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), room + waiting.await.unwrap());
    });
}
