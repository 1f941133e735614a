//! A peer that breaks the rules ends its connection, with a reason for both
//! sides, and nothing else.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use mesh_mux::{CloseReason, Config, ErrorCode, Violation};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Plays `bytes` to a server; gives why it ended and what it said last.
fn play(bytes: &[u8]) -> (CloseReason, Vec<(u8, u32, Vec<u8>)>) {
    run(async {
        let (mut raw, mut acceptor, driver) = raw_client(Config::default());
        tokio::spawn(async move {
            let mut streams = Vec::new();
            while let Some(incoming) = acceptor.accept().await {
                streams.push(incoming);
            }
        });
        let _ = raw.write_all(bytes).await;
        raw.shutdown().await.unwrap();
        let mut said = Vec::new();
        raw.read_to_end(&mut said).await.unwrap();
        (driver.await.unwrap(), frames(&said))
    })
}

#[track_caller]
fn breaks(bytes: &[Vec<u8>], expected: Violation) {
    let (reason, said) = play(&[preface(), bytes.concat()].concat());
    match reason {
        CloseReason::Violation(violation) => assert_eq!(violation, expected),
        other => panic!("{other}"),
    }
    let (kind, _, payload) = said.last().unwrap();
    assert_eq!(*kind, GOAWAY);
    assert_eq!(payload[4..8], expected.code().0.to_be_bytes());
    assert_eq!(payload[8..], *expected.to_string().as_bytes());
}

#[test]
fn rules() {
    let open = || frame(OPEN, 1, b"");
    breaks(&[frame(9, 0, b"")], Violation::UnknownType { kind: 9 });
    breaks(&[frame(SETTINGS, 0, b"")], Violation::SecondSettings);
    breaks(&[frame(DATA, 1, b"x")], Violation::NotOpened { id: 1 });
    breaks(
        &[open(), frame(DATA, 3, b"x")],
        Violation::NotOpened { id: 3 },
    );
    breaks(
        &[open(), frame(DATA, 2, b"x")],
        Violation::NotOpened { id: 2 },
    );
    breaks(&[frame(OPEN, 2, b"")], Violation::BadId { id: 2, last: 0 });
    breaks(&[open(), open()], Violation::BadId { id: 1, last: 1 });
    breaks(
        &[open(), frame(FIN, 1, b""), frame(DATA, 1, b"x")],
        Violation::AfterFin { id: 1 },
    );
    breaks(
        &[open(), frame(FIN, 1, b""), frame(FIN, 1, b"")],
        Violation::AfterFin { id: 1 },
    );
    breaks(
        &[frame(OPEN, 1, &[0; 4097])],
        Violation::BadLength {
            kind: OPEN,
            length: 4097,
        },
    );
    let full = frame(DATA, 1, &[0; 16_375]);
    breaks(
        &[open(), full.clone(), full.clone(), full],
        Violation::NoCredit {
            id: 1,
            length: 16_375,
            credit: 32_768 - 2 * 16_375,
        },
    );
    let most = frame(WINDOW, 1, &i32::MAX.to_be_bytes());
    breaks(
        &[open(), most.clone(), most],
        Violation::TooMuchCredit { id: 1 },
    );
    let most = frame(WINDOW, 0, &i32::MAX.to_be_bytes());
    breaks(&[most.clone(), most], Violation::TooMuchCredit { id: 0 });
    breaks(
        &[frame(GOAWAY, 0, &[0; 8]), open()],
        Violation::MayNotOpen { id: 1 },
    );
    breaks(
        &[frame(GOAWAY, 0, &[0; 8]), frame(GOAWAY, 0, &[1; 8])],
        Violation::GoAwayGrew {
            last: 0x0101_0101,
            before: 0,
        },
    );
}

