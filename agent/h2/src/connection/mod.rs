//! A connection of HTTP/2, without I/O.

mod receive;
mod send;
mod streams;

use std::collections::VecDeque;

use bytes::Bytes;
use http::{HeaderMap, request, response};

pub use send::Room;
pub use streams::Key;
use streams::Streams;

use crate::config::Config;
use crate::error::{Reason, ResetBy, Violation};
use crate::frame::{self, Kind};
use crate::hpack::decoder::Decoder;
use crate::hpack::encoder::Encoder;
use crate::output::Output;

/// Beyond this nothing more of bodies is taken for writing, in bytes.
const FULL: usize = 512 * 1024;
/// Answers to the other side's control frames that it may leave unread, in
/// bytes.
const OWED: usize = 64 * 1024;
/// Streams that were given up here and are remembered, since frames of them may
/// be on their way.
const REMEMBERED: usize = 128;
/// Streams that a server is thought to allow before it says so.
const USUAL_STREAMS: usize = 100;
/// What the ping says that comes with the first GOAWAY.
const LEAVING: [u8; 8] = *b"leaving.";

/// A connection: bytes of the other side go in and events come out; calls go in
/// and bytes for the other side come out. Each stream carries something of
/// whoever uses it.
pub struct Connection<S> {
    is_server: bool,
    config: Config,
    streams: Streams<S>,
    decoder: Decoder,
    encoder: Encoder,
    output: Output,
    // What comes in.
    phase: Phase,
    /// The beginning of a frame.
    partial: Vec<u8>,
    data: Option<receive::Arriving>,
    block: Option<receive::Block>,
    events: VecDeque<Event>,
    receive_window: i64,
    released: u32,
    /// The last stream that the other side, or this one, began.
    last_theirs: u32,
    next_ours: u32,
    remembered: VecDeque<u32>,
    /// Up to here what was remembered is forgotten.
    forgotten: u32,
    resets: u32,
    idle_frames: u32,
    /// How often the other side may yet say that it has read what was sent: those
    /// updates of windows are not idle.
    updates: u32,
    owed: usize,
    // What goes out.
    send_window: i64,
    /// Of new streams.
    their_window: i64,
    their_frame: usize,
    their_streams: usize,
    /// Those that wait for room of the connection, in the order in which they
    /// came.
    line: VecDeque<Key>,
    /// Those that have room now.
    writable: VecDeque<Key>,
    // How it ends.
    going: Going,
    /// The last stream that the other side serves.
    peer_goes: Option<u32>,
    closed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// How much of the preface has come.
    Preface(usize),
    Settings,
    Open,
}

/// How far the end has come that this side began.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Going {
    No,
    /// It was said; what the other side begins before it hears of it is served.
    Announced,
    /// Nothing new is taken.
    Last,
}

/// What the other side did.
#[derive(Debug)]
pub enum Event {
    /// It asks.
    Request {
        /// The new stream.
        key: Key,
        /// What it asks.
        head: Box<request::Parts>,
        /// There is no body.
        end: bool,
    },
    /// It answers.
    Response {
        /// What it answers to.
        key: Key,
        /// The answer.
        head: Box<response::Parts>,
        /// There is no body.
        end: bool,
    },
    /// A piece of a body, to be released with [`Connection::release`].
    Data {
        /// Of which stream.
        key: Key,
        /// The piece; it may be empty at the end.
        data: Bytes,
        /// Nothing follows.
        end: bool,
    },
    /// The end of a body that has trailers.
    Trailers {
        /// Of which stream.
        key: Key,
        /// The trailers.
        trailers: HeaderMap,
    },
    /// A stream is over before its time.
    Reset {
        /// Which.
        key: Key,
        /// Why.
        by: ResetBy,
    },
}

impl<S> Connection<S> {
    /// The end that asks.
    #[must_use]
    pub fn client(config: Config) -> Self {
        Self::new(config, false)
    }

    /// The end that answers.
    #[must_use]
    pub fn server(config: Config) -> Self {
        Self::new(config, true)
    }

