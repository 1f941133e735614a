//! Runs every check of the catalog: one task for each that must do something.
//!
//! The first run is at once, since Nomad's deployments wait for it; later ones come at the
//! interval with a little jitter, so that a node's checks do not all run in the same instant.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::{CheckDefinition, CheckKind, Status};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::board::Board;
use super::probe::Probe;
use super::thresholds::Thresholds;
use crate::catalog::View;

/// Probes that run at once.
const MAX_PROBES: usize = 64;

/// Runs the checks until told to stop.
pub(crate) async fn run(
    mut catalog: watch::Receiver<View>,
    board: Arc<Board>,
    prober: Arc<dyn Probe>,
    stop: CancellationToken,
) {
    let mut changed = board.watch();
    let mut running: HashMap<String, (CheckDefinition, AbortOnDropHandle<()>)> = HashMap::new();
    let slots = Arc::new(Semaphore::new(MAX_PROBES));
    loop {
        let view = catalog.borrow_and_update().clone();
        board.follow(&view);
        start_and_stop(&view, &mut running, &board, &prober, &slots);
        changed.mark_unchanged();
        follow_aliases(&view, &board);
        tokio::select! {
            it = catalog.changed() => if it.is_err() { return },
            it = changed.changed() => if it.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

fn start_and_stop(
    view: &View,
    running: &mut HashMap<String, (CheckDefinition, AbortOnDropHandle<()>)>,
    board: &Arc<Board>,
    prober: &Arc<dyn Probe>,
    slots: &Arc<Semaphore>,
) {
    let mut wanted = HashMap::new();
    for (_, check) in view.iter().flat_map(|entry| entry.checks()) {
        if !matches!(check.kind, CheckKind::Alias { .. }) {
            wanted.insert(check.id.as_str(), check);
        }
    }
    running.retain(|id, (check, _)| wanted.get(id.as_str()).is_some_and(|it| **it == *check));
    for (id, check) in wanted {
        if running.contains_key(id) {
            continue;
        }
        let (board, check) = (board.clone(), check.clone());
        let task = match check.kind {
            CheckKind::Ttl { ttl } => tokio::spawn(expire(check.id.clone(), ttl.std(), board)),
            _ => tokio::spawn(repeat(check.clone(), board, prober.clone(), slots.clone())),
        };
        running.insert(id.to_owned(), (check, AbortOnDropHandle::new(task)));
    }
}

/// A check that does something, again and again.
async fn repeat(
    check: CheckDefinition,
    board: Arc<Board>,
    prober: Arc<dyn Probe>,
    slots: Arc<Semaphore>,
) {
    let mut thresholds = Thresholds::default();
    // Longer than the interval, and those that do not answer would keep the places of all others.
    let timeout = check.timeout.min(check.interval);
    let asked = board.updated(&check.id);
    loop {
        let Ok(slot) = slots.acquire().await else {
            return;
        };
        let outcome = tokio::time::timeout(timeout.std(), prober.probe(&check)).await;
        drop(slot);
        let (result, output) = match outcome {
            Ok(outcome) => (outcome.status, outcome.output),
            Err(_) => (Status::Critical, format!("no answer within {timeout}")),
        };
        match thresholds.observe(&check, result) {
            Some(status) => board.set(&check.id, status, &output),
            None => board.set_output(&check.id, &output),
        }
        let jitter = rand::random_range(0.95..1.05);
        tokio::select! {
            () = tokio::time::sleep(check.interval.std().mul_f64(jitter)) => {}
            () = asked.notified() => {}
        }
    }
}

/// A TTL check: critical when it is not updated in time. After a start of the agent its time
/// begins anew.
async fn expire(id: String, ttl: Duration, board: Arc<Board>) {
    let updated = board.updated(&id);
    loop {
        tokio::select! {
            () = updated.notified() => {}
            () = tokio::time::sleep(ttl) => {
                let output = format!("not updated within {} s", ttl.as_secs());
                board.set(&id, Status::Critical, &output);
                updated.notified().await;
            }
        }
    }
}

/// Sets every alias to what it stands for. One pass is enough: each change wakes the loop again,
/// and aliases of aliases in a circle settle on one state.
fn follow_aliases(view: &View, board: &Board) {
    for (_, check) in view.iter().flat_map(|entry| entry.checks()) {
        let CheckKind::Alias { instance } = &check.kind else {
            continue;
        };
        let Some(other) = view.instance(instance) else {
            let output = format!("instance {instance} is not registered on this node");
            board.set(&check.id, Status::Critical, &output);
            continue;
        };
        let worst = other
            .own_checks()
            .filter(|own| own.id != check.id)
            .map(|own| (board.status(own), own))
            .max_by_key(|(status, _)| *status);
        match worst {
            None => board.set(&check.id, Status::Passing, "no checks found"),
            Some((Status::Passing, _)) => {
                board.set(&check.id, Status::Passing, "all checks pass");
            }
            Some((status, own)) => {
                let output = format!("check {} is {status}", own.name);
                board.set(&check.id, status, &output);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::catalog::{Catalog, Owner, Settings};
    use crate::checks::probe::Outcome;
    use mesh_model::Registration;
    use serde_json::json;
    use std::collections::VecDeque;
    use std::path::Path;
    use std::sync::Mutex;
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    /// Answers as told, and says when it was asked.
    struct Script {
        answers: Mutex<VecDeque<Option<Status>>>,
        asked: mpsc::UnboundedSender<Instant>,
    }

    #[async_trait::async_trait]
    impl Probe for Script {
        async fn probe(&self, _: &CheckDefinition) -> Outcome {
            self.asked.send(Instant::now()).unwrap();
            let answer = self.answers.lock().unwrap().pop_front();
            match answer.unwrap_or(Some(Status::Passing)) {
                Some(status) => Outcome {
                    status,
                    output: "said".into(),
                },
                None => std::future::pending().await,
            }
        }
    }

    struct Rig {
        catalog: Catalog,
        board: Arc<Board>,
        asked: mpsc::UnboundedReceiver<Instant>,
        _stop: tokio_util::sync::DropGuard,
        _folder: tempfile::TempDir,
    }

    fn rig(answers: &[Option<Status>]) -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(
            folder.path(),
            Settings {
                node: "n1".into(),
                address: "10.0.0.1".into(),
                bind: None,
                ports: 21000..=21255,
                limit: 9,
            },
        )
        .unwrap();
        let board = Arc::new(Board::open(folder.path()).unwrap());
        let (sender, asked) = mpsc::unbounded_channel();
        let script = Script {
            answers: Mutex::new(answers.iter().copied().collect()),
            asked: sender,
        };
        let stop = CancellationToken::new();
        tokio::spawn(run(
            catalog.watch(),
            board.clone(),
            Arc::new(script),
            stop.clone(),
        ));
        Rig {
            catalog,
            board,
            asked,
            _stop: stop.drop_guard(),
            _folder: folder,
        }
    }

    fn registration(body: serde_json::Value) -> Registration {
        mesh_consul::register::parse(&body).unwrap().registration
    }

    impl Rig {
        fn register(&self, body: serde_json::Value) {
            let registration = registration(body);
            self.catalog
                .register(registration, None, Owner::Uid(0), true)
                .unwrap();
        }

        async fn until(&self, id: &str, status: Status) {
            let mut changed = self.board.watch();
            loop {
                let view = self.catalog.view();
                let (_, check) = view.check(id).unwrap();
                if self.board.status(check) == status {
                    return;
                }
                changed.changed().await.unwrap();
            }
        }

        fn output(&self, id: &str) -> String {
            let view = self.catalog.view();
            self.board.state(view.check(id).unwrap().1).1
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_run_is_at_once_and_the_next_at_the_interval() {
        let mut rig = rig(&[Some(Status::Critical), Some(Status::Passing)]);
        let begin = Instant::now();
        rig.register(json!({"Name": "web", "Check": {"TCP": "a:1", "Interval": "10s"}}));
        assert_eq!(rig.asked.recv().await.unwrap(), begin);
        let second = rig.asked.recv().await.unwrap() - begin;
        assert!((9.5..10.5).contains(&second.as_secs_f64()), "{second:?}");
        rig.until("service:web", Status::Passing).await;
        assert_eq!(rig.output("service:web"), "said");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_answer_is_critical_after_its_timeout() {
        let mut rig = rig(&[Some(Status::Passing), None]);
        rig.register(
            json!({"Name": "web", "Check": {"TCP": "a:1", "Interval": "10s", "Timeout": "2s"}}),
        );
        rig.until("service:web", Status::Passing).await;
        rig.asked.recv().await.unwrap();
        let asked = rig.asked.recv().await.unwrap();
        rig.until("service:web", Status::Critical).await;
        assert_eq!((Instant::now() - asked).as_secs(), 2);
        assert_eq!(rig.output("service:web"), "no answer within 2s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_takes_its_interval_at_most() {
        let mut rig = rig(&[None]);
        rig.register(
            json!({"Name": "web", "Check": {"TCP": "a:1", "Interval": "2s", "Timeout": "1h"}}),
        );
        let begin = rig.asked.recv().await.unwrap();
        let next = rig.asked.recv().await.unwrap();
        assert!(next - begin < Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_ttl_check_expires_unless_it_is_updated() {
        let rig = rig(&[]);
        rig.register(json!({"Name": "web", "Check": {"TTL": "30s", "Status": "passing"}}));
        rig.until("service:web", Status::Passing).await;
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(20)).await;
            rig.board.update("service:web", Status::Warning, "so so");
            rig.until("service:web", Status::Warning).await;
        }
        let begin = Instant::now();
        rig.until("service:web", Status::Critical).await;
        assert_eq!((Instant::now() - begin).as_secs(), 30);
        assert_eq!(rig.output("service:web"), "not updated within 30 s");
        rig.board.update("service:web", Status::Passing, "well");
        rig.until("service:web", Status::Passing).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_alias_is_as_what_it_stands_for() {
        let rig = rig(&[]);
        rig.register(json!({"Name": "web", "Check": {"TTL": "30s"},
                            "Connect": {"SidecarService": {"Port": 1}}}));
        rig.register(json!({"Name": "bare", "Connect": {"SidecarService": {"Port": 2}}}));
        let alias = "service:web-sidecar-proxy:1";
        // Without checks it passes.
        rig.until("service:bare-sidecar-proxy:1", Status::Passing)
            .await;
        rig.until(alias, Status::Critical).await;
        rig.board.update("service:web", Status::Warning, "");
        rig.until(alias, Status::Warning).await;
        rig.board.update("service:web", Status::Passing, "");
        rig.until(alias, Status::Passing).await;
    }

    #[tokio::test(start_paused = true)]
    async fn aliases_in_a_circle_settle() {
        let rig = rig(&[]);
        let alias = |of: &str| json!({"AliasService": of, "Name": "x"});
        rig.register(json!({"Name": "a", "Check": alias("b")}));
        rig.register(json!({"Name": "b", "Check": alias("a")}));
        rig.register(json!({"Name": "c", "Check": {"TTL": "9s", "Status": "passing"}}));
        rig.until("service:c", Status::Passing).await;
        rig.until("service:a", Status::Critical).await;
        rig.until("service:b", Status::Critical).await;
    }

    #[tokio::test]
    async fn states_are_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let open = |folder: &Path| Arc::new(Board::open(folder).unwrap());
        let board = open(folder.path());
        let stop = CancellationToken::new();
        let task = tokio::spawn(board.clone().keep(stop.clone()));
        board.set("service:web", Status::Passing, &"x".repeat(9000));
        stop.cancel();
        task.await.unwrap();
        let body = json!({"Name": "web", "Check": {"TTL": "9s"}});
        let check = registration(body).checks.remove(0);
        assert_eq!(open(folder.path()).status(&check), Status::Passing);
        assert_eq!(board.state(&check).1.len(), 4096);
    }
}
