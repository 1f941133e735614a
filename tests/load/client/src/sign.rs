//! Leaves, asked of the servers as an agent asks for its sidecars': with the node's certificate, for
//! sidecars that it has registered. Begins a sample at each line of standard input.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use mesh_proto::servers::v1 as pb;
use mesh_proto::servers::v1::servers_client::ServersClient;
use mesh_tls::LeafKey;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::{Failure, Options, node};

/// Sidecars that are registered, each with a key of its own.
const PROXIES: usize = 256;

/// `ADDR,ADDR…`: the servers, who are asked in turn. A line `SECONDS AT_ONCE` begins a sample, which
/// is told in one line.
pub(crate) fn run(servers: &str, options: &Options) -> Result<Value, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(samples(servers, options))
}

async fn samples(servers: &str, options: &Options) -> Result<Value, Failure> {
    let tls = node::tls(options)?;
    let mut clients = Vec::new();
    for server in servers.split(',') {
        clients.push(node::connect(&tls, server).await?);
    }
    let proxies = options.number("proxies", PROXIES)?.max(1);
    let first = clients.first_mut().ok_or("there is no server")?;
    node::register(first, &tls, proxies).await?;
    let mut requests = Vec::with_capacity(proxies);
    for number in 0..proxies {
        requests.push(pb::SignRequest {
            proxy: node::proxy(number),
            csr: LeafKey::generate()?.csr()?,
        });
    }
    println!("{}", json!({ "registered": proxies }));
    let field = Arc::new(Field {
        clients,
        requests,
        next: AtomicUsize::new(0),
    });
    let (mut lines, mut count) = (BufReader::new(tokio::io::stdin()).lines(), 0);
    while let Some(line) = lines.next_line().await? {
        let (seconds, at_once) = line.split_once(' ').ok_or("write SECONDS AT_ONCE")?;
        let long = Duration::try_from_secs_f64(seconds.parse()?)?;
        println!("{}", field.clone().sample(long, at_once.parse()?).await?);
        count += 1;
    }
    Ok(json!({ "samples": count }))
}

struct Field {
    clients: Vec<ServersClient<Channel>>,
    requests: Vec<pb::SignRequest>,
    next: AtomicUsize,
}

/// What came of one who asked.
#[derive(Default)]
struct Got {
    latencies: Vec<Duration>,
    refused: BTreeMap<String, u64>,
}

impl Field {
    async fn sample(self: Arc<Self>, long: Duration, at_once: usize) -> Result<Value, Failure> {
        let begin = Instant::now();
        let mut asking = JoinSet::new();
        for _ in 0..at_once {
            asking.spawn(self.clone().ask(begin + long));
        }
        let mut all = Got::default();
        while let Some(got) = asking.join_next().await {
            let got = got?;
            all.latencies.extend(got.latencies);
            for (why, count) in got.refused {
                *all.refused.entry(why).or_default() += count;
            }
        }
        let took = begin.elapsed();
        all.latencies.sort_unstable();
        Ok(json!({
            "leaves": all.latencies.len(),
            "seconds": took.as_secs_f64(),
            "p50_ms": quantile(&all.latencies, 0.5),
            "p99_ms": quantile(&all.latencies, 0.99),
            "refused": all.refused,
        }))
    }

    /// One after the other, until the time is over.
    async fn ask(self: Arc<Self>, until: Instant) -> Got {
        let mut got = Got::default();
        while Instant::now() < until {
            let turn = self.next.fetch_add(1, Relaxed);
            let client = self.clients.get(turn % self.clients.len());
            let request = self.requests.get(turn % self.requests.len());
            let (Some(client), Some(request)) = (client, request) else {
                break;
            };
            let begin = Instant::now();
            match client.clone().sign(request.clone()).await {
                Ok(answer) if answer.get_ref().chain.len() >= 2 => {
                    got.latencies.push(begin.elapsed());
                }
                Ok(_) => *got.refused.entry("no chain".to_owned()).or_default() += 1,
                Err(status) => {
                    *got.refused.entry(status.message().to_owned()).or_default() += 1;
                    // As an agent, who waits before it asks again.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        got
    }
}

/// Of sorted times, in milliseconds.
pub(crate) fn quantile(sorted: &[Duration], part: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = (last as f64 * part).round() as usize;
    sorted.get(at).map(|time| time.as_secs_f64() * 1000.0)
}
