//! One connection's state: streams, credits, and what waits to be sent.
//!
//! It does no I/O and has no task: the driver feeds frames in and takes bytes
//! out, the handles call it under the connection's lock, and it says whom to
//! wake. So the rules can be tested, and fuzzed, without a runtime.

mod admit;
mod receive;
mod send;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::task::Waker;

use bytes::{Bytes, BytesMut};

use crate::config::Config;
use crate::error::{CloseReason, ResetCode, StreamError};
use crate::outbox::{Outbox, Turn, Turns};
use crate::scratch;
use crate::wire::{self, INITIAL_CONNECTION_WINDOW, INITIAL_MAX_STREAMS, INITIAL_STREAM_WINDOW};

/// Which side of the connection this is. Only a client opens streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    role: Role,
    config: Config,
    /// A stream is here as long as its handle lives, so that a peer that opens
    /// and resets in a loop is bounded by the work that it causes.
    streams: HashMap<u32, Slot>,
    /// How many of them the other side still counts on.
    live: usize,
    /// The highest id that was opened, by whichever side opens.
    last_id: u32,
    /// Whether the other side's SETTINGS came.
    greeted: bool,
    /// Whether the driver has taken ours.
    has_greeted: bool,
    closed: Option<CloseReason>,
    /// The last stream that our GOAWAY, and theirs, promised to process.
    goaway_sent: Option<u32>,
    goaway_received: Option<u32>,

    outbox: Outbox,
    turns: Turns,
    /// Credit of the connection that the other side gave us.
    credit: usize,
    pong: Option<[u8; 8]>,

    /// Credit of the connection that the other side has.
    granted: usize,
    /// What arrived and was not read, over all streams.
    unread: usize,
    /// By how much windows of streams were grown, together.
    grown: usize,
    /// Streams, and whether the connection, to which a WINDOW is due.
    updates: Vec<u32>,
    update_connection: bool,

    /// How many streams the other side allows (a client asks).
    max_streams: usize,
    open_waiters: BTreeMap<u64, Waker>,
    next_ticket: u64,
    /// Streams that wait to be accepted (a server's).
    backlog: VecDeque<(u32, Bytes)>,
    acceptor: Option<Waker>,
    acceptor_gone: bool,

    /// The driver, while it sleeps.
    driver: Option<Waker>,
    wake_driver: bool,
    /// Whom to wake when the lock is free again.
    wakes: Vec<Waker>,
}

/// One stream.
#[derive(Debug)]
struct Slot {
    /// What arrived and the handle has not taken.
    received: BytesMut,
    /// What has no room there, in order.
    more: VecDeque<BytesMut>,
    /// What arrived and was not read, with what the handle has taken.
    unread: usize,
    /// Credit that the other side has, and how much of it plus `unread` is
    /// allowed.
    granted: usize,
    window: usize,
    update_due: bool,
    fin_received: bool,
    reader: Option<Waker>,

    credit: usize,
    turn: Turn,
    fin_sent: bool,
    writer: Option<Waker>,

    ended: Option<End>,
}

/// A stream's buffer grows by this factor: what it holds is at most this often
/// what is unread, and a large read is not copied again and again as it grows.
const GROWTH: usize = 4;
/// From this size on that of a fast stream does not grow; there is another.
const LONG: usize = 48 * 1024;
/// A frame of a stream that has much to send.
const LARGE: usize = 8 * 1024;

/// What ended a stream before its two FINs.
#[derive(Clone, Copy, Debug)]
enum End {
    Reset(ResetCode),
    NotProcessed,
    Connection,
}

impl Slot {
    fn new() -> Self {
        Self {
            received: BytesMut::new(),
            more: VecDeque::new(),
            unread: 0,
            granted: INITIAL_STREAM_WINDOW,
            window: INITIAL_STREAM_WINDOW,
            update_due: false,
            fin_received: false,
            reader: None,
            credit: INITIAL_STREAM_WINDOW,
            turn: Turn::default(),
            fin_sent: false,
            writer: None,
            ended: None,
        }
    }

    /// Whether the other side still counts on the stream.
    fn is_live(&self) -> bool {
        self.ended.is_none() && !(self.fin_sent && self.fin_received)
    }

    /// Bytes that the handle has not taken.
    fn untaken(&self) -> usize {
        self.received.len() + self.more.iter().map(BytesMut::len).sum::<usize>()
    }

