//! `meshctl dev -demo`: three services, their sidecars, steady traffic, and a
//! live table of what comes of it.
//!
//! The services are plain HTTP programs in this process; the sidecars are the
//! real thing, `mesh-proxy` as a process beside each instance.

mod apps;
mod sidecars;
mod table;
mod traffic;

use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use mesh_model::hcl;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::cluster::Dev;
use crate::console::Console;
use crate::error::CliError;
use crate::running::{Signals, Told};
use apps::{APPS, App};
use sidecars::Sidecars;
use traffic::{Call, Log};

const MESH: &str = include_str!("mesh.hcl");
const CANARY: &str = include_str!("canary-50.hcl");

/// How long the services may take to be ready, and how often that is asked.
const SETTLE: Duration = Duration::from_secs(30);
const ASK: Duration = Duration::from_millis(100);

/// How often the table is drawn.
const DRAW: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(
    dev: &Dev,
    files: &Path,
    signals: &mut Signals,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let client = reqwest::Client::builder().no_proxy().build();
    let client = client.map_err(failed("an HTTP client"))?;
    write_files(files)?;
    write_mesh(&client, dev).await?;
    let mut tasks = JoinSet::new();
    let ports = Ports::choose(dev.bind)?;
    console.note("starting the services …");
    let mut sidecars = Sidecars::new(dev)?;
    for app in APPS {
        let address = apps::start(app, dev.bind, &mut tasks).await;
        let address = address.map_err(failed(app.service))?;
        register(&client, dev, app, address, &ports).await?;
        sidecars.start(&instance(app))?;
    }
    // Where it takes longer, the table shows what is amiss.
    let settled = tokio::time::timeout(SETTLE, settled(&client, dev));
    let ended = tokio::select! {
        _ = settled => {
            let calls = ports.calls(dev.bind);
            let log = Log::default();
            traffic::start(&calls, &log, &mut tasks).map_err(failed("an HTTP client"))?;
            show(&calls, &log, files, signals, &mut sidecars, dev, console).await
        }
        () = stopped(signals) => Ok(()),
        reason = sidecars.ended() => Err(CliError::refused(reason, "")),
        reason = dev.failed() => Err(CliError::refused(reason, "")),
    };
    sidecars.stop().await;
    ended
}

fn failed<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> CliError {
    move |error| CliError::refused(format!("{what}: {error}"), "")
}

fn instance(app: App) -> String {
    match app.service {
        "user-service" => format!("{}-{}", app.service, app.version),
        service => service.to_owned(),
    }
}

fn write_files(folder: &Path) -> Result<(), CliError> {
    std::fs::create_dir_all(folder).map_err(CliError::file(folder))?;
    for (name, text) in [("mesh.hcl", MESH), ("canary-50.hcl", CANARY)] {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(CliError::file(&path))?;
    }
    Ok(())
}

/// Writes the demo's services and route, as `meshctl config write` would.
async fn write_mesh(client: &reqwest::Client, dev: &Dev) -> Result<(), CliError> {
    let entries = hcl::parse_entries("mesh.hcl", MESH).map_err(CliError::Invalid)?;
    let ops: Vec<Value> = entries
        .iter()
        .map(|one| json!({"put": one.value}))
        .collect();
    let request = client
        .post(format!("{}/v1/apply", dev.api()))
        .header("x-meshctl-owner", "cli")
        .json(&json!({"ops": ops}));
    send(request, "writing the demo's routes").await
}

/// Registers the instance with the agent as any program of this user may: with
/// Consul's JSON.
async fn register(
    client: &reqwest::Client,
    dev: &Dev,
    app: App,
    address: SocketAddr,
    ports: &Ports,
) -> Result<(), CliError> {
    let host = address.ip().to_string();
    let upstreams: Vec<Value> = match app.service {
        "frontend" => ports.upstreams(&host),
        _ => Vec::new(),
    };
    let body = json!({
        "ID": instance(app), "Name": app.service, "Address": host, "Port": address.port(),
        "Meta": {"version": app.version},
        "Check": {"Name": "healthz", "HTTP": format!("http://{address}/healthz"),
            "Interval": "2s", "Timeout": "1s"},
        "Connect": {"SidecarService": {"Address": host, "Proxy": {
            "LocalServiceAddress": host, "Config": {"bind_address": host},
            "Upstreams": upstreams}}},
    });
    let url = format!("{}/v1/agent/service/register", dev.agent_api());
    send(client.put(url).json(&body), app.service).await
}

/// When every instance passes its checks and every sidecar knows it: calls
/// before that fail, and a first table of failures is no good greeting.
async fn settled(client: &reqwest::Client, dev: &Dev) {
    loop {
        if let Some(index) = passing(client, dev).await
            && live(client, dev, index).await
        {
            return;
        }
        tokio::time::sleep(ASK).await;
    }
}

