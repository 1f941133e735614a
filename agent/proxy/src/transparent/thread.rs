//! The thread beside the workers: DNS, and what the agent is told.

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use super::Sockets;
use super::dns;
use crate::plane::Shared;

/// The thread; it has ended, and its sockets with it, when this has gone.
pub(crate) struct Thread {
    sockets: Option<mpsc::UnboundedSender<Sockets>>,
    thread: Option<JoinHandle<()>>,
}

impl Thread {
    /// Starts it, without a socket.
    ///
    /// # Panics
    /// When the system gives no thread or no epoll instance.
    pub(crate) fn start(shared: Arc<Shared>) -> Self {
        let (sockets, given) = mpsc::unbounded_channel();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("DNS needs an epoll instance");
            runtime.block_on(run(shared, given));
        };
        let thread = std::thread::Builder::new()
            .name("dns".to_owned())
            .spawn(run)
            .expect("DNS needs a thread");
        Self {
            sockets: Some(sockets),
            thread: Some(thread),
        }
    }

    /// Answers at these sockets from now on, and no more at those before.
    pub(crate) fn listen(&self, sockets: Sockets) {
        if let Some(to) = &self.sockets {
            let _ = to.send(sockets);
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.sockets = None;
        // It waits for nothing; and the ports are free then.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn run(shared: Arc<Shared>, mut given: mpsc::UnboundedReceiver<Sockets>) {
    let transparent = &shared.transparent;
    let keeping = transparent.wanted.keep(|wants| {
        // Only a transparent sidecar says it.
        if transparent.answers.borrow().is_some() {
            transparent.questions.tell(wants);
        }
    });
    let listening = async {
        let mut sockets = given.recv().await;
        // One that is replaced is dropped, with all that it answers: a resolver
        // asks again.
        while let Some(now) = sockets {
            sockets = tokio::select! {
                next = given.recv() => next,
                () = dns::serve(shared.clone(), now) => given.recv().await,
            };
        }
    };
    tokio::select! {
        () = keeping => {}
        () = listening => {}
    }
}
