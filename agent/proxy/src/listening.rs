//! A listener on a worker: it accepts connections, and knows what it is for
//! now. A connection asks it again for each request, so that a config that
//! changes is used by the connections that live.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::config::Expose;
use crate::inbound::{self, InboundView, TerminatingView};
use crate::ingress::{self, IngressView};
use crate::lifecycle::{Lifecycle, Member, Phase, reaches};
use crate::listen::Listener;
use crate::net::{Acceptor, Socket};
use crate::outbound::{self, OutboundView};
use crate::transparent::{self, RedirectedView};
use crate::worker::Worker;

/// A listener on a worker.
pub(crate) struct Listening {
    pub(crate) life: Rc<Lifecycle>,
    role: RefCell<Role>,
    /// Each has its own, so that callers from outside cannot take the room of
    /// the application.
    room: Room,
    accepting: RefCell<Option<JoinHandle<()>>>,
}

/// What a listener is for now.
#[derive(Clone)]
pub(crate) enum Role {
    Inbound(Rc<InboundView>),
    Outbound(Rc<OutboundView>),
    Exposed(Rc<Expose>),
    /// Calls that the kernel redirected.
    Redirected(Rc<RedirectedView>),
    /// Calls from outside the mesh.
    Ingress(Rc<IngressView>),
    /// Calls of other sidecars, of services outside the mesh.
    Terminating(Rc<TerminatingView>),
}

impl Listening {
    /// Begins to accept connections.
    pub(crate) fn begin(worker: &Rc<Worker>, role: Role, socket: Listener) -> Rc<Self> {
        let listening = Self::unbound(worker, role);
        listening.accept(worker, socket);
        listening
    }

    /// One that accepts nothing itself: connections are given to it.
    pub(crate) fn unbound(worker: &Worker, role: Role) -> Rc<Self> {
        Rc::new(Self {
            life: Lifecycle::new(),
            role: RefCell::new(role),
            room: Room::new(worker.shared.options.limits.connections),
            accepting: RefCell::default(),
        })
    }

    pub(crate) fn set_role(&self, role: Role) {
        *self.role.borrow_mut() = role;
    }

    pub(crate) fn inbound(&self) -> Option<Rc<InboundView>> {
        match &*self.role.borrow() {
            Role::Inbound(view) => Some(view.clone()),
            _ => None,
        }
    }

    pub(crate) fn outbound(&self) -> Option<Rc<OutboundView>> {
        match &*self.role.borrow() {
            Role::Outbound(view) => Some(view.clone()),
            _ => None,
        }
    }

    pub(crate) fn exposed(&self) -> Option<Rc<Expose>> {
        match &*self.role.borrow() {
            Role::Exposed(config) => Some(config.clone()),
            _ => None,
        }
    }

    pub(crate) fn redirected(&self) -> Option<Rc<RedirectedView>> {
        match &*self.role.borrow() {
            Role::Redirected(view) => Some(view.clone()),
            _ => None,
        }
    }

    pub(crate) fn ingress(&self) -> Option<Rc<IngressView>> {
        match &*self.role.borrow() {
            Role::Ingress(view) => Some(view.clone()),
            _ => None,
        }
    }

    pub(crate) fn terminating(&self) -> Option<Rc<TerminatingView>> {
        match &*self.role.borrow() {
            Role::Terminating(view) => Some(view.clone()),
            _ => None,
        }
    }

    /// Begins nothing any more. When this returns the address is free.
    pub(crate) async fn close(&self) {
        self.life.enter(Phase::Draining);
        let accepting = self.accepting.borrow_mut().take();
        if let Some(accepting) = accepting {
            let _ = accepting.await; // it ends by itself, see there
        }
    }

    /// Whether others call here, and not the proxy's own application.
    pub(crate) fn is_inbound(&self) -> bool {
        let role = &*self.role.borrow();
        matches!(
            role,
            Role::Inbound(_) | Role::Ingress(_) | Role::Terminating(_)
        )
    }

    /// Accepts connections until its end.
    fn accept(self: &Rc<Self>, worker: &Rc<Worker>, socket: Listener) {
        let acceptor = match Acceptor::new(socket) {
            Ok(acceptor) => acceptor,
            Err(error) => return tracing::error!(%error, "a bound socket cannot be used"),
        };
        let (worker, listening) = (worker.clone(), self.clone());
        let accepting = tokio::task::spawn_local(async move {
            // Not a member: it ends by itself when the drain begins.
            let mut watch = listening.life.join().watch();
            loop {
                let next = async {
                    let place = listening.room.place().await;
                    (acceptor.accept().await, place)
                };
                let (accepted, place) = tokio::select! {
                    biased;
                    () = reaches(&mut watch, Phase::Draining) => break,
                    next = next => next,
                };
                match accepted {
                    Ok(socket) => {
                        let member = listening.life.join();
                        let serving = serve(worker.clone(), listening.clone(), socket, member);
                        tokio::task::spawn_local(async move {
                            serving.await;
                            drop(place);
                        });
                    }
                    Err(error) => {
                        // Out of descriptors, most likely: others may end meanwhile.
                        if let Some(kept_back) = worker.dials.may_say(Instant::now()) {
                            tracing::warn!(%error, kept_back, "accepting a connection");
                        }
                        sleep(Duration::from_millis(50)).await;
                    }
                }
            }
            // Room or not: they are few, and have been promised a connection.
            for socket in acceptor.close() {
                let member = listening.life.join();
                let serving = serve(worker.clone(), listening.clone(), socket, member);
                tokio::task::spawn_local(serving);
            }
        });
        *self.accepting.borrow_mut() = Some(accepting);
    }
}

async fn serve(worker: Rc<Worker>, listening: Rc<Listening>, socket: Socket, member: Member) {
    let role = listening.role.borrow().clone();
    // Boxed, so that each holds what its own role needs, and not the most.
    match role {
        Role::Inbound(_) | Role::Terminating(_) => {
            Box::pin(inbound::serve(worker, listening, socket, member)).await;
        }
        Role::Outbound(_) => outbound::serve(worker, listening, socket, member).await,
        Role::Exposed(_) => {
            Box::pin(inbound::serve_exposed(worker, listening, socket, member)).await;
        }
        Role::Redirected(_) => {
            Box::pin(transparent::serve(worker, listening, socket, member)).await;
        }
        Role::Ingress(_) => Box::pin(ingress::serve(worker, listening, socket, member)).await,
    }
}

/// Room for connections.
struct Room {
    left: Rc<Cell<usize>>,
    freed: Rc<Notify>,
}

impl Room {
    fn new(places: usize) -> Self {
        Self {
            left: Rc::new(Cell::new(places.max(1))),
            freed: Rc::default(),
        }
    }

    async fn place(&self) -> Place {
        while self.left.get() == 0 {
            self.freed.notified().await;
        }
        self.left.set(self.left.get() - 1);
        Place {
            left: self.left.clone(),
            freed: self.freed.clone(),
        }
    }
}

/// Room for one connection.
struct Place {
    left: Rc<Cell<usize>>,
    freed: Rc<Notify>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.left.set(self.left.get() + 1);
        self.freed.notify_one();
    }
}