/// The index at which every instance passes, if they do.
async fn passing(client: &reqwest::Client, dev: &Dev) -> Option<u64> {
    let mut latest = 0;
    for service in APPS.map(|app| app.service) {
        let url = format!("{}/v1/catalog/services/{service}", dev.api());
        let response = client.get(url).send().await.ok()?;
        let index = response.headers().get("x-meshctl-index")?;
        let index: u64 = index.to_str().ok()?.parse().ok()?;
        let rows: Vec<Value> = response.json().await.ok()?;
        let started = APPS.iter().filter(|app| app.service == service).count();
        let pass = |row: &&Value| row["status"] == "passing";
        if rows.iter().filter(pass).count() < started {
            return None;
        }
        latest = latest.max(index);
    }
    Some(latest)
}

async fn live(client: &reqwest::Client, dev: &Dev, index: u64) -> bool {
    let url = format!("{}/v1/proxies/wait?index={index}&timeout=5s", dev.api());
    let answer = match client.get(url).send().await {
        Ok(response) => response.json::<Value>().await,
        Err(error) => Err(error),
    };
    let all = APPS.len() as u64;
    answer.is_ok_and(|told| told["live"] == true && told["proxies"].as_u64() >= Some(all))
}

/// When it is to end.
async fn stopped(signals: &mut Signals) {
    while signals.next().await == Told::Reload {}
}

async fn send(request: reqwest::RequestBuilder, what: &str) -> Result<(), CliError> {
    let response = request.send().await.map_err(failed(what))?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let text = response.text().await.unwrap_or_default();
    Err(CliError::refused(format!("{what}: {status}: {text}"), ""))
}

/// The frontend's local ports for what it calls.
struct Ports {
    users: u16,
    payment: u16,
}

impl Ports {
    fn choose(bind: IpAddr) -> Result<Self, CliError> {
        Ok(Self {
            users: free(bind, 9001)?,
            payment: free(bind, 9002)?,
        })
    }

    fn upstreams(&self, host: &str) -> Vec<Value> {
        [("user-service", self.users), ("payment", self.payment)]
            .into_iter()
            .map(|(name, port)| {
                json!({"DestinationName": name, "LocalBindAddress": host, "LocalBindPort": port})
            })
            .collect()
    }

    fn calls(&self, bind: IpAddr) -> Vec<Call> {
        let url = |port, path| format!("http://{}{path}", SocketAddr::new(bind, port));
        vec![
            Call {
                service: "user-service",
                url: url(self.users, "/v1/users"),
                every: Duration::from_millis(50),
            },
            Call {
                service: "payment",
                url: url(self.payment, "/charge"),
                every: Duration::from_millis(100),
            },
        ]
    }
}

/// The port, or another that is free where something listens at it.
fn free(bind: IpAddr, port: u16) -> Result<u16, CliError> {
    let listener = std::net::TcpListener::bind((bind, port))
        .or_else(|_| std::net::TcpListener::bind((bind, 0)));
    let address = listener.and_then(|one| one.local_addr());
    address.map(|one| one.port()).map_err(failed("a free port"))
}

async fn show(
    calls: &[Call],
    log: &Log,
    files: &Path,
    signals: &mut Signals,
    sidecars: &mut Sidecars,
    dev: &Dev,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    console.text(&next(files, dev))?;
    let terminal = std::io::stdout().is_terminal();
    let mut tick = tokio::time::interval(DRAW);
    let mut drawn = 0;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            told = signals.next() => match told {
                Told::Stop => return Ok(()),
                Told::Reload => continue,
            },
            reason = sidecars.ended() => return Err(CliError::refused(reason, "")),
            reason = dev.failed() => return Err(CliError::refused(reason, "")),
        }
        let mut lines = table::lines(calls, log, Instant::now());
        lines.push(String::new());
        // On a terminal the table is drawn over the one before.
        let over = match terminal {
            true if drawn > 0 => format!("\u{1b}[{drawn}A\u{1b}[J"),
            _ => String::new(),
        };
        drawn = lines.len();
        console.text(&format!("{over}{}\n", lines.join("\n")))?;
    }
}

/// The next commands to try.
fn next(files: &Path, dev: &Dev) -> String {
    let program = std::env::args().next().unwrap_or("meshctl".to_owned());
    let address = match dev.bind == IpAddr::from([127, 0, 0, 1]) {
        true => String::new(),
        false => format!("  export MESHCTL_HTTP_ADDR={}\n", dev.api()),
    };
    format!(
        "frontend calls user-service (v1, and v2 as a canary of 10 %) and payment,\n\
         each through two sidecars with mutual TLS. Try, in another terminal:\n\n\
         {address}  {program} intention create -deny frontend payment\n\
         \x20 {program} intention create -allow -replace frontend payment\n\
         \x20 {program} config write {}\n\n\
         They deny the calls to payment, allow them again, and shift the canary to\n\
         50 %. Ctrl-C ends the demo.\n\n",
        files.join("canary-50.hcl").display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_right() {
        for text in [MESH, CANARY] {
            assert!(hcl::parse_entries("demo.hcl", text).is_ok());
        }
    }
}
