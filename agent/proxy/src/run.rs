//! The process: reads what it is started with, runs both sides, ends well.
//!
//! The control side and the admin listener share one thread and runtime; the
//! data plane has its own. SIGTERM, SIGINT and `/drain` end it: stop accepting,
//! finish what runs, end within the limit.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use mesh_policy::Features;
use mesh_proto::bootstrap::{Bootstrap, BootstrapRequest, HostPort};
use mesh_tls::{Credential, MeshTls, Trust};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};

use crate::admin::{self, Admin};
use crate::cli::{Arguments, Mode};
use crate::control::Control;
use crate::feed::Feed;
use crate::fixed;
use crate::keys::Keys;
use crate::status::Status;
use crate::{AccessLog, DataPlane, Options};

/// How long the agent itself waits for a registration, in one try.
const ATTACH: Duration = Duration::from_secs(20);

/// Why the process ended badly: a line for people.
type Failure = String;

type Plane = watch::Receiver<Option<Arc<DataPlane>>>;

/// How the process ends.
#[derive(Debug)]
pub struct Ended {
    /// 0 after a drain, 1 after an error, 3 when the agent must start it anew
    /// with a new ticket.
    pub code: ExitCode,
    /// The last line for people, if it did not end as asked.
    pub last: Option<String>,
}

impl Ended {
    fn well() -> Self {
        Self {
            code: ExitCode::SUCCESS,
            last: None,
        }
    }
}

/// Lets this process have as many open files as it may: each connection is one,
/// and what a shell or a service manager gives (1024) is for programs that
/// `select`.
pub fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Without it there are fewer connections, which is no reason to end.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Runs the sidecar to its end.
pub async fn run(arguments: Arguments) -> Ended {
    let ended = match &arguments.mode {
        Mode::Static(path) => run_static(&arguments, path).await,
        Mode::Bootstrap(path) => match read_bootstrap(path).await {
            Ok(bootstrap) => run_with_agent(&arguments, bootstrap).await,
            Err(error) => Err(error),
        },
        Mode::SidecarFor(instance) => match attach(&arguments, instance).await {
            Ok(bootstrap) => run_with_agent(&arguments, bootstrap).await,
            Err(error) => Err(error),
        },
        Mode::StaticExample | Mode::Version | Mode::Help => Ok(Ended::well()),
    };
    ended.unwrap_or_else(|error| Ended {
        code: ExitCode::FAILURE,
        last: Some(error),
    })
}

