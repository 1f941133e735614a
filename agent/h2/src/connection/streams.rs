//! The streams of a connection.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use bytes::Bytes;
use http::HeaderMap;

use crate::error::Reason;

/// A stream of a connection. One that is over is never taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    slot: u32,
    id: u32,
}

impl Key {
    /// The stream's number on the wire.
    #[must_use]
    pub fn id(self) -> u32 {
        self.id
    }
}

/// What is known of a stream.
pub(crate) struct Stream<S> {
    pub(crate) id: u32,
    /// What the other side may still send, and what was taken of what it sent and
    /// it was not told of.
    pub(crate) receive_window: i64,
    pub(crate) released: u32,
    /// What may be sent to it; below 0 after its settings made windows smaller.
    pub(crate) send_window: i64,
    /// Nothing more comes, or goes.
    pub(crate) receive_closed: bool,
    pub(crate) send_closed: bool,
    /// Of an answer: its head has come. It may follow others (1xx).
    pub(crate) head_came: bool,
    /// Of an answer: none has a body, whatever its length says.
    pub(crate) bodiless: bool,
    /// What is missing of the body, where its head said how long it is.
    pub(crate) missing: Option<u64>,
    /// What waits for room, and how it ends.
    pub(crate) queue: VecDeque<Bytes>,
    pub(crate) end: End,
    /// It stands in the line of those that wait for the connection.
    pub(crate) in_line: bool,
    /// Whoever sends waits to hear that there is room.
    pub(crate) wants: bool,
    /// Nobody has its key any more: it ends when the rest is sent, with this if
    /// the other side still sends.
    pub(crate) detached: Option<Reason>,
    pub(crate) user: S,
}

/// What comes after the queue.
#[derive(Debug, Default)]
pub(crate) enum End {
    #[default]
    None,
    Stream,
    Trailers(Box<HeaderMap>),
}

impl<S> Stream<S> {
    pub(crate) fn new(id: u32, receive_window: u32, send_window: i64, user: S) -> Self {
        Self {
            id,
            receive_window: i64::from(receive_window),
            released: 0,
            send_window,
            receive_closed: false,
            send_closed: false,
            head_came: false,
            bodiless: false,
            missing: None,
            queue: VecDeque::new(),
            end: End::None,
            in_line: false,
            wants: false,
            detached: None,
            user,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.receive_closed && self.send_closed
    }

    /// Something waits to be sent.
    pub(crate) fn is_behind(&self) -> bool {
        !self.queue.is_empty() || !matches!(self.end, End::None)
    }

    /// It is over: nothing of it is sent any more.
    pub(crate) fn close(&mut self) {
        self.receive_closed = true;
        self.send_closed = true;
        self.queue.clear();
        self.end = End::None;
    }
}

/// All streams that somebody has a key of.
pub(crate) struct Streams<S> {
    slots: Vec<Option<Box<Stream<S>>>>,
    free: Vec<u32>,
    /// Those that are not over, by their number.
    open: HashMap<u32, u32, BuildHasherDefault<IdHasher>>,
}

impl<S> Default for Streams<S> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            open: HashMap::default(),
        }
    }
}

impl<S> Streams<S> {
    pub(crate) fn insert(&mut self, stream: Stream<S>) -> Key {
        let id = stream.id;
        let stream = Some(Box::new(stream));
        let slot = match self.free.pop() {
            Some(slot) => {
                if let Some(place) = self.slots.get_mut(slot as usize) {
                    *place = stream;
                }
                slot
            }
            None => {
                self.slots.push(stream);
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.open.insert(id, slot);
        Key { slot, id }
    }

    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&Stream<S>> {
        let stream = self.slots.get(key.slot as usize)?.as_deref()?;
        (stream.id == key.id).then_some(stream)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Stream<S>> {
        let stream = self.slots.get_mut(key.slot as usize)?.as_deref_mut()?;
        (stream.id == key.id).then_some(stream)
    }

    /// The one of this number, if it is not over.
    pub(crate) fn find(&self, id: u32) -> Option<Key> {
        self.open.get(&id).map(|slot| Key { slot: *slot, id })
    }

    /// It is over, and counts no more; `false` if it was already.
    pub(crate) fn closed(&mut self, id: u32) -> bool {
        self.open.remove(&id).is_some()
    }

    /// Forgets one.
    pub(crate) fn remove(&mut self, key: Key) {
        if self.get(key).is_none() {
            return;
        }
        if let Some(slot) = self.slots.get_mut(key.slot as usize) {
            *slot = None;
            self.free.push(key.slot);
        }
        self.open.remove(&key.id);
    }

    /// How many are not over.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Stream<S>> {
        self.slots.iter_mut().filter_map(Option::as_deref_mut)
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        let slots = self.slots.iter().enumerate();
        slots
            .filter_map(|(slot, stream)| {
                let slot = u32::try_from(slot).ok()?;
                let id = stream.as_ref()?.id;
                Some(Key { slot, id })
            })
            .collect()
    }
}

/// Numbers of streams only count up, and there are few at a time: whoever
/// chooses them well makes them a little slower for himself.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    #[inline]
    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }
}
