//! Accepts connections for all listeners of a worker.
//!
//! A sidecar has a listener for each upstream, and there may be a thousand of which it calls three.
//! A task and a registration with the runtime would cost each of them 1 KiB. So the kernel keeps the
//! set of them (an epoll instance of their own), the runtime knows that set only, and one task asks
//! it who was called.

use std::cell::{OnceCell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::listen::{BACKLOG, Listener};
use crate::listening::Listening;
use crate::net::{Socket, tune};
use crate::slots::Slots;
use crate::worker::Worker;

/// Listeners that are told of at once.
const TOLD: usize = 32;
/// Looks at the set before others of this worker have their turn.
const LOOKS: usize = 4;
/// Connections of a listener that are taken between two looks, but for the first: mostly one comes.
const TAKEN: usize = 16;
/// How long nothing is accepted where it failed: out of descriptors, most likely, and others may
/// end meanwhile.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// The listeners of a worker that accept connections.
#[derive(Default)]
pub(crate) struct Doors {
    /// Made with the first of them.
    set: OnceCell<Rc<AsyncFd<Set>>>,
    all: RefCell<Slots<Rc<Listening>>>,
}

/// The kernel's set of sockets; each by its place among the listeners.
struct Set(Epoll);

impl AsRawFd for Set {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}

/// A listener's socket in the set.
pub(crate) struct Door {
    socket: Listener,
    place: usize,
    set: Rc<AsyncFd<Set>>,
}

impl Doors {
    /// Begins to accept at a bound socket.
    ///
    /// # Errors
    /// When the kernel has no room for it.
    pub(crate) fn open(
        &self,
        worker: &Rc<Worker>,
        listening: &Rc<Listening>,
        socket: Listener,
    ) -> io::Result<Door> {
        let set = match self.set.get() {
            Some(set) => set.clone(),
            None => {
                let set = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
                // What replaces it is unsafe, since a descriptor might be closed meanwhile: this
                // one is owned.
                #[allow(deprecated)]
                let set = AsyncFd::with_interest(Set(set), Interest::READABLE)?;
                let set = Rc::new(set);
                tokio::task::spawn_local(accept(worker.clone(), set.clone()));
                self.set.get_or_init(|| set).clone()
            }
        };
        let place = self.all.borrow_mut().insert(listening.clone());
        let added = set.get_ref().0.add(socket.as_fd(), event(true, place));
        if let Err(error) = added {
            self.all.borrow_mut().remove(place);
            return Err(error.into());
        }
        Ok(Door { socket, place, set })
    }

    /// Accepts no more there, and gives back who waited in the kernel: they were told
    /// that they are connected. Then the address is free.
    pub(crate) fn close(&self, door: Door) -> Vec<Socket> {
        // It can only fail where it is not in there.
        let _ = door.set.get_ref().0.delete(door.socket.as_fd());
        self.all.borrow_mut().remove(door.place);
        door.rest()
    }

    /// Lets go of all listeners, as they are.
    pub(crate) fn forget(&self) {
        self.all.take();
    }

    fn at(&self, place: u64) -> Option<Rc<Listening>> {
        let place = usize::try_from(place).ok()?;
        self.all.borrow().at(place).cloned()
    }
}

/// Accepts what comes, for as long as the worker runs.
async fn accept(worker: Rc<Worker>, set: Rc<AsyncFd<Set>>) {
    let mut told = [EpollEvent::empty(); TOLD];
    loop {
        let Ok(mut ready) = set.readable().await else {
            return; // the runtime ends
        };
        let (mut failure, mut is_empty) = (None, false);
        for look in 0..LOOKS {
            let most = if look == 0 { 1 } else { TAKEN };
            match set.get_ref().0.wait(&mut told, EpollTimeout::ZERO) {
                Ok(0) => {
                    ready.clear_ready();
                    is_empty = true;
                }
                Ok(count) => {
                    for one in told.iter().take(count) {
                        let listening = worker.doors.at(one.data());
                        let taken = listening.map_or(Ok(()), |it| it.accept(&worker, most));
                        failure = taken.err().or(failure);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(error) => failure = Some(error.into()),
            }
            if is_empty || failure.is_some() {
                break;
            }
        }
        drop(ready);
        let Some(error) = failure else {
            if !is_empty {
                yield_now().await;
            }
            continue;
        };
        if let Some(kept_back) = worker.dials.may_say(Instant::now()) {
            tracing::warn!(%error, kept_back, "accepting a connection");
        }
        sleep(AFTER_FAILURE).await;
    }
}

fn event(is_room: bool, place: usize) -> EpollEvent {
    let wanted = match is_room {
        true => EpollFlags::EPOLLIN,
        false => EpollFlags::empty(),
    };
    EpollEvent::new(wanted, place as u64)
}

impl Door {
    /// One that has come, if one has.
    ///
    /// # Errors
    /// When one has, and cannot be had.
    pub(crate) fn accept(&self) -> io::Result<Option<Socket>> {
        use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
        match self.next() {
            Ok(socket) => Ok(Some(socket)),
            // Nobody, or one who went away while it waited.
            Err(error) if matches!(error.kind(), WouldBlock | ConnectionAborted | Interrupted) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether it is worth to be told who comes.
    pub(crate) fn look_at(&self, is_room: bool) {
        let set = &self.set.get_ref().0;
        // It can only fail where it is not in there.
        let _ = set.modify(self.socket.as_fd(), &mut event(is_room, self.place));
    }

    fn next(&self) -> io::Result<Socket> {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let (socket, _) = SockRef::from(&self.socket).accept4(flags)?;
        Ok(match &self.socket {
            Listener::Tcp(_) => {
                let stream = TcpStream::from_std(socket.into())?;
                tune(&stream);
                Socket::Tcp(stream)
            }
            Listener::Unix(_) => Socket::Unix(UnixStream::from_std(socket.into())?),
        })
    }

    /// All that can be accepted without waiting; more than may wait come only while
    /// this runs.
    fn rest(self) -> Vec<Socket> {
        let mut all = Vec::new();
        for _ in 0..2 * BACKLOG {
            match self.next() {
                Ok(socket) => all.push(socket),
                // It went away while it waited.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => break, // nobody waits any more
            }
        }
        all
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}
