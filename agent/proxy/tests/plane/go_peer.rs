//! Go's HTTP/2 at both ends. Where Go is not installed it is skipped, and says so.

use std::path::Path;
use std::process::{Command, Stdio};

use mesh_model::Protocol;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::*;

/// The program, built; `None` where Go is not installed.
fn built(folder: &Path) -> Option<std::path::PathBuf> {
    let program = folder.join("peer");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plane/go/main.go");
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(&program).arg(source);
    go.env("GO111MODULE", "off").env("GOTOOLCHAIN", "local");
    match go.output() {
        Ok(output) if output.status.success() => Some(program),
        Ok(output) => {
            // One that is too old for HTTP/2 without TLS, mostly.
            println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
            None
        }
        Err(error) => {
            println!("skipped: go: {error}");
            None
        }
    }
}

#[tokio::test]
async fn http2_of_go_at_both_ends() {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = built(folder.path()) else {
        return;
    };
    let mut server = tokio::process::Command::new(&program)
        .arg("serve")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let address = in_time(lines.next_line()).await.unwrap().unwrap();
    let pair = Pair::new(Protocol::Http2, address.parse().unwrap()).await;
    let mut client = tokio::process::Command::new(&program);
    client.arg("call").arg(pair.address.to_string()).arg("200");
    client.kill_on_drop(true);
    let output = tokio::time::timeout(std::time::Duration::from_secs(120), client.output()).await;
    let output = output.unwrap().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