    /// Keeps what arrived for the handle.
    fn push(&mut self, bytes: &[u8]) {
        let last = self.more.back_mut().unwrap_or(&mut self.received);
        let have = last.len();
        if last.capacity() - have >= bytes.len() {
            return last.extend_from_slice(bytes);
        }
        // No more streams have such windows than a part of the connection's is enough for.
        let is_fast = self.window >= scratch::CHUNK && bytes.len() >= LARGE;
        match have {
            0 if is_fast => *last = scratch::chunk(),
            LONG.. if is_fast => {
                self.more.push_back(scratch::chunk());
                return self.push(bytes);
            }
            _ => last.reserve(bytes.len().max(have * (GROWTH - 1))),
        }
        last.extend_from_slice(bytes);
    }

    fn wake_both(&mut self, wakes: &mut Vec<Waker>) {
        wakes.extend(self.reader.take());
        wakes.extend(self.writer.take());
    }
}

impl State {
    pub(crate) fn new(role: Role, config: Config) -> Self {
        let config = config.clamped();
        let mut state = Self {
            role,
            streams: HashMap::new(),
            live: 0,
            last_id: 0,
            greeted: false,
            has_greeted: false,
            closed: None,
            goaway_sent: None,
            goaway_received: None,
            outbox: Outbox::new(config.write_buffer),
            turns: Turns::default(),
            credit: INITIAL_CONNECTION_WINDOW,
            pong: None,
            granted: INITIAL_CONNECTION_WINDOW,
            unread: 0,
            grown: 0,
            updates: Vec::new(),
            update_connection: config.connection_window > INITIAL_CONNECTION_WINDOW,
            max_streams: INITIAL_MAX_STREAMS.min(config.max_streams),
            open_waiters: BTreeMap::new(),
            next_ticket: 0,
            backlog: VecDeque::new(),
            acceptor: None,
            acceptor_gone: false,
            driver: None,
            wake_driver: false,
            wakes: Vec::new(),
            config,
        };
        state.greet();
        state
    }

    /// What we send first.
    fn greet(&mut self) {
        let max_streams = match self.role {
            Role::Client => 0, // a server opens none
            Role::Server => self.config.max_streams as u32,
        };
        wire::put_preface(self.outbox.control(), max_streams);
    }

    /// Why the connection ended, if it did.
    pub(crate) fn closed(&self) -> Option<&CloseReason> {
        self.closed.as_ref()
    }

    /// Whether no stream can be opened any more.
    pub(crate) fn is_draining(&self) -> bool {
        self.goaway_sent.is_some() || self.goaway_received.is_some()
    }

    /// Whether a drained connection may end.
    pub(crate) fn is_finished(&self) -> bool {
        self.is_draining() && self.backlog.is_empty() && self.outbox.unsent() == 0 && self.live == 0
    }

