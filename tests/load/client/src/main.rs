//! What `tests/load` and `tests/endure` need beside the programs that it measures. Each command
//! prints one line of JSON.
//!
//! - `certs DIR NAME…`: a CA, and a key and certificate for each identity.
//! - `serve ADDR`: an application of HTTP/1.1 and h2c that answers 1 KiB. For
//!   where there is no nginx.
//! - `echo ADDR`: an application that sends back what comes.
//! - `closed ADDR`: a new request when the one before is answered. For where
//!   there is no wrk.
//! - `streams ADDR`: the same with the streams of one HTTP/2 connection, in
//!   gRPC's form. For where there is no h2load.
//! - `rate ADDR`: requests at fixed times, whatever the answers take; their
//!   latency counts from the time that each was planned for.
//! - `get ADDR`: large bodies, one after the other, on one connection.
//! - `steady ADDR`: requests at a constant rate and echoes on byte streams, until
//!   the end of standard input, whatever becomes of them; one line each second.
//! - `hold ADDR`: connections with one request each, kept until the end of
//!   standard input; with `-read no` nothing of the answers is read.
//! - `handshakes`: mutual TLS in memory, by how keys are agreed on.
//! - `sign ADDR,ADDR…`: leaves, asked of servers as an agent does; a sample for each
//!   line of standard input.
//! - `herd SOCKET`: sidecars of an agent that start at once, and hold their leaves until
//!   the end of standard input.
#![forbid(unsafe_code)]

mod certs;
mod closed;
mod echo;
mod exchange;
mod handshakes;
mod herd;
mod hold;
mod node;
mod rate;
mod serve;
mod sign;
mod steady;
mod streams;
mod tally;

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

/// What went wrong, in words.
type Failure = Box<dyn std::error::Error + Send + Sync>;

const USAGE: &str = "\
mesh-load COMMAND ADDR [-name value]...

  certs DIR NAME...   a CA and a certificate for each NAME
  serve ADDR          answers 1 KiB over HTTP/1.1 and h2c
  echo ADDR           sends back what comes
  closed ADDR         -connections 64 -seconds 3 -body 0 -close no -path /
  streams ADDR        -streams 64 -seconds 3
  rate ADDR           -connections 64 -seconds 3 -per-second 2000 -path /
  get ADDR            -seconds 3 -path /
  steady ADDR         -tcp ADDR -connections 40 -per-second 1000 -fresh 50 -streams 50 -pause-ms 100
  hold ADDR           -connections 1000 -path / -read yes
  handshakes          -exchanges X25519,X25519MLKEM768,P-256,default -rounds 5 -seconds 0.5
  sign ADDR,ADDR...   -ca FILE -cert FILE -key FILE -proxies 256; lines SECONDS AT_ONCE
  herd SOCKET         -count 1000 -instance herd -seconds 120
";

fn main() -> ExitCode {
    match run() {
        Ok(told) => {
            println!("{told}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("mesh-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Value, Failure> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().ok_or(USAGE)?;
    if command == "handshakes" {
        return handshakes::run(&Options::parse(arguments)?);
    }
    let place = arguments.next().ok_or(USAGE)?;
    if command == "certs" {
        return certs::write(place.as_ref(), &arguments.collect::<Vec<_>>());
    }
    let options = Options::parse(arguments)?;
    match command.as_str() {
        "serve" => serve::run(&place),
        "echo" => echo::run(&place),
        "steady" => steady::run(&place, &options),
        "closed" => closed::run(&place, &options),
        "streams" => streams::run(&place, &options),
        "rate" => rate::run(&place, &options),
        "get" => closed::get(&place, &options),
        "hold" => hold::run(&place, &options),
        "sign" => sign::run(&place, &options),
        "herd" => herd::run(&place, &options),
        _ => Err(USAGE.into()),
    }
}

/// `-name value` pairs.
struct Options(HashMap<String, String>);

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = HashMap::new();
        while let Some(name) = arguments.next() {
            let (Some(name), Some(value)) = (name.strip_prefix('-'), arguments.next()) else {
                return Err(USAGE.into());
            };
            options.insert(name.to_owned(), value);
        }
        Ok(Self(options))
    }

    fn number(&self, name: &str, otherwise: usize) -> Result<usize, Failure> {
        match self.0.get(name) {
            Some(text) => text
                .parse()
                .map_err(|_| format!("-{name} {text}: not a number").into()),
            None => Ok(otherwise),
        }
    }

    fn seconds(&self) -> Result<Duration, Failure> {
        match self.0.get("seconds") {
            Some(text) => match text.parse() {
                Ok(seconds) if (0.01..=600.0).contains(&seconds) => {
                    Ok(Duration::from_secs_f64(seconds))
                }
                _ => Err(format!("-seconds {text}: write 0.01 to 600").into()),
            },
            None => Ok(Duration::from_secs(3)),
        }
    }

    fn path(&self) -> &str {
        self.text("path").unwrap_or("/")
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn is(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value == "yes")
    }
}