    fn new(config: Config, is_server: bool) -> Self {
        let config = Config {
            stream_window: config
                .stream_window
                .clamp(frame::DEFAULT_WINDOW, frame::LARGEST_WINDOW),
            connection_window: config
                .connection_window
                .clamp(frame::DEFAULT_WINDOW, frame::LARGEST_WINDOW),
            frame: config
                .frame
                .clamp(frame::DEFAULT_FRAME, frame::LARGEST_FRAME),
            ..config
        };
        let mut new = Self {
            is_server,
            config,
            streams: Streams::default(),
            decoder: Decoder::new(),
            encoder: Encoder::new(),
            output: Output::default(),
            phase: match is_server {
                true => Phase::Preface(0),
                false => Phase::Settings,
            },
            partial: Vec::new(),
            data: None,
            block: None,
            events: VecDeque::new(),
            receive_window: i64::from(config.connection_window),
            released: 0,
            last_theirs: 0,
            next_ours: 1,
            remembered: VecDeque::new(),
            forgotten: 0,
            resets: config.resets,
            idle_frames: config.idle_frames,
            updates: 0,
            owed: 0,
            send_window: i64::from(frame::DEFAULT_WINDOW),
            their_window: i64::from(frame::DEFAULT_WINDOW),
            their_frame: frame::DEFAULT_FRAME as usize,
            their_streams: USUAL_STREAMS,
            line: VecDeque::new(),
            writable: VecDeque::new(),
            going: Going::No,
            peer_goes: None,
            closed: false,
        };
        new.greet();
        new
    }

    /// What both ends say first.
    fn greet(&mut self) {
        let list = u32::try_from(self.config.header_bytes).unwrap_or(u32::MAX);
        let of_role = match self.is_server {
            true => (3, self.config.streams),
            false => (2, 0), // nothing is pushed
        };
        let settings = [
            of_role,
            (4, self.config.stream_window),
            (5, self.config.frame),
            (6, list),
        ];
        let mut payload = Vec::with_capacity(settings.len() * 6);
        for (name, value) in settings {
            payload.extend_from_slice(&u16::to_be_bytes(name));
            payload.extend_from_slice(&u32::to_be_bytes(value));
        }
        if !self.is_server {
            self.output.append(frame::PREFACE);
        }
        self.output.frame(Kind::Settings, 0, 0, &payload);
        let more = self.config.connection_window - frame::DEFAULT_WINDOW;
        if more > 0 {
            self.output
                .frame(Kind::WindowUpdate, 0, 0, &more.to_be_bytes());
        }
    }

    /// What of whoever uses it a stream carries.
    pub fn user(&mut self, key: Key) -> Option<&mut S> {
        self.streams.get_mut(key).map(|stream| &mut stream.user)
    }

