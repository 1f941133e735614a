//! A connection of HTTP/2: its task, and what its streams share with it.
//!
//! A `send` costs more than all else that a sidecar does to a small request,
//! and TLS makes a record of each write. So what streams send only stands in
//! the connection's output; its task, woken once, first lets the tasks that are
//! ready now have their turn, and then writes what they all gave. What is read
//! goes to the streams without a task between. No buffer is held between turns.

use std::cell::{Cell, Ref, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, request, response};
use mesh_h2::{Connection, Event, Key, Reason, ResetBy, Room};
use mesh_mux::Later;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;

use crate::scratch;

/// Beyond this nothing is gained by waiting.
const ENOUGH: usize = 384 * 1024;
/// What is read before it is looked at, if there is as much.
const AT_ONCE: usize = 64 * 1024;
/// Pieces of a write.
const PIECES: usize = 32;
/// What is read before others have their turn.
const TURN: usize = 512 * 1024;
/// How often the other side may do anew what is bounded.
const REPLENISH: Duration = Duration::from_secs(10);

/// What the streams and the task of a connection share.
pub(super) struct Link {
    connection: RefCell<Connection<Ends>>,
    task: RefCell<Option<Waker>>,
    woken: Cell<bool>,
    /// Those who wait until another stream may begin, and how many they are. One
    /// who is called and has gone meanwhile passes the call on.
    openers: Notify,
    waiting: Cell<usize>,
    /// Nobody can ask on it any more.
    unused: Cell<bool>,
    ended: Cell<bool>,
    why: RefCell<Option<String>>,
}

/// What a stream has for whoever reads and sends on it.
#[derive(Default)]
pub(super) struct Ends {
    pub(super) head: Option<Box<response::Parts>>,
    /// Pieces that were not taken; mostly there is one.
    first: Option<Bytes>,
    more: VecDeque<Bytes>,
    pub(super) trailers: Option<HeaderMap>,
    /// All has come.
    pub(super) whole: bool,
    pub(super) broken: Option<Broken>,
    /// Nobody reads any more.
    unread: bool,
    halves: u8,
    reader: Option<Waker>,
    sender: Option<Waker>,
}

/// Why a stream is over before its time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Broken {
    By(ResetBy),
    /// With its connection.
    Lost,
    /// What is sent on it broke.
    Body,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(by) => by.fmt(f),
            Self::Lost => f.write_str("the connection ended"),
            Self::Body => f.write_str("the request's body broke off"),
        }
    }
}

impl std::error::Error for Broken {}

impl Ends {
    fn push(&mut self, piece: Bytes) {
        match self.first {
            None => self.first = Some(piece),
            Some(_) => self.more.push_back(piece),
        }
    }

    /// The next piece.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let piece = self.first.take()?;
        self.first = self.more.pop_front();
        Some(piece)
    }

    pub(super) fn has_piece(&self) -> bool {
        self.first.is_some()
    }

    /// All of a body, if it is here and is one piece.
    pub(super) fn take_whole(&mut self) -> Option<Bytes> {
        let is_one = self.whole && self.more.is_empty() && self.trailers.is_none();
        if is_one { self.first.take() } else { None }
    }

    pub(super) fn wait_to_read(&mut self, cx: &Context<'_>) {
        wait(&mut self.reader, cx);
    }

    pub(super) fn wait_to_send(&mut self, cx: &Context<'_>) {
        wait(&mut self.sender, cx);
    }
}

