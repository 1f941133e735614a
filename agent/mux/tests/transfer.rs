//! Whatever the sizes and the interleaving: every byte arrives, in order, and
//! nothing is held beyond the limits.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Pair, pair, run};
use mesh_mux::{CloseReason, Config, Control, ResetCode, Stream, StreamError};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What one side does with one stream.
#[derive(Clone, Debug)]
struct Plan {
    send: usize,
    write: usize,
    read: usize,
    /// After how many bytes received the side gives up, if it does.
    give_up: Option<usize>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let give_up = prop_oneof![4 => Just(None), 1 => (0usize..80_000).prop_map(Some)];
    (0usize..120_000, 1usize..40_000, 1usize..40_000, give_up).prop_map(
        |(send, write, read, give_up)| Plan {
            send,
            write,
            read,
            give_up,
        },
    )
}

fn byte(id: u32, at: usize, salt: u8) -> u8 {
    (at as u32).wrapping_mul(31).wrapping_add(id).to_le_bytes()[0] ^ (at >> 8) as u8 ^ salt
}

/// Sends and receives as planned. Says what happened to the receiving half.
async fn play(
    stream: Stream,
    plan: Plan,
    (mine, theirs): (u8, u8),
    limits: Limits,
) -> (usize, Result<bool, std::io::Error>) {
    let id = stream.id();
    let (mut input, mut output) = tokio::io::split(stream);
    let sending = async {
        let mut at = 0;
        while at < plan.send {
            let end = plan.send.min(at + plan.write);
            let bytes: Vec<u8> = (at..end).map(|at| byte(id, at, mine)).collect();
            if output.write_all(&bytes).await.is_err() {
                return;
            }
            limits.check();
            at = end;
        }
        let _ = output.shutdown().await;
    };
    let receiving = async {
        let mut buffer = vec![0; plan.read];
        let mut at = 0;
        loop {
            if plan.give_up.is_some_and(|limit| at >= limit) {
                return (at, Ok(false));
            }
            match input.read(&mut buffer).await {
                Ok(0) => return (at, Ok(true)),
                Err(error) => return (at, Err(error)),
                Ok(read) => {
                    for (i, got) in buffer[..read].iter().enumerate() {
                        assert_eq!(*got, byte(id, at + i, theirs), "stream {id} at {}", at + i);
                    }
                    at += read;
                    limits.check();
                }
            }
        }
    };
    tokio::pin!(sending, receiving);
    tokio::select! {
        result = &mut receiving => {
            if !matches!(result.1, Ok(false)) {
                sending.await;
            } // else it gives up, and drops the stream while it sends
            result
        }
        () = &mut sending => receiving.await,
    }
}

#[derive(Clone)]
struct Limits {
    control: Control,
    unread: usize,
    unsent: usize,
}

impl Limits {
    fn check(&self) {
        let stats = self.control.stats();
        assert!(stats.unread <= self.unread, "{stats:?}");
        assert!(stats.unsent <= self.unsent, "{stats:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_arrives_in_order(
        plans in prop::collection::vec((plan(), plan()), 1..12),
        pipe in 1usize..20_000,
        write_buffer in 1024usize..70_000,
        max_streams in 1usize..12,
    ) {
        run(async move {
            let config = Config { write_buffer, max_streams, connection_window: 1 << 20, ..Config::default() };
            let mut pair = pair(pipe, config.clone(), config);
            let limits = |control: Control| Limits {
                control,
                unread: 1 << 20,
                // Headers, WINDOWs and RESETs may go over the limit for data.
                unsent: write_buffer + 12 * 200,
            };
            let server_plans = plans.clone();
            let server_limits = limits(pair.acceptor.control());
            let server = tokio::spawn(async move {
                let mut tasks = Vec::new();
                while let Some(incoming) = pair.acceptor.accept().await {
                    let which = usize::from(incoming.metadata[0]);
                    let (_, plan) = server_plans[which].clone();
                    let limits = server_limits.clone();
                    tasks.push((which, tokio::spawn(play(incoming.stream, plan, (b's', b'c'), limits))));
                }
                let mut results = Vec::new();
                for (which, task) in tasks {
                    results.push((which, task.await.unwrap()));
                }
                results
            });
            let mut tasks = Vec::new();
            for (which, (plan, _)) in plans.iter().cloned().enumerate() {
                let opener = pair.opener.clone();
                let limits = limits(opener.control());
                tasks.push(tokio::spawn(async move {
                    loop {
                        let stream = opener.open(vec![which as u8].into()).await.unwrap();
                        let result = play(stream, plan.clone(), (b'c', b's'), limits.clone()).await;
                        match &result.1 {
                            // The server still held streams that we had given up.
                            Err(error) if StreamError::of(error).unwrap().is_safe_to_retry() => {}
                            _ => return result,
                        }
                    }
                }));
            }
            let mut clients = Vec::new();
            for task in tasks {
                clients.push(task.await.unwrap());
            }
            let opener = pair.opener;
            opener.drain();
            let servers = server.await.unwrap();
            for (which, (near, far)) in plans.iter().enumerate() {
                let cut = near.give_up.is_some() || far.give_up.is_some();
                let (got, end) = &clients[which];
                if !cut {
                    assert_eq!(*got, far.send);
                    assert!(matches!(end, Ok(true)));
                } else if let Err(error) = end {
                    assert!(matches!(StreamError::of(error), Some(StreamError::Reset(ResetCode::CANCELLED))));
                }
                // A stream that its client dropped at once may never be accepted.
                if let Some((_, (got, end))) = servers.iter().find(|(w, _)| *w == which) {
                    if !cut {
                        assert_eq!(*got, near.send);
                        assert!(matches!(end, Ok(true)));
                    }
                } else {
                    assert!(cut);
                }
            }
            let stats = opener.stats();
            assert_eq!((stats.streams, stats.unread, stats.unsent), (0, 0, 0));
            assert!(matches!(pair.client.await.unwrap(), CloseReason::Drained));
            assert!(matches!(pair.server.await.unwrap(), CloseReason::Drained));
        });
    }
}

/// Tasks that run truly side by side: no wake-up gets lost.
#[test]
fn on_several_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let config = Config {
            write_buffer: 4096,
            ..Config::default()
        };
        let Pair {
            opener,
            mut acceptor,
            client,
            server,
        } = pair(8192, config.clone(), config);
        tokio::spawn(async move {
            while let Some(incoming) = acceptor.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = tokio::io::split(incoming.stream);
                    tokio::io::copy(&mut from, &mut to).await.unwrap();
                    to.shutdown().await.unwrap();
                });
            }
        });
        let mut tasks = Vec::new();
        for _ in 0..40 {
            let opener = opener.clone();
            tasks.push(tokio::spawn(async move {
                for _ in 0..5 {
                    let stream = opener.open("echo".into()).await.unwrap();
                    let id = stream.id();
                    let (mut input, mut output) = tokio::io::split(stream);
                    let sent: Vec<u8> = (0..50_000).map(|at| byte(id, at, 0)).collect();
                    let copy = sent.clone();
                    let sending = tokio::spawn(async move {
                        output.write_all(&copy).await.unwrap();
                        output.shutdown().await.unwrap();
                    });
                    let mut got = Vec::new();
                    input.read_to_end(&mut got).await.unwrap();
                    assert!(got == sent);
                    sending.await.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        drop(opener);
        assert!(client.await.unwrap().is_clean());
        assert!(server.await.unwrap().is_clean());
    });
}
