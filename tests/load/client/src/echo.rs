//! An application of byte streams that sends back what comes.

use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use crate::Failure;

pub(crate) fn run(address: &str) -> Result<Value, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await; // too many files
                continue;
            };
            tokio::task::spawn_local(async move {
                let _ = stream.set_nodelay(true);
                let (mut from, mut to) = stream.split();
                // A caller that goes away ends only its stream.
                if tokio::io::copy(&mut from, &mut to).await.is_ok() {
                    let _ = to.shutdown().await;
                }
            });
        }
    })
}