fn wait(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

impl Link {
    /// Does something to the connection, and has it written.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Connection<Ends>) -> T) -> T {
        let mut connection = self.connection.borrow_mut();
        give_buffer(&mut connection);
        let result = work(&mut connection);
        let writes = !connection.output().is_empty();
        if !writes {
            take_buffer(&mut connection);
        }
        drop(connection);
        if writes {
            self.wake();
        }
        result
    }

    /// So much of a stream's body was taken.
    pub(super) fn release(&self, key: Key, bytes: usize) {
        let mut connection = self.connection.borrow_mut();
        connection.release(key, bytes);
        let writes = !connection.output().is_empty();
        drop(connection);
        if writes {
            self.wake();
        }
    }

    /// Does something to a stream's ends, if it is still there.
    pub(super) fn ends<T>(&self, key: Key, work: impl FnOnce(&mut Ends) -> T) -> Option<T> {
        self.connection.borrow_mut().user(key).map(work)
    }

    pub(super) fn look(&self) -> Ref<'_, Connection<Ends>> {
        self.connection.borrow()
    }

    /// Nothing new can begin on it.
    pub(super) fn is_ended(&self) -> bool {
        self.ended.get() || self.connection.borrow().is_going()
    }

    /// Marks that nothing new may begin.
    pub(super) fn end(&self) {
        self.ended.set(true);
    }

    /// Why it ended, if that is known.
    pub(super) fn why(&self) -> Option<String> {
        self.why.borrow().clone()
    }

    /// Nobody can ask on it any more: it ends with its streams.
    pub(super) fn set_unused(&self) {
        self.unused.set(true);
        self.wake();
    }

    /// Begins a stream, once it can. `None`: none ever can.
    pub(super) async fn open(&self, head: &request::Parts, end: bool) -> Option<Key> {
        loop {
            if self.is_ended() {
                return None;
            }
            if let Some(key) = self.with(|it| it.open(head, end, Ends::default())) {
                return Some(key);
            }
            let _waiting = Waiting::new(&self.waiting);
            self.openers.notified().await;
        }
    }

    /// Has the connection's task run, after all that is ready now.
    fn wake(&self) {
        if !self.woken.replace(true)
            && let Some(task) = &*self.task.borrow()
        {
            task.wake_by_ref();
        }
    }

    fn call_openers(&self) {
        let waiting = self.waiting.get();
        if waiting == 0 {
            return;
        }
        if self.is_ended() {
            return self.openers.notify_waiters();
        }
        let room = {
            let connection = self.connection.borrow();
            let allowed = connection.allowed_streams();
            allowed.saturating_sub(connection.open_streams())
        };
        for _ in 0..room.min(waiting) {
            self.openers.notify_one();
        }
    }
}

/// Counts one who waits for as long as it does.
struct Waiting<'a>(&'a Cell<usize>);

impl<'a> Waiting<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// One who reads or sends on a stream. When both have gone the stream is given
/// up, if it is not over.
pub(super) struct Half {
    pub(super) link: Rc<Link>,
    pub(super) key: Key,
    reads: bool,
    /// What it reads is an answer: when nobody wants it, neither is anything of
    /// the request sent any more, whose body may be another try's already.
    cancels: bool,
}

impl Half {
    /// Both halves of a new stream: one reads, and one sends.
    pub(super) fn both(link: &Rc<Link>, key: Key, is_answer: bool) -> (Self, Self) {
        link.ends(key, |ends| ends.halves = 2);
        let half = |reads| Self {
            link: link.clone(),
            key,
            reads,
            cancels: reads && is_answer,
        };
        (half(true), half(false))
    }

    /// The half that sends, of a new stream on which nothing more comes.
    pub(super) fn sending(link: &Rc<Link>, key: Key) -> Self {
        link.ends(key, |ends| ends.halves = 1);
        Self {
            link: link.clone(),
            key,
            reads: false,
            cancels: false,
        }
    }

