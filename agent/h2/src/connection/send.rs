//! What goes out.

use bytes::Bytes;
use http::{HeaderMap, Method, request, response};

use super::streams::{End, Stream};
use super::{Connection, FULL, Key};
use crate::error::Reason;
use crate::frame::{END_STREAM, Kind};
use crate::head;

/// Who reads a body may say so as often as after so many bytes, for the stream and
/// for the connection.
const UPDATE: usize = 512;

/// Whether more of a body can be given to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It can.
    Some,
    /// Not now; [`Connection::take_writable`] tells when.
    Wait,
    /// Nobody wants it: the stream is over.
    Gone,
}

impl<S> Connection<S> {
    /// Whether a stream can be begun now.
    #[must_use]
    pub fn can_open(&self) -> bool {
        !self.is_server && !self.is_going() && self.streams.open() < self.their_streams
    }

    /// Asks; `end` says that there is no body. `None` if that cannot be now.
    pub fn open(&mut self, head: &request::Parts, end: bool, user: S) -> Option<Key> {
        if !self.can_open() {
            return None;
        }
        let id = self.next_ours;
        self.next_ours += 2;
        let mut stream = Stream::new(id, self.config.stream_window, self.their_window, user);
        stream.send_closed = end;
        stream.bodiless = head.method == Method::HEAD;
        let encoder = &mut self.encoder;
        let flags = if end { END_STREAM } else { 0 };
        self.output.block(flags, id, self.their_frame, |out| {
            head::write_request(encoder, out, head);
        });
        Some(self.streams.insert(stream))
    }

    /// Answers; `end` says that there is no body. `false` if nobody wants it.
    pub fn respond(&mut self, key: Key, head: &response::Parts, end: bool) -> bool {
        let Some(stream) = self.streams.get_mut(key) else {
            return false;
        };
        if stream.send_closed {
            return false;
        }
        stream.send_closed = end;
        let encoder = &mut self.encoder;
        let flags = if end { END_STREAM } else { 0 };
        self.output.block(flags, key.id(), self.their_frame, |out| {
            head::write_response(encoder, out, head);
        });
        if end {
            self.settle(key);
        }
        true
    }

    /// Whether there is room for a piece of a body now, of a stream that nothing was
    /// sent on yet.
    #[must_use]
    pub fn has_room(&self, key: Key) -> bool {
        let stream = self.streams.get(key).filter(|it| !it.send_closed);
        let is_free = self.send_window > 0 && self.output.len() < FULL && self.line.is_empty();
        is_free && stream.is_some_and(|it| it.send_window > 0 && !it.is_behind())
    }

    /// Whether another piece of a body can be given. One is taken whole where
    /// there is any room; what of it has none waits.
    pub fn room(&mut self, key: Key) -> Room {
        let full = self.send_window <= 0 || self.output.len() >= FULL || !self.line.is_empty();
        let Some(stream) = self
            .streams
            .get_mut(key)
            .filter(|stream| !stream.send_closed)
        else {
            return Room::Gone;
        };
        let can = stream.send_window > 0;
        if can && !full && !stream.is_behind() {
            return Room::Some;
        }
        stream.wants = true;
        if can && !std::mem::replace(&mut stream.in_line, true) {
            self.line.push_back(key);
        }
        Room::Wait
    }

    /// Sends a piece of a body; `end` says that it is the last. `false` if
    /// nobody wants it.
    pub fn send(&mut self, key: Key, data: Bytes, end: bool) -> bool {
        let Some(stream) = self
            .streams
            .get_mut(key)
            .filter(|stream| !stream.send_closed)
        else {
            return false;
        };
        if !matches!(stream.end, End::None) {
            return false;
        }
        let largest = self.their_frame.min(self.config.frame as usize);
        let room = stream.send_window.min(self.send_window);
        let is_free = self.output.len() < FULL && self.line.is_empty();
        let fits = data.len() <= largest && i64::try_from(data.len()).is_ok_and(|it| it <= room);
        if is_free && fits && !data.is_empty() && stream.queue.is_empty() {
            self.put(key, data, end); // it need not stand in the queue
            return true;
        }
        if !data.is_empty() {
            stream.queue.push_back(data);
        }
        if end {
            stream.end = End::Stream;
        }
        self.send_now(key);
        true
    }

    /// Ends a body with trailers. `false` if nobody wants them.
    pub fn send_trailers(&mut self, key: Key, trailers: HeaderMap) -> bool {
        let Some(stream) = self
            .streams
            .get_mut(key)
            .filter(|stream| !stream.send_closed)
        else {
            return false;
        };
        if !matches!(stream.end, End::None) {
            return false;
        }
        stream.end = End::Trailers(Box::new(trailers));
        self.send_now(key);
        true
    }

    /// Gives a stream up, and tells the other side why. Of one that is over
    /// nothing is told.
    pub fn reset(&mut self, key: Key, reason: Reason) {
        self.abandon(key, reason);
    }