    /// Whether an end of the bytes now cuts nothing.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.live == 0
    }

    /// Streams whose handle lives, bytes not read, bytes not sent.
    pub(crate) fn load(&self) -> (usize, usize, usize) {
        (self.streams.len(), self.unread, self.outbox.unsent())
    }

    /// Whether little of a connection's window is left, here or there. There it is known by the
    /// credit, which is topped up when half of what is free is used.
    pub(crate) fn is_clogged(&self) -> bool {
        let here = self.unread > self.config.connection_window / 2;
        here || self.greeted && self.credit < INITIAL_CONNECTION_WINDOW / 2
    }

    /// Says to the other side that no more streams are wanted.
    pub(crate) fn drain(&mut self) {
        if self.goaway_sent.is_some() || self.closed.is_some() {
            return;
        }
        self.send_goaway(0, "");
        self.wakes
            .extend(std::mem::take(&mut self.open_waiters).into_values());
        self.wakes.extend(self.acceptor.take());
    }

    /// Ends the connection for all streams. The first reason stays.
    pub(crate) fn close(&mut self, reason: CloseReason) {
        if self.closed.is_some() {
            return;
        }
        self.outbox.discard();
        if let CloseReason::Violation(violation) = &reason {
            if !self.has_greeted {
                self.greet();
            }
            self.send_goaway(violation.code().0, &violation.to_string());
        }
        self.closed = Some(reason);
        self.live = 0;
        self.turns.dissolve();
        self.updates = Vec::new();
        self.pong = None;
        for slot in self.streams.values_mut() {
            slot.ended.get_or_insert(End::Connection);
            slot.turn = Turn::default();
            slot.wake_both(&mut self.wakes);
        }
        for (id, _) in std::mem::take(&mut self.backlog) {
            self.streams.remove(&id);
        }
        self.wakes
            .extend(std::mem::take(&mut self.open_waiters).into_values());
        self.wakes.extend(self.acceptor.take());
        self.wake_driver = true;
    }

    /// The handle of a stream goes.
    pub(crate) fn release(&mut self, id: u32, code: ResetCode) {
        let Some(mut slot) = self.streams.remove(&id) else {
            return;
        };
        self.turns.leave(id, &mut slot.turn);
        if slot.update_due {
            self.updates.retain(|due| *due != id);
        }
        self.grown -= slot.window - INITIAL_STREAM_WINDOW;
        self.unread -= slot.unread;
        if self.closed.is_some() {
            return;
        }
        if slot.is_live() {
            self.live -= 1;
            wire::put_reset(self.outbox.control(), id, code.0);
            self.wake_driver = true;
        }
        if self.is_draining() {
            self.wake_driver = true; // it may have been the last one
        }
        self.check_connection_window();
        self.wake_next_opener();
    }

    fn send_goaway(&mut self, code: u32, reason: &str) {
        let last = match self.role {
            Role::Client => 0,
            Role::Server => self.last_id,
        };
        self.goaway_sent = Some(last);
        wire::put_goaway(self.outbox.control(), last, code, reason);
        self.wake_driver = true;
    }

    fn stream_error(&self, end: End) -> StreamError {
        match end {
            End::Reset(ResetCode::REFUSED) | End::NotProcessed => StreamError::NotProcessed,
            End::Reset(code) => StreamError::Reset(code),
            End::Connection => {
                StreamError::Connection(self.closed.clone().unwrap_or(CloseReason::Lost))
            }
        }
    }

    /// The driver sleeps until something is to be done.
    pub(crate) fn driver_sleeps(&mut self, waker: &Waker) {
        self.driver = Some(waker.clone());
    }

    /// The driver is awake: it need not be woken.
    pub(crate) fn driver_runs(&mut self) {
        self.driver = None;
        self.wake_driver = false;
    }

    /// Whom to wake after the lock is free.
    pub(crate) fn take_wakes(&mut self, into: &mut Vec<Waker>) {
        debug_assert!(into.is_empty());
        if !self.wakes.is_empty() {
            std::mem::swap(&mut self.wakes, into); // both keep their room
        }
        if std::mem::take(&mut self.wake_driver) {
            into.extend(self.driver.take());
        }
    }

    /// The same for a caller that most often wakes the driver and no one else.
    pub(crate) fn take_few_wakes(&mut self) -> (Option<Waker>, Vec<Waker>) {
        let driver = match std::mem::take(&mut self.wake_driver) {
            true => self.driver.take(),
            false => None,
        };
        let others = match self.wakes.is_empty() {
            true => Vec::new(), // and the state's keeps its room
            false => std::mem::take(&mut self.wakes),
        };
        (driver, others)
    }

    /// Checks what must hold between any two calls.
    ///
    /// # Panics
    /// If it does not. Only tests and the fuzz target call it.
    pub(crate) fn assert_sound(&self) {
        let slots = || self.streams.values();
        let unread: usize = slots().map(|slot| slot.unread).sum();
        let grown: usize = slots()
            .map(|slot| slot.window - INITIAL_STREAM_WINDOW)
            .sum();
        assert!(self.granted + self.unread <= self.config.connection_window);
        assert!(self.grown <= self.config.connection_window / 2);
        assert!(self.live <= self.config.max_streams);
        assert!(self.streams.len() <= 2 * self.config.max_streams);
        assert!(self.backlog.len() <= self.config.accept_backlog);
        if self.closed.is_none() {
            assert_eq!(self.unread, unread);
            assert_eq!(self.grown, grown);
            assert_eq!(self.live, slots().filter(|slot| slot.is_live()).count());
        }
        for slot in slots() {
            assert!(slot.granted + slot.unread <= slot.window);
            assert!(slot.window <= self.config.stream_window);
            assert!(slot.untaken() <= slot.unread);
            assert!(slot.more.is_empty() || !slot.received.is_empty());
        }
    }
}