#[test]
fn the_connection_window_is_enforced() {
    // 40 streams within their own windows, together over the connection's
    // first MiB: the server gives more only as it is read.
    let config = Config {
        connection_window: 1 << 20,
        ..Config::default()
    };
    run(async {
        let (mut raw, mut acceptor, driver) = raw_client(config);
        let mut bytes = preface();
        for i in 0..40 {
            bytes.extend(frame(OPEN, 2 * i + 1, b""));
            bytes.extend(frame(DATA, 2 * i + 1, &[0; 16_000]));
            bytes.extend(frame(DATA, 2 * i + 1, &[0; 16_000]));
        }
        let writing = tokio::spawn(async move {
            let _ = raw.write_all(&bytes).await;
            raw
        });
        let mut streams = Vec::new();
        while let Some(incoming) = acceptor.accept().await {
            streams.push(incoming);
        }
        let reason = driver.await.unwrap();
        assert!(
            matches!(
                &reason,
                CloseReason::Violation(Violation::NoCredit { id: 0, .. })
            ),
            "{reason}"
        );
        drop(writing.await.unwrap());
    });
}

#[test]
fn a_client_is_as_strict() {
    for (bytes, expected) in [
        (frame(OPEN, 2, b""), Violation::MayNotOpen { id: 2 }),
        (frame(DATA, 3, b"x"), Violation::NotOpened { id: 3 }),
        (
            frame(PING, 0, b"short"),
            Violation::BadLength {
                kind: PING,
                length: 5,
            },
        ),
    ] {
        run(async {
            let (mut raw, opener, driver) = raw_server(Config::default());
            let _stream = opener.open("m".into()).await.unwrap();
            raw.write_all(&[preface(), bytes].concat()).await.unwrap();
            raw.shutdown().await.unwrap();
            match driver.await.unwrap() {
                CloseReason::Violation(violation) => assert_eq!(violation, expected),
                other => panic!("{other}"),
            }
        });
    }
}

#[test]
fn another_protocol_is_named() {
    let (reason, _) = play(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(matches!(
        reason,
        CloseReason::Violation(Violation::BadMagic)
    ));
    let (reason, _) = play(&[b"mesh/1\r\n".to_vec(), frame(PING, 0, &[0; 8])].concat());
    assert!(matches!(
        reason,
        CloseReason::Violation(Violation::SettingsNotFirst)
    ));
}

#[test]
fn frames_of_streams_that_ended_are_let_pass() {
    let bytes = [
        preface(),
        frame(OPEN, 1, b""),
        frame(RESET, 1, &[0; 4]),
        frame(DATA, 1, b"x"),
        frame(WINDOW, 1, &[0, 0, 0, 1]),
        frame(FIN, 1, b""),
        frame(0x80 | 77, 1, b"a type of later"),
        frame(PONG, 0, &[0; 8]),
    ]
    .concat();
    let (reason, _) = play(&bytes);
    assert!(matches!(reason, CloseReason::PeerClosed), "{reason}");
}

#[test]
fn a_ping_is_answered() {
    run(async {
        let (mut raw, _acceptor, _driver) = raw_client(Config::default());
        let bytes = [preface(), frame(PING, 0, b"12345678")].concat();
        raw.write_all(&bytes).await.unwrap();
        let mut said = vec![0; 4096];
        let read = raw.read(&mut said).await.unwrap();
        let said = frames(&said[..read]);
        assert_eq!(said[0].0, SETTINGS);
        assert!(said.contains(&(PONG, 0, b"12345678".to_vec())));
    });
}

#[test]
fn an_end_inside_a_frame_is_not_clean() {
    let bytes = [preface(), frame(OPEN, 1, b"abc")].concat();
    let (reason, _) = play(&bytes[..bytes.len() - 1]);
    assert!(matches!(reason, CloseReason::Lost));
}

#[test]
fn the_peers_error_is_told_to_the_streams() {
    run(async {
        let (mut raw, opener, driver) = raw_server(Config::default());
        let mut first = opener.open("m".into()).await.unwrap();
        let mut second = opener.open("m".into()).await.unwrap();
        let goaway = [
            &1u32.to_be_bytes()[..],
            &2u32.to_be_bytes(),
            b"you sent too much",
        ]
        .concat();
        raw.write_all(&[preface(), frame(GOAWAY, 0, &goaway)].concat())
            .await
            .unwrap();
        let error = first.read(&mut [0]).await.unwrap_err();
        assert!(error.to_string().contains("you sent too much"), "{error}");
        let error = second.read(&mut [0]).await.unwrap_err();
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionRefused,
            "{error}"
        );
        drop(raw);
        assert!(matches!(
            driver.await.unwrap(),
            CloseReason::PeerError {
                code: ErrorCode::FLOW_CONTROL,
                ..
            }
        ));
    });
}

