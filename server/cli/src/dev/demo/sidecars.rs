//! The demo's sidecars: a `mesh-proxy` process for each instance.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::dev::cluster::Dev;
use crate::error::CliError;

/// The processes; dropped, they are killed.
pub(crate) struct Sidecars {
    program: PathBuf,
    socket: PathBuf,
    logs: PathBuf,
    running: Vec<(String, Child)>,
}

impl Sidecars {
    /// None yet. Fails when there is no `mesh-proxy`.
    pub(crate) fn new(dev: &Dev) -> Result<Self, CliError> {
        let logs = dev.folder.join("logs");
        std::fs::create_dir_all(&logs).map_err(CliError::file(&logs))?;
        Ok(Self {
            program: program()?,
            socket: dev.socket(),
            logs,
            running: Vec::new(),
        })
    }

    /// Starts the sidecar of an instance. Its log goes to a file of its name.
    pub(crate) fn start(&mut self, instance: &str) -> Result<(), CliError> {
        let path = self.logs.join(format!("{instance}.log"));
        let log = std::fs::File::create(&path).map_err(CliError::file(&path))?;
        let child = Command::new(&self.program)
            .args(["-sidecar-for", instance, "-access-log", "off"])
            .args(["-drain-time-s", "2", "-agent-socket"])
            .arg(&self.socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Not of our group: a Ctrl-C is for us, and we end them in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(CliError::file(&self.program))?;
        self.running.push((instance.to_owned(), child));
        Ok(())
    }

    /// When one ends by itself: which, and where its log is.
    pub(crate) async fn ended(&mut self) -> String {
        let mut waits = Vec::new();
        for (instance, child) in &mut self.running {
            let log = self.logs.join(format!("{instance}.log"));
            waits.push(Box::pin(async move {
                let status = child.wait().await;
                let status = status.map_or_else(|error| error.to_string(), |one| one.to_string());
                let said = std::fs::read_to_string(log).unwrap_or_default();
                let last = said.lines().last().unwrap_or_default().to_owned();
                format!("the sidecar of {instance} ended ({status}): {last}")
            }));
        }
        match waits.is_empty() {
            true => std::future::pending().await,
            false => futures::future::select_all(waits).await.0,
        }
    }

    /// Ends them as an orchestrator would: SIGTERM, and time to drain.
    pub(crate) async fn stop(mut self) {
        for (_, child) in &self.running {
            if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
                // One that is gone already needs no signal.
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
        }
        for (_, child) in &mut self.running {
            if tokio::time::timeout(Duration::from_secs(5), child.wait())
                .await
                .is_err()
            {
                let _ = child.kill().await;
            }
        }
    }
}

/// `mesh-proxy` beside this program, else on PATH.
fn program() -> Result<PathBuf, CliError> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|path| Some(path.parent()?.join("mesh-proxy")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("mesh-proxy"));
    let mut found = beside
        .into_iter()
        .chain(on_path)
        .filter(|path| path.is_file());
    found.next().ok_or_else(|| {
        CliError::refused(
            "mesh-proxy is neither beside meshctl nor on PATH",
            "`cargo build --release` builds both.",
        )
    })
}