    /// All streams that were not forgotten.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.streams.keys()
    }

    /// Streams that are not over.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.streams.open()
    }

    /// Streams that the other side allows at a time.
    #[must_use]
    pub fn allowed_streams(&self) -> usize {
        self.their_streams
    }

    /// Whether what nobody reads holds most of what may be under way on all streams
    /// together, or all of it at the other side: a new stream is better begun on
    /// another connection.
    #[must_use]
    pub fn is_clogged(&self) -> bool {
        let window = i64::from(self.config.connection_window);
        let unread = window - self.receive_window - i64::from(self.released);
        unread > window / 2 || self.send_window <= 0
    }

    /// What is to be written; after some of it is, [`Self::written`] must be
    /// called.
    pub fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// So much of the output was written: others may have room.
    pub fn written(&mut self, bytes: usize) {
        self.output.advance(bytes);
        self.owed = self.owed.saturating_sub(bytes);
        self.serve_line();
    }

    /// A stream that has room again, and that was waited for.
    pub fn take_writable(&mut self) -> Option<Key> {
        self.writable.pop_front()
    }

    /// Gives the other side again what it may do wrong. To be called every few
    /// seconds.
    pub fn replenish(&mut self) {
        self.resets = self.config.resets;
        self.idle_frames = self.config.idle_frames;
    }

    /// Begins the end: nothing new is taken, but for what the other side began
    /// before it heard of it. [`Self::is_done`] when all has ended.
    pub fn drain(&mut self) {
        if self.going == Going::No && !self.closed {
            self.going = Going::Announced;
            self.say_going(frame::LARGEST_ID, Reason::NO_ERROR);
            self.output.frame(Kind::Ping, 0, 0, &LEAVING);
        }
    }

    /// Whether it was drained, or the other side goes, and no stream is open.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let over = self.going == Going::Last || self.peer_goes.is_some();
        self.closed || over && self.streams.open() == 0
    }

    /// Whether nothing can begin on it any more.
    #[must_use]
    pub fn is_going(&self) -> bool {
        let used_up = self.next_ours > frame::LARGEST_ID;
        self.closed || used_up || self.going != Going::No || self.peer_goes.is_some()
    }

    /// Whether the other side has said what it speaks.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.phase == Phase::Open
    }

    /// The connection is lost: all its streams are over, and nobody is told.
    pub fn lost(&mut self) {
        self.closed = true;
        for key in self.streams.keys() {
            if let Some(stream) = self.streams.get_mut(key) {
                stream.close();
            }
            self.streams.closed(key.id());
        }
    }

    /// Ends it at once, and tells the other side why.
    pub fn close(&mut self, reason: Reason) {
        if !std::mem::replace(&mut self.closed, true) {
            self.say_going(self.last_theirs, reason);
        }
    }

    fn say_going(&mut self, last: u32, reason: Reason) {
        let mut payload = [0; 8];
        let (first, second) = payload.split_at_mut(4);
        first.copy_from_slice(&last.to_be_bytes());
        second.copy_from_slice(&reason.0.to_be_bytes());
        self.output.frame(Kind::GoAway, 0, 0, &payload);
    }

    /// Sends an answer to a control frame. Whoever asks for them and does not
    /// read them has no end of them.
    fn owe(&mut self, kind: Kind, flags: u8, id: u32, payload: &[u8]) -> Result<(), Violation> {
        self.output.frame(kind, flags, id, payload);
        self.owed += frame::HEAD + payload.len();
        match self.owed > OWED {
            true => Err(Violation::calm("answers to control frames are not read")),
            false => Ok(()),
        }
    }

    /// A stream is over on both sides: it counts no more.
    fn settle(&mut self, key: Key) {
        let Some(stream) = self.streams.get(key) else {
            return;
        };
        let detached = stream.detached.filter(|_| stream.send_closed);
        if stream.is_closed() && self.streams.closed(key.id()) {
            self.resets = self.resets.saturating_add(1).min(self.config.resets);
        }
        if let Some(reason) = detached {
            self.abandon(key, reason);
        }
    }

    /// Ends a stream before its time.
    fn abandon(&mut self, key: Key, reason: Reason) {
        let Some(stream) = self.streams.get_mut(key).filter(|it| !it.is_closed()) else {
            return self.bury(key);
        };
        stream.close();
        if self.streams.closed(key.id()) {
            self.remember(key.id());
            self.output
                .frame(Kind::Reset, 0, key.id(), &reason.0.to_be_bytes());
        }
        self.bury(key);
    }

    /// Lets go of what is over, and of what nobody has the key.
    fn bury(&mut self, key: Key) {
        if (self.streams.get(key)).is_some_and(|it| it.is_closed() && it.detached.is_some()) {
            self.streams.remove(key);
        }
    }

    fn remember(&mut self, id: u32) {
        if self.remembered.len() >= REMEMBERED
            && let Some(oldest) = self.remembered.pop_front()
        {
            self.forgotten = self.forgotten.max(oldest);
        }
        self.remembered.push_back(id);
    }

    /// Whether frames of it may be on their way since it was given up here.
    fn was_given_up(&self, id: u32) -> bool {
        id <= self.forgotten || self.remembered.contains(&id)
    }
}