#[test]
fn a_peer_that_makes_us_answer_and_does_not_read_is_cut() {
    run(async {
        let config = Config {
            max_streams: 1,
            write_buffer: 1024,
            ..Config::default()
        };
        let (near, far) = tokio::io::duplex(4096);
        let (mut acceptor, driver) = mesh_mux::Connection::server(buffered(far), config);
        let driver = tokio::spawn(driver);
        let (_input, mut raw) = tokio::io::split(near);
        raw.write_all(&[preface(), frame(OPEN, 1, b"")].concat())
            .await
            .unwrap();
        let _held = acceptor.accept().await.unwrap();
        let mut id = 1;
        let sent = loop {
            id += 2;
            if raw.write_all(&frame(OPEN, id, b"")).await.is_err() {
                break id / 2;
            }
            assert!(id < 400_000, "no end");
        };
        assert!(sent > 10_000);
        assert!(matches!(
            driver.await.unwrap(),
            CloseReason::Violation(Violation::Excess(_))
        ));
    });
}

/// Frames as a well-behaved (but odd) client may send them.
fn traffic() -> impl Strategy<Value = Vec<u8>> {
    let one = (0u8..10, 0u32..8, prop::collection::vec(any::<u8>(), 0..40)).prop_map(
        |(kind, id, payload)| match kind {
            OPEN => frame(OPEN, id * 2 + 1, &payload),
            DATA => frame(DATA, id * 2 + 1, &[&payload[..], b"x"].concat()),
            FIN => frame(FIN, id * 2 + 1, b""),
            RESET => frame(RESET, id * 2 + 1, &[0, 0, 0, 4]),
            WINDOW => frame(WINDOW, id * 2 * (id % 2) + (id % 2), &[0, 0, 0, 9]),
            PING | PONG => frame(kind, 0, &[7; 8]),
            GOAWAY => frame(GOAWAY, 0, &[0; 8]),
            _ => frame(kind | 0x80, id, &payload),
        },
    );
    prop::collection::vec(one, 0..60).prop_map(|all| [preface(), all.concat()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_end_with_a_reason(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        play(&bytes);
        play(&[preface(), bytes].concat());
    }

    #[test]
    fn mutated_traffic_ends_with_a_reason(
        mut bytes in traffic(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        play(&bytes);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        play(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        play(&bytes);
    }

    #[test]
    fn the_fuzz_target_holds(choice: u8, bytes in traffic(), noise in prop::collection::vec(any::<u8>(), 0..200)) {
        mesh_mux::fuzz::fuzz_frames(&[&[choice][..], &bytes, &noise].concat());
        mesh_mux::fuzz::fuzz_frames(&[&[choice][..], &preface(), &noise].concat());
        mesh_mux::fuzz::fuzz_frames(&noise);
    }
}

#[test]
fn the_corpus_holds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/frames");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        mesh_mux::fuzz::fuzz_frames(&bytes);
        if let Some((_, bytes)) = bytes.split_first() {
            play(bytes);
        }
        files += 1;
    }
    assert!(files >= 8, "the corpus is there");
}