    /// Nobody has a use for a stream any more. What is to be sent on it is sent, if
    /// its end is known; else it is given up, if it is not over.
    pub fn forget(&mut self, key: Key)
    where
        S: Default,
    {
        let is_server = self.is_server;
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        // Whoever has answered needs no more of the question (RFC 9113, 8.1).
        let answered = stream.send_closed || !matches!(stream.end, End::None);
        let reason = match is_server && answered {
            true => Reason::NO_ERROR,
            false => Reason::CANCEL,
        };
        if !matches!(stream.end, End::None) && stream.detached.is_none() {
            stream.detached = Some(reason);
            stream.user = S::default();
            return;
        }
        self.abandon(key, reason);
        self.streams.remove(key);
    }

    /// So many bytes of a body were taken: the other side may send as many more.
    pub fn release(&mut self, key: Key, bytes: usize) {
        self.release_connection(bytes);
        let half = self.config.stream_window / 2;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        stream.released = stream.released.saturating_add(bytes);
        if stream.released >= half && !stream.receive_closed {
            let more = std::mem::take(&mut stream.released);
            stream.receive_window += i64::from(more);
            self.output
                .frame(Kind::WindowUpdate, 0, key.id(), &more.to_be_bytes());
        }
    }

    /// The same of bytes that nobody will take.
    pub fn release_connection(&mut self, bytes: usize) {
        let half = self.config.connection_window / 2;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.released = self.released.saturating_add(bytes);
        if self.released >= half {
            let more = std::mem::take(&mut self.released);
            self.receive_window += i64::from(more);
            self.output
                .frame(Kind::WindowUpdate, 0, 0, &more.to_be_bytes());
        }
    }

    /// Sends what has room, unless others came first.
    fn send_now(&mut self, key: Key) {
        let waits = !self.line.is_empty();
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        if waits && !stream.queue.is_empty() {
            if stream.send_window > 0 && !std::mem::replace(&mut stream.in_line, true) {
                self.line.push_back(key);
            }
            return;
        }
        while self.send_frame(key) {}
        self.line_up(key);
    }

    /// What has something to send, and room of its own, waits for the
    /// connection's.
    fn line_up(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        let has_room = stream.send_window > 0 || stream.queue.is_empty();
        if stream.is_behind() && has_room && !std::mem::replace(&mut stream.in_line, true) {
            self.line.push_back(key);
        }
    }

    /// Sends one frame of a stream; `false` if there is nothing, or no room.
    fn send_frame(&mut self, key: Key) -> bool {
        let largest = self.their_frame.min(self.config.frame as usize);
        let is_full = self.output.len() >= FULL;
        let Some(stream) = self.streams.get_mut(key) else {
            return false;
        };
        let Some(front) = stream.queue.front_mut() else {
            return self.send_end(key);
        };
        let room = stream.send_window.min(self.send_window).max(0);
        let length = usize::try_from(room)
            .unwrap_or(0)
            .min(front.len())
            .min(largest);
        if length == 0 || is_full {
            return false;
        }
        let data = front.split_to(length);
        if front.is_empty() {
            stream.queue.pop_front();
        }
        let end = stream.queue.is_empty() && matches!(stream.end, End::Stream);
        self.put(key, data, end);
        true
    }

    /// A frame of a body, for which there is room.
    fn put(&mut self, key: Key, data: Bytes, end: bool) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        let sent = i64::try_from(data.len()).unwrap_or(i64::MAX);
        stream.send_window -= sent;
        self.send_window -= sent;
        let updates = 2 + data.len() / UPDATE;
        self.updates = (self.updates).saturating_add(u32::try_from(updates).unwrap_or(u32::MAX));
        if end {
            stream.end = End::None;
            stream.send_closed = true;
        }
        let flags = if end { END_STREAM } else { 0 };
        self.output.data(flags, key.id(), data);
        if end {
            self.settle(key);
        }
    }

    /// Sends what comes after a body, which needs no room.
    fn send_end(&mut self, key: Key) -> bool {
        let Some(stream) = self.streams.get_mut(key) else {
            return false;
        };
        match std::mem::take(&mut stream.end) {
            End::None => return false,
            End::Trailers(trailers) if !trailers.is_empty() => {
                let encoder = &mut self.encoder;
                self.output
                    .block(END_STREAM, key.id(), self.their_frame, |out| {
                        head::write_trailers(encoder, out, &trailers);
                    });
            }
            End::Stream | End::Trailers(_) => {
                self.output.data(END_STREAM, key.id(), Bytes::new());
            }
        }
        stream.send_closed = true;
        self.settle(key);
        true
    }

    /// Lets those in the line have their turn, a frame each.
    pub(super) fn serve_line(&mut self) {
        while self.output.len() < FULL
            && self.send_window > 0
            && let Some(key) = self.line.pop_front()
        {
            let Some(stream) = self.streams.get_mut(key) else {
                continue;
            };
            stream.in_line = false;
            if stream.is_behind() {
                self.send_frame(key);
                // The end needs no turn of its own.
                if self
                    .streams
                    .get(key)
                    .is_some_and(|stream| stream.queue.is_empty())
                {
                    self.send_end(key);
                }
                self.line_up(key);
            }
            self.tell_room(key);
        }
    }

    /// Tells whoever waits to send on a stream that there is room, or that the
    /// stream is over.
    pub(super) fn tell_room(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        let has_room = !stream.is_behind() && stream.send_window > 0;
        if stream.wants && (has_room || stream.send_closed) {
            stream.wants = false;
            self.writable.push_back(key);
        }
    }
}