async fn read_bootstrap(path: &Path) -> Result<Bootstrap, Failure> {
    let limit = mesh_proto::bootstrap::MAX_BOOTSTRAP as u64 + 1;
    let mut text = String::new();
    let read = if path == Path::new("-") {
        tokio::io::stdin()
            .take(limit)
            .read_to_string(&mut text)
            .await
    } else {
        match tokio::fs::File::open(path).await {
            Ok(file) => file.take(limit).read_to_string(&mut text).await,
            Err(error) => Err(error),
        }
    };
    read.map_err(|error| format!("bootstrap {}: {error}", path.display()))?;
    Bootstrap::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// A sidecar that starts before its agent, or before its instance is
/// registered, waits for it.
async fn attach(arguments: &Arguments, instance: &str) -> Result<Bootstrap, Failure> {
    let mut stop = Stop::new(Arc::default())?;
    let request = BootstrapRequest {
        sidecar_for: Some(instance.to_owned()),
        ..BootstrapRequest::default()
    };
    loop {
        let asked = tokio::select! {
            asked = mesh_attach::bootstrap(&arguments.agent_socket, &request, ATTACH) => asked,
            () = stop.asked() => return Err("ended before the agent answered".to_owned()),
        };
        match asked {
            Ok(bootstrap) => return Ok(bootstrap),
            Err(error) if error.may_pass() => {
                tracing::warn!("{error}");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    () = stop.asked() => return Err("ended before the agent answered".to_owned()),
                }
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

async fn run_with_agent(arguments: &Arguments, bootstrap: Bootstrap) -> Result<Ended, Failure> {
    let status = Status::default();
    let (plane, planes) = watch::channel(None);
    let admin = arguments
        .admin
        .clone()
        .or_else(|| bootstrap.admin.as_ref().map(ToString::to_string));
    let mut stop = serve_admin(admin.as_deref(), &status, &planes).await?;
    if let Some(ready) = &bootstrap.ready {
        serve_ready(ready, &status).await;
    }
    let key = mesh_tls::LeafKey::generate().map_err(|error| error.to_string())?;
    let keys = Arc::new(Keys::new(key));
    let (asks, asked) = mpsc::unbounded_channel();
    let options = Options {
        asks: Some(asks),
        ..options(arguments)
    };
    let (events, incoming) = mpsc::channel(16);
    let (wishes, outgoing) = mpsc::unbounded_channel();
    let chain = Arc::new(arc_swap::ArcSwap::default());
    let feed = Feed {
        keys: keys.clone(),
        features: options.features.names(),
        leaf: {
            let chain: Arc<arc_swap::ArcSwap<Vec<Vec<u8>>>> = chain.clone();
            Box::new(move || chain.load().to_vec())
        },
        events,
        wishes: outgoing,
        bootstrap: bootstrap.clone(),
    };
    let control = Control {
        proxy: bootstrap.proxy_id,
        keys,
        options,
        status: status.clone(),
        wishes,
        plane,
        chain,
    };
    tracing::info!(proxy = control.proxy, agent = %AgentName(&bootstrap.agent), "starting");
    let feed = tokio::spawn(feed.run());
    let mut control = tokio::spawn(control.run(incoming, asked));
    tokio::select! {
        () = stop.asked() => {}
        ended = &mut control => {
            let refused = match ended {
                Ok(Err(refused)) => refused.to_string(),
                Ok(Ok(())) => "the control side ended".to_owned(),
                Err(panic) => format!("the control side broke: {panic}"),
            };
            tracing::error!(reason = refused, "it must end");
            drain(arguments, &status, &planes).await;
            return Ok(Ended {
                code: ExitCode::from(3),
                last: Some(refused),
            });
        }
    }
    // The agent goes on feeding: what drains may still need a new leaf.
    drain(arguments, &status, &planes).await;
    feed.abort();
    control.abort();
    Ok(Ended::well())
}

struct AgentName<'a>(&'a mesh_proto::bootstrap::AgentAddress);

impl std::fmt::Display for AgentName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            mesh_proto::bootstrap::AgentAddress::Tcp(address) => write!(f, "{address}"),
            mesh_proto::bootstrap::AgentAddress::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

async fn run_static(arguments: &Arguments, path: &Path) -> Result<Ended, Failure> {
    let text = |error: fixed::StaticError| error.to_string();
    let file = fixed::read(path).map_err(text)?;
    let certificates = fixed::certificates(path, &file).map_err(text)?;
    let tls = MeshTls::new(certificates.0.clone(), certificates.1.clone());
    let tls = Arc::new(tls.map_err(|error| error.to_string())?);
    let status = Status::default();
    let plane = DataPlane::new(tls, options(arguments));
    let (_sender, planes) = watch::channel(Some(plane.clone()));
    let from_file = (!file.admin.is_empty()).then_some(file.admin.clone());
    let admin = arguments.admin.clone().or(from_file);
    let mut stop = serve_admin(admin.as_deref(), &status, &planes).await?;
    status.have_leaf();
    status.have_roots();
    // A file has none.
    status.have_revocations();
    apply_static(&plane, file, certificates, &status).await?;
    let mut reload = signal(SignalKind::hangup()).map_err(|error| error.to_string())?;
    loop {
        tokio::select! {
            () = stop.asked() => break,
            _ = reload.recv() => {
                let again = async {
                    let file = fixed::read(path).map_err(text)?;
                    let certificates = fixed::certificates(path, &file).map_err(text)?;
                    apply_static(&plane, file, certificates, &status).await
                };
                match again.await {
                    Ok(()) => tracing::info!(path = %path.display(), "read again"),
                    Err(error) => tracing::error!(error, "not taken; the last one stays"),
                }
            }
        }
    }
    drain(arguments, &status, &planes).await;
    Ok(Ended::well())
}

async fn apply_static(
    plane: &DataPlane,
    file: mesh_proto::config::StaticFile,
    (leaf, roots): (Credential, Trust),
    status: &Status,
) -> Result<(), Failure> {
    let applied = plane
        .apply_with(file.config, leaf, roots)
        .await
        .map_err(|error| error.to_string())?;
    for one in applied.not_understood {
        tracing::error!("denied, since it is not understood: {one}");
    }
    // The plane's own: a config is not held twice.
    if let Some(config) = plane.snapshot().config {
        status.running(config, "static".to_owned());
    }
    Ok(())
}

fn options(arguments: &Arguments) -> Options {
    let features = arguments
        .without_features
        .iter()
        .fold(Features::default(), |features, name| features.without(name));
    Options {
        concurrency: arguments.concurrency,
        access_log: match arguments.access_log {
            true => AccessLog::Stdout,
            false => AccessLog::Off,
        },
        features,
        ..Options::default()
    }
}

async fn serve_admin(
    address: Option<&str>,
    status: &Status,
    planes: &Plane,
) -> Result<Stop, Failure> {
    let drain = Arc::new(Notify::new());
    if let Some(address) = address {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            format!("admin listener {address}: {error}; another can be given with -admin-bind")
        })?;
        let planes = planes.clone();
        let admin = Admin {
            status: status.clone(),
            metrics: Arc::new(move || {
                let plane = planes.borrow().clone();
                plane.map(|plane| plane.metrics()).unwrap_or_default()
            }),
            drain: drain.clone(),
        };
        tokio::spawn(admin::serve(listener, admin));
    }
    Stop::new(drain)
}

/// The listener that only says whether the sidecar is ready. Nomad hands its
/// address to jobs; a sidecar without it still does its work.
async fn serve_ready(address: &HostPort, status: &Status) {
    match TcpListener::bind(address.to_string()).await {
        Ok(listener) => drop(tokio::spawn(admin::serve_ready(listener, status.clone()))),
        Err(error) => tracing::warn!(%address, %error, "nothing will answer /ready there"),
    }
}

async fn drain(arguments: &Arguments, status: &Status, planes: &Plane) {
    status.draining();
    let plane = planes.borrow().clone();
    let Some(plane) = plane else { return };
    let limit = Duration::from_secs(arguments.drain_seconds);
    tracing::info!(seconds = arguments.drain_seconds, "draining");
    let drained = plane.drain(limit).await;
    tracing::info!(?drained, "drained");
}

/// What ends the process.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
    drain: Arc<Notify>,
}

impl Stop {
    fn new(drain: Arc<Notify>) -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|error| format!("signals: {error}"));
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            drain,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = self.drain.notified() => {}
        }
    }
}
