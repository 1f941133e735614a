//! What is ready in one turn leaves in one write.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Counted, buffered, run, settle};
use mesh_mux::{Config, Connection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[test]
fn a_hundred_small_exchanges_are_one_write_each_way() {
    run(async {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (client_writes, server_writes) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let near = Counted {
            io: near,
            writes: client_writes.clone(),
        };
        let far = Counted {
            io: far,
            writes: server_writes.clone(),
        };
        let (opener, client) = Connection::client(buffered(near), Config::default());
        let (mut acceptor, server) = Connection::server(buffered(far), Config::default());
        tokio::spawn(client);
        tokio::spawn(server);
        tokio::spawn(async move {
            while let Some(mut incoming) = acceptor.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 7];
                    while incoming.stream.read_exact(&mut request).await.is_ok() {
                        incoming.stream.write_all(b"answer").await.unwrap();
                    }
                });
            }
        });
        let mut streams = Vec::new();
        for _ in 0..100 {
            streams.push(opener.open("x".into()).await.unwrap());
        }
        settle().await;
        // The preface and a hundred OPENs.
        assert_eq!(client_writes.swap(0, Ordering::Relaxed), 1);
        server_writes.store(0, Ordering::Relaxed);

        let start = Arc::new(tokio::sync::Barrier::new(100));
        let mut tasks = Vec::new();
        for mut stream in streams {
            let start = start.clone();
            tasks.push(tokio::spawn(async move {
                start.wait().await;
                stream.write_all(b"request").await.unwrap();
                let mut answer = [0; 6];
                stream.read_exact(&mut answer).await.unwrap();
                assert_eq!(&answer, b"answer");
                stream
            }));
        }
        let mut streams = Vec::new();
        for task in tasks {
            streams.push(task.await.unwrap());
        }
        assert_eq!(client_writes.load(Ordering::Relaxed), 1);
        assert_eq!(server_writes.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn bytes_written_one_at_a_time_share_frames() {
    run(async {
        let (mut raw, opener, _driver) = common::raw_server(Config::default());
        let mut stream = opener.open("x".into()).await.unwrap();
        for _ in 0..1000 {
            stream.write_all(b"y").await.unwrap();
        }
        stream.shutdown().await.unwrap();
        settle().await;
        let mut bytes = vec![0; 4096];
        let read = raw.read(&mut bytes).await.unwrap();
        let data: Vec<_> = common::frames(&bytes[..read])
            .into_iter()
            .filter(|(kind, ..)| *kind == common::DATA)
            .collect();
        assert_eq!(data, [(common::DATA, 1, vec![b'y'; 1000])]);
    });
}