    /// Whether a piece of a body can be sent.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<bool> {
        let mut connection = self.link.connection.borrow_mut();
        match connection.room(self.key) {
            Room::Some => Poll::Ready(true),
            Room::Gone => Poll::Ready(false),
            Room::Wait => {
                if let Some(ends) = connection.user(self.key) {
                    ends.wait_to_send(cx);
                }
                Poll::Pending
            }
        }
    }

    /// Whether the stream is over before its time.
    pub(super) fn is_broken(&self) -> bool {
        let broken = |ends: &mut Ends| ends.broken.is_some();
        self.link.ends(self.key, broken) != Some(false)
    }

    /// Ready when the stream is over before its time.
    pub(super) fn poll_broken(&self, cx: &Context<'_>) -> Poll<()> {
        let waits = self.link.ends(self.key, |ends| {
            ends.wait_to_send(cx);
            ends.broken.is_none()
        });
        match waits {
            Some(true) => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    /// Gives the stream up, for this.
    pub(super) fn break_off(&self, reason: Reason, broken: Broken) {
        self.link
            .with(|connection| connection.reset(self.key, reason));
        let reader = self.link.ends(self.key, |ends| {
            ends.broken.get_or_insert(broken);
            ends.reader.take()
        });
        if let Some(reader) = reader.flatten() {
            reader.wake();
        }
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        let link = &self.link;
        let mut connection = link.connection.borrow_mut();
        let Some(ends) = connection.user(self.key) else {
            return;
        };
        let mut unread = 0;
        if self.reads {
            ends.unread = true;
            while let Some(piece) = ends.pop() {
                unread += piece.len();
            }
        }
        ends.halves = ends.halves.saturating_sub(1);
        let is_last = ends.halves == 0;
        let mut sender = None;
        if self.cancels {
            sender = ends.sender.take();
            connection.reset(self.key, Reason::CANCEL);
        }
        if unread > 0 {
            connection.release_connection(unread);
        }
        if is_last {
            connection.forget(self.key);
        }
        let is_done = is_last && (link.unused.get() || connection.is_done());
        let writes = !connection.output().is_empty();
        drop(connection);
        if writes || is_done {
            link.wake();
        }
        if let Some(sender) = sender {
            sender.wake();
        }
        if is_last {
            link.call_openers();
        }
    }
}

/// A new request.
pub(super) struct Incoming {
    pub(super) key: Key,
    pub(super) head: Box<request::Parts>,
    pub(super) end: bool,
}

/// What a connection's task runs.
pub(super) struct Driver<T> {
    io: T,
    link: Rc<Link>,
    /// Whether the tasks of this turn had their chance to add to the write.
    gathered: bool,
    /// When there was more than one turn may read.
    later: Later,
    must_flush: bool,
    /// Those who are woken when what was read is handed out.
    wakes: Vec<Waker>,
    replenish: Instant,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    pub(super) fn new(io: T, connection: Connection<Ends>) -> (Self, Rc<Link>) {
        let link = Rc::new(Link {
            connection: RefCell::new(connection),
            task: RefCell::default(),
            woken: Cell::new(true),
            openers: Notify::new(),
            waiting: Cell::new(0),
            unused: Cell::new(false),
            ended: Cell::new(false),
            why: RefCell::default(),
        });
        let driver = Self {
            io,
            link: link.clone(),
            gathered: false,
            later: Later::default(),
            must_flush: false,
            wakes: Vec::new(),
            replenish: Instant::now() + REPLENISH,
        };
        (driver, link)
    }

    /// Waits until it ends; for who is asked nothing.
    pub(super) async fn run(&mut self) -> io::Result<()> {
        let mut accept = drop;
        let heard = Cell::new(false);
        poll_fn(|cx| self.poll(cx, &mut accept, &heard)).await
    }

    /// Reads what there is, and writes what was gathered.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        accept: &mut impl FnMut(Incoming),
        heard: &Cell<bool>,
    ) -> Poll<io::Result<()>> {
        self.link.woken.set(false);
        wait(&mut self.link.task.borrow_mut(), cx);
        let read = self.poll_all(cx, accept, heard);
        self.call();
        if let Poll::Ready(Ok(())) = read {
            return Poll::Ready(Ok(())); // nobody is there to read what is left
        }
        let broken = match read {
            Poll::Ready(Err(error)) => Some(error),
            _ => None,
        };
        let written = self.poll_turn(cx, broken.is_some());
        self.call();
        if let Some(error) = broken {
            // It was told why, if it took that at once.
            let _ = Pin::new(&mut self.io).poll_shutdown(cx);
            return Poll::Ready(Err(error));
        }
        if let Poll::Ready(Err(error)) = written {
            return Poll::Ready(Err(error));
        }
        let mut connection = self.link.connection.borrow_mut();
        if self.link.unused.get() && connection.open_streams() == 0 {
            connection.close(Reason::NO_ERROR);
        }
        if !connection.is_done() {
            return Poll::Pending;
        }
        drop(connection);
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Reads until there is nothing more; ready at the end of it.
    fn poll_all(
        &mut self,
        cx: &mut Context<'_>,
        accept: &mut impl FnMut(Incoming),
        heard: &Cell<bool>,
    ) -> Poll<io::Result<()>> {
        if self.later.waits() {
            return Poll::Pending;
        }
        let mut all = 0;
        while all < TURN {
            let io = &mut self.io;
            let (read, polled) = scratch::shared_read(|buffer| {
                loop {
                    match poll_read_buf(Pin::new(&mut *io), cx, buffer) {
                        Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                        Poll::Ready(Ok(_)) if buffer.len() < AT_ONCE => {}
                        Poll::Ready(Ok(_)) => return Poll::Pending,
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            });
            let length = read.len();
            if length > 0 {
                heard.set(true);
                self.take(read, accept)?;
            }
            if polled.is_ready() || length < AT_ONCE {
                return polled;
            }
            all += length;
        }
        self.later.call(cx);
        Poll::Pending
    }

    /// Hands out what was read.
    fn take(&mut self, mut read: Bytes, accept: &mut impl FnMut(Incoming)) -> io::Result<()> {
        let now = Instant::now();
        let mut connection = self.link.connection.borrow_mut();
        if now >= self.replenish {
            self.replenish = now + REPLENISH;
            connection.replenish();
        }
        give_buffer(&mut connection);
        loop {
            match connection.receive(&mut read) {
                Ok(None) => return Ok(()),
                Ok(Some(Event::Request { key, head, end })) => {
                    if let Some(ends) = connection.user(key) {
                        ends.whole = end;
                    }
                    drop(connection);
                    accept(Incoming { key, head, end });
                    connection = self.link.connection.borrow_mut();
                }
                Ok(Some(event)) => hear(&mut connection, event, &mut self.wakes),
                Err(violation) => return Err(io::Error::other(violation)),
            }
        }
    }

    /// Wakes who has something to do now.
    fn call(&mut self) {
        {
            let mut connection = self.link.connection.borrow_mut();
            while let Some(key) = connection.take_writable() {
                let ends = connection.user(key);
                self.wakes.extend(ends.and_then(|ends| ends.sender.take()));
            }
        }
        self.wakes.drain(..).for_each(Waker::wake);
        self.link.call_openers();
    }

    /// Ready only when writing failed. `now`: nothing will be added.
    fn poll_turn(&mut self, cx: &mut Context<'_>, now: bool) -> Poll<io::Result<()>> {
        loop {
            let length = self.link.connection.borrow_mut().output().len();
            if length == 0 && !self.must_flush {
                take_buffer(&mut self.link.connection.borrow_mut());
                return Poll::Pending;
            }
            if !now && !self.gathered && !self.must_flush && length < ENOUGH {
                self.gathered = true;
                self.link.woken.set(true);
                cx.waker().wake_by_ref(); // behind all that is ready now
                return Poll::Pending;
            }
            ready!(self.poll_out(cx))?;
            self.gathered = false;
        }
    }

    /// Writes all there is.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut connection = self.link.connection.borrow_mut();
            let output = connection.output();
            if output.is_empty() {
                take_buffer(&mut connection);
                break;
            }
            let mut slices = [IoSlice::new(&[]); PIECES];
            let count = output.pieces(&mut slices);
            let slices = slices.get(..count).unwrap_or_default();
            let io = Pin::new(&mut self.io);
            let bytes = match slices {
                [one] => ready!(io.poll_write(cx, one))?,
                several => ready!(io.poll_write_vectored(cx, several))?,
            };
            if bytes == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.must_flush = true;
            connection.written(bytes);
        }
        if self.must_flush {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.must_flush = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T> Driver<T> {
    /// It has ended, and this is what is said of it.
    pub(super) fn ended(&mut self, why: Option<String>) {
        let link = &self.link;
        link.ended.set(true);
        *link.why.borrow_mut() = why;
        let mut connection = link.connection.borrow_mut();
        connection.lost();
        for key in connection.keys() {
            if let Some(ends) = connection.user(key) {
                if !ends.whole {
                    ends.broken.get_or_insert(Broken::Lost);
                }
                self.wakes.extend(ends.reader.take());
                self.wakes.extend(ends.sender.take());
            }
        }
        drop(connection);
        self.wakes.drain(..).for_each(Waker::wake);
        link.call_openers();
    }
}

/// Whoever is in the middle of something learns of the end.
impl<T> Drop for Driver<T> {
    fn drop(&mut self) {
        if !self.link.ended.get() || self.link.why.borrow().is_none() {
            self.ended(None);
        }
    }
}

fn give_buffer(connection: &mut Connection<Ends>) {
    let output = connection.output();
    if !output.has_buffer() {
        output.give_buffer(scratch::write_buffer());
    }
}

fn take_buffer(connection: &mut Connection<Ends>) {
    if let Some(buffer) = connection.output().take_buffer() {
        scratch::recycle(buffer);
    }
}

/// Puts what came where its stream's reader finds it.
fn hear(connection: &mut Connection<Ends>, event: Event, wakes: &mut Vec<Waker>) {
    let (Event::Request { key, .. }
    | Event::Response { key, .. }
    | Event::Data { key, .. }
    | Event::Trailers { key, .. }
    | Event::Reset { key, .. }) = event;
    let Some(ends) = connection.user(key) else {
        return;
    };
    match event {
        Event::Request { .. } => {}
        Event::Response { head, end, .. } => {
            ends.head = Some(head);
            ends.whole = end;
        }
        Event::Data { data, end, .. } => {
            ends.whole |= end;
            if ends.unread {
                return connection.release_connection(data.len());
            }
            if !data.is_empty() {
                ends.push(data);
            }
        }
        Event::Trailers { trailers, .. } => {
            ends.whole = true;
            ends.trailers = Some(trailers);
        }
        Event::Reset { by, .. } => {
            ends.broken.get_or_insert(Broken::By(by));
            wakes.extend(ends.sender.take());
        }
    }
    wakes.extend(ends.reader.take());
}

#[cfg(test)]
mod tests;
