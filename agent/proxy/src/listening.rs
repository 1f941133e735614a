//! A listener on a worker: it accepts connections, and knows what it is for
//! now. A connection asks it again for each request, so that a config that
//! changes is used by the connections that live.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use crate::config::Expose;
use crate::doors::Door;
use crate::inbound::{self, InboundView, TerminatingView};
use crate::ingress::{self, IngressView};
use crate::lifecycle::{Lifecycle, Member, Phase};
use crate::listen::Listener;
use crate::net::Socket;
use crate::outbound::{self, OutboundView};
use crate::transparent::{self, RedirectedView};
use crate::worker::Worker;

/// A listener on a worker.
pub(crate) struct Listening {
    pub(crate) life: Rc<Lifecycle>,
    role: RefCell<Role>,
    /// Connections that it may take yet. Each has its own, so that callers from
    /// outside cannot take the room of the application.
    room: Cell<usize>,
    /// Where connections come, until it is closed.
    door: RefCell<Option<Door>>,
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
        match worker.doors.open(worker, &listening, socket) {
            Ok(door) => *listening.door.borrow_mut() = Some(door),
            Err(error) => tracing::error!(%error, "a bound socket cannot be used"),
        }
        listening
    }

    /// One that accepts nothing itself: connections are given to it.
    pub(crate) fn unbound(worker: &Worker, role: Role) -> Rc<Self> {
        Rc::new(Self {
            life: Lifecycle::new(),
            role: RefCell::new(role),
            room: Cell::new(worker.shared.options.limits.connections.max(1)),
            door: RefCell::default(),
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
    pub(crate) fn close(self: &Rc<Self>, worker: &Rc<Worker>) {
        self.life.enter(Phase::Draining);
        let Some(door) = self.door.borrow_mut().take() else {
            return;
        };
        // Room or not: they are few, and have been promised a connection.
        for socket in worker.doors.close(door) {
            self.begin_serving(worker, socket, None);
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

    /// Serves connections that have come, so many at most.
    ///
    /// # Errors
    /// When one that has come cannot be had.
    pub(crate) fn accept(self: &Rc<Self>, worker: &Rc<Worker>, most: usize) -> io::Result<()> {
        for _ in 0..most.min(self.room.get()) {
            let came = match &*self.door.borrow() {
                Some(door) => door.accept()?,
                None => None,
            };
            let Some(socket) = came else {
                return Ok(());
            };
            let place = self.place();
            self.begin_serving(worker, socket, Some(place));
        }
        Ok(())
    }

    fn begin_serving(self: &Rc<Self>, worker: &Rc<Worker>, socket: Socket, place: Option<Place>) {
        let serving = serve(worker.clone(), self.clone(), socket, self.life.join());
        tokio::task::spawn_local(async move {
            serving.await;
            drop(place);
        });
    }

    /// Takes room for a connection; of the last the door must know.
    fn place(self: &Rc<Self>) -> Place {
        self.room.set(self.room.get().saturating_sub(1));
        if self.room.get() == 0 {
            self.look_at_door(false);
        }
        Place(self.clone())
    }

    fn look_at_door(&self, is_room: bool) {
        if let Some(door) = &*self.door.borrow() {
            door.look_at(is_room);
        }
    }
}

/// Room for one connection.
struct Place(Rc<Listening>);

impl Drop for Place {
    fn drop(&mut self) {
        let listening = &self.0;
        listening.room.set(listening.room.get() + 1);
        if listening.room.get() == 1 {
            listening.look_at_door(true);
        }
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
