//! What comes in.

use bytes::{Buf, Bytes};
use http::StatusCode;

use super::streams::Stream;
use super::{Connection, Event, Going, Key, LEAVING, Phase};
use crate::error::{Reason, ResetBy, Violation};
use crate::frame::{
    self, ACK, END_HEADERS, END_STREAM, HEAD, Head, Kind, LARGEST_FRAME, LARGEST_WINDOW, PADDED,
    PREFACE, PRIORITY,
};
use crate::head::{self, Fields};

/// From this size on a piece of a body stays in what was read; of a smaller one
/// that would hold too much for too long.
const SHARED: usize = 16 * 1024;
/// CONTINUATION frames of a block.
const CONTINUATIONS: u32 = 64;

/// A DATA frame of which not all has come.
pub(super) struct Arriving {
    /// `None`: nobody wants it.
    key: Option<Key>,
    data: usize,
    padding: usize,
    end: bool,
}

/// A header block of which not all frames have come.
pub(super) struct Block {
    id: u32,
    end: bool,
    bytes: Vec<u8>,
    frames: u32,
}

impl<S: Default> Connection<S> {
    /// Takes what the other side sent, up to the next event. `None`: all of it was
    /// taken, and more is needed. After an error the connection is closed, and the
    /// other side learns why from what is to be written.
    pub fn receive(&mut self, input: &mut Bytes) -> Result<Option<Event>, Violation> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if self.closed {
                input.clear();
                return Ok(None);
            }
            match self.step(input) {
                Ok(Some(event)) => return Ok(Some(event)),
                Ok(None) if input.is_empty() && self.events.is_empty() => return Ok(None),
                Ok(None) => {}
                Err(violation) => {
                    self.close(violation.reason);
                    return Err(violation);
                }
            }
        }
    }

    /// Takes a frame, or what there is of one.
    fn step(&mut self, input: &mut Bytes) -> Result<Option<Event>, Violation> {
        if let Phase::Preface(came) = self.phase {
            return self.preface(came, input).map(|()| None);
        }
        if self.data.is_some() {
            return Ok(self.arriving(input));
        }
        if self.partial.is_empty() {
            let Some(head) = Head::read(input) else {
                self.keep(input, HEAD);
                return Ok(None);
            };
            let before = self.check(head)?;
            let Some(bytes) = input.get(HEAD..HEAD + before) else {
                self.keep(input, HEAD + before);
                return Ok(None);
            };
            let event = self.frame(head, bytes)?;
            input.advance(HEAD + before);
            return Ok(event);
        }
        if self.partial.len() < HEAD {
            self.keep(input, HEAD);
        }
        let Some(head) = Head::read(&self.partial) else {
            return Ok(None);
        };
        let before = self.check(head)?;
        self.keep(input, HEAD + before);
        if self.partial.len() < HEAD + before {
            return Ok(None);
        }
        let mut partial = std::mem::take(&mut self.partial);
        let event = self.frame(head, partial.get(HEAD..).unwrap_or_default());
        if partial.capacity() <= 1024 {
            partial.clear();
            self.partial = partial;
        }
        event
    }

    /// Keeps as much as makes the beginning of a frame so long.
    fn keep(&mut self, input: &mut Bytes, length: usize) {
        let missing = length.saturating_sub(self.partial.len());
        let now = input.get(..missing).unwrap_or(input);
        self.partial.extend_from_slice(now);
        let now = now.len();
        input.advance(now);
    }

    fn preface(&mut self, came: usize, input: &mut Bytes) -> Result<(), Violation> {
        let expected = PREFACE.get(came..).unwrap_or_default();
        let length = expected.len().min(input.len());
        if input.get(..length) != expected.get(..length) {
            return Err(Violation::protocol("it does not begin as HTTP/2 does"));
        }
        input.advance(length);
        self.phase = match length == expected.len() {
            true => Phase::Settings,
            false => Phase::Preface(came + length),
        };
        Ok(())
    }

    /// Looks at what stands before a frame's payload. Gives back how much of the
    /// payload must be there before it can be taken: of a body nothing.
    fn check(&self, head: Head) -> Result<usize, Violation> {
        if head.length > self.config.frame as usize {
            return Err(Violation::size("a frame is larger than is allowed"));
        }
        if self.phase == Phase::Settings && (head.kind != Kind::Settings || head.has(ACK)) {
            return Err(Violation::protocol("it does not begin with its settings"));
        }
        if let Some(block) = &self.block
            && (head.kind != Kind::Continuation || head.id != block.id)
        {
            return Err(Violation::protocol("another frame within a header block"));
        }
        let of_stream = matches!(
            head.kind,
            Kind::Data | Kind::Headers | Kind::Priority | Kind::Reset | Kind::Continuation
        );
        let of_connection = matches!(head.kind, Kind::Settings | Kind::Ping | Kind::GoAway);
        if of_stream && head.id == 0 || of_connection && head.id != 0 {
            return Err(Violation::protocol("a frame of the wrong stream"));
        }
        match head.kind {
            Kind::Data if head.has(PADDED) && head.length == 0 => {
                Err(Violation::size("a frame has no room for its padding"))
            }
            Kind::Data => Ok(usize::from(head.has(PADDED))),
            _ => Ok(head.length),
        }
    }

    fn frame(&mut self, head: Head, payload: &[u8]) -> Result<Option<Event>, Violation> {
        match head.kind {
            Kind::Data => self.data(head, payload),
            Kind::Headers => self.headers(head, payload),
            Kind::Continuation => self.continuation(head, payload),
            Kind::Settings => self.settings(head, payload).map(|()| None),
            Kind::WindowUpdate => self.window_update(head, payload),
            Kind::Reset => self.peer_reset(head, payload),
            Kind::Ping => self.ping(head, payload).map(|()| None),
            Kind::GoAway => self.peer_going(payload).map(|()| None),
            Kind::Priority => {
                self.idle()?;
                match payload.len() {
                    5 => Ok(None),
                    _ => Err(Violation::size("a priority of the wrong size")),
                }
            }
            Kind::PushPromise => Err(Violation::protocol("a push, which was not allowed")),
            Kind::Unknown => self.idle().map(|()| None),
        }
    }

    /// A frame that brings nothing.
    fn idle(&mut self) -> Result<(), Violation> {
        match self.idle_frames.checked_sub(1) {
            Some(left) => self.idle_frames = left,
            None => return Err(Violation::calm("too many frames that bring nothing")),
        }
        Ok(())
    }

    fn useful(&mut self) {
        self.idle_frames = self
            .idle_frames
            .saturating_add(1)
            .min(self.config.idle_frames);
    }

    /// The other side gave a stream up, or broke it.
    fn spoiled(&mut self) -> Result<(), Violation> {
        if !self.is_server {
            return Ok(()); // each was asked for
        }
        match self.resets.checked_sub(1) {
            Some(left) => self.resets = left,
            None => return Err(Violation::calm("too many streams are given up")),
        }
        Ok(())
    }

    /// A rule was broken that is a stream's alone.
    fn malformed(&mut self, key: Key, what: &'static str) -> Result<Option<Event>, Violation> {
        self.spoiled()?;
        self.abandon(key, Reason::PROTOCOL_ERROR);
        self.tell_room(key);
        let by = ResetBy::Malformed(what);
        Ok(Some(Event::Reset { key, by }))
    }

    /// Whether a stream was never begun, so that nothing but its beginning may
    /// come.
    fn is_unbegun(&self, id: u32) -> bool {
        match (id % 2 == 1, self.is_server) {
            (true, true) => id > self.last_theirs,
            (true, false) => id >= self.next_ours,
            (false, _) => true, // nothing is pushed
        }
    }

    fn data(&mut self, head: Head, before: &[u8]) -> Result<Option<Event>, Violation> {
        let padding = before.first().map(|padding| usize::from(*padding));
        let data = match padding {
            None => head.length,
            Some(padding) => (head.length - 1)
                .checked_sub(padding)
                .ok_or(Violation::protocol("padding beyond a frame"))?,
        };
        let end = head.has(END_STREAM);
        if self.is_unbegun(head.id) {
            return Err(Violation::protocol("a body of no stream"));
        }
        if data == 0 && !end {
            self.idle()?;
        } else {
            self.useful();
        }
        let counted = i64::try_from(head.length).unwrap_or(i64::MAX);
        self.receive_window -= counted;
        if self.receive_window < 0 {
            let what = "more was sent than there was room for";
            return Err(Violation::new(Reason::FLOW_CONTROL_ERROR, what));
        }
        let key = self.streams.find(head.id);
        let mut wanted = None;
        let mut told = None;
        if let Some((key, stream)) = key.and_then(|key| Some((key, self.streams.get_mut(key)?))) {
            stream.receive_window -= counted;
            if stream.receive_window < 0 {
                self.abandon(key, Reason::FLOW_CONTROL_ERROR);
                self.tell_room(key);
                let by = ResetBy::Malformed("more was sent on it than there was room for");
                told = Some(Event::Reset { key, by });
            } else if stream.receive_closed {
                self.abandon(key, Reason::STREAM_CLOSED);
                self.tell_room(key);
                let by = ResetBy::Malformed("a body after its end");
                told = Some(Event::Reset { key, by });
            } else if let Some(what) = stream.count(data, end) {
                told = self.malformed(key, what)?;
            } else if stream.detached.is_none() {
                wanted = Some(key);
            } else if end {
                self.end_received(key);
            }
        } else if !self.was_given_up(head.id) {
            self.idle()?;
            self.remember(head.id);
            let code = Reason::STREAM_CLOSED.0.to_be_bytes();
            self.owe(Kind::Reset, 0, head.id, &code)?;
        }
        let overhead = head.length - data;
        match wanted {
            None => self.release_connection(head.length),
            Some(key) if overhead > 0 => self.release(key, overhead),
            Some(_) => {}
        }
        self.data = Some(Arriving {
            key: wanted,
            data,
            padding: padding.unwrap_or(0),
            end,
        });
        if data == 0 && told.is_none() {
            // Nothing more needs to come for it.
            return Ok(self.arriving(&mut Bytes::new()));
        }
        Ok(told)
    }

    /// Takes what there is of a body's frame.
    fn arriving(&mut self, input: &mut Bytes) -> Option<Event> {
        let arriving = self.data.as_mut()?;
        let length = arriving.data.min(input.len());
        arriving.data -= length;
        let piece = match (arriving.key, length) {
            (Some(_), SHARED..) => input.split_to(length),
            (Some(_), 1..) => {
                let piece = Bytes::copy_from_slice(input.get(..length).unwrap_or_default());
                input.advance(length);
                piece
            }
            _ => {
                input.advance(length);
                Bytes::new()
            }
        };
        let is_whole = arriving.data == 0;
        let (key, end) = (arriving.key, arriving.end && is_whole);
        if is_whole {
            arriving.key = None; // its end is told once
            let padding = arriving.padding.min(input.len());
            arriving.padding -= padding;
            input.advance(padding);
            if arriving.padding == 0 {
                self.data = None;
            }
        }
        let key = key?;
        if piece.is_empty() && !end {
            return None;
        }
        if end {
            self.end_received(key);
        }
        Some(Event::Data {
            key,
            data: piece,
            end,
        })
    }

    fn end_received(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.receive_closed = true;
        }
        self.settle(key);
    }

    fn headers(&mut self, head: Head, payload: &[u8]) -> Result<Option<Event>, Violation> {
        let mut rest = payload;
        let mut padding = 0;
        if head.has(PADDED) {
            let (first, after) = rest
                .split_first()
                .ok_or(Violation::size("a frame has no room for its padding"))?;
            (padding, rest) = (usize::from(*first), after);
        }
        if head.has(PRIORITY) {
            let (priority, after) = rest
                .split_at_checked(5)
                .ok_or(Violation::size("a frame has no room for its priority"))?;
            rest = after;
            if frame::number(priority).is_some_and(|on| on & frame::LARGEST_ID == head.id) {
                return Err(Violation::protocol("a stream that depends on itself"));
            }
        }
        let length = rest.len().checked_sub(padding);
        let block = length
            .and_then(|length| rest.get(..length))
            .ok_or(Violation::protocol("padding beyond a frame"))?;
        let end = head.has(END_STREAM);
        if head.has(END_HEADERS) {
            return self.block(head.id, end, block);
        }
        self.block = Some(Block {
            id: head.id,
            end,
            bytes: block.to_vec(),
            frames: 0,
        });
        self.check_block()?;
        Ok(None)
    }

    fn continuation(&mut self, head: Head, payload: &[u8]) -> Result<Option<Event>, Violation> {
        let Some(block) = &mut self.block else {
            return Err(Violation::protocol("a continuation of nothing"));
        };
        block.bytes.extend_from_slice(payload);
        block.frames += 1;
        self.check_block()?;
        if !head.has(END_HEADERS) {
            return Ok(None);
        }
        match self.block.take() {
            Some(block) => self.block(block.id, block.end, &block.bytes),
            None => Ok(None),
        }
    }

    /// A block that is far larger than a head may be is not even read.
    fn check_block(&self) -> Result<(), Violation> {
        let most = self
            .config
            .header_bytes
            .saturating_mul(2)
            .max(LARGEST_BLOCK);
        match &self.block {
            Some(block) if block.bytes.len() > most || block.frames > CONTINUATIONS => {
                Err(Violation::calm("a header block without end"))
            }
            _ => Ok(()),
        }
    }

    fn block(&mut self, id: u32, end: bool, block: &[u8]) -> Result<Option<Event>, Violation> {
        if let Some(key) = self.streams.find(id) {
            let fields = head::read(&mut self.decoder, block, self.config.header_bytes)?;
            self.useful();
            return self.of_stream(key, end, fields);
        }
        if self.is_server && id % 2 == 1 && id > self.last_theirs {
            return self.request(id, end, block);
        }
        if self.is_unbegun(id) {
            return Err(Violation::protocol("a head of no stream"));
        }
        head::skip(&mut self.decoder, block)?;
        self.idle()?;
        match self.was_given_up(id) {
            true => Ok(None),
            false => Err(Violation::new(
                Reason::STREAM_CLOSED,
                "a head on a stream that is over",
            )),
        }
    }

    fn request(&mut self, id: u32, end: bool, block: &[u8]) -> Result<Option<Event>, Violation> {
        self.last_theirs = id;
        let is_full = self.streams.open() >= self.config.streams as usize;
        if self.going == Going::Last || is_full {
            head::skip(&mut self.decoder, block)?;
            self.remember(id);
            if is_full {
                self.idle()?;
                self.owe(Kind::Reset, 0, id, &Reason::REFUSED_STREAM.0.to_be_bytes())?;
            }
            return Ok(None);
        }
        let fields = head::read(&mut self.decoder, block, self.config.header_bytes)?;
        self.useful();
        if fields.over_size {
            self.too_large(id, end)?;
            return Ok(None);
        }
        let length = fields.length;
        let head = match fields.into_request() {
            Ok(_) if end && length.is_some_and(|length| length > 0) => Err("no body, but a length"),
            head => head,
        };
        let Ok(head) = head else {
            self.spoiled()?;
            self.remember(id);
            self.owe(Kind::Reset, 0, id, &Reason::PROTOCOL_ERROR.0.to_be_bytes())?;
            return Ok(None);
        };
        let window = self.config.stream_window;
        let mut stream = Stream::new(id, window, self.their_window, S::default());
        stream.receive_closed = end;
        stream.missing = length;
        stream.head_came = true;
        let key = self.streams.insert(stream);
        let head = Box::new(head);
        Ok(Some(Event::Request { key, head, end }))
    }

    /// Answers a request whose head is larger than is taken.
    fn too_large(&mut self, id: u32, end: bool) -> Result<(), Violation> {
        self.spoiled()?;
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let encoder = &mut self.encoder;
        self.output.block(END_STREAM, id, self.their_frame, |out| {
            encoder.begin(out);
            head::write_status(encoder, out, status);
        });
        self.remember(id);
        if !end {
            self.owe(Kind::Reset, 0, id, &Reason::NO_ERROR.0.to_be_bytes())?;
        }
        Ok(())
    }

    /// A head of a stream that there is: an answer, or trailers.
    fn of_stream(
        &mut self,
        key: Key,
        end: bool,
        fields: Fields,
    ) -> Result<Option<Event>, Violation> {
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(None);
        };
        if stream.receive_closed {
            self.abandon(key, Reason::STREAM_CLOSED);
            self.tell_room(key);
            let by = ResetBy::Malformed("a head after its end");
            return Ok(Some(Event::Reset { key, by }));
        }
        if fields.over_size {
            return self.malformed(key, "a head that is larger than is taken");
        }
        if stream.head_came {
            if !end {
                return self.malformed(key, "a second head");
            }
            if stream.missing.is_some_and(|missing| missing > 0) {
                return self.malformed(key, "a body that is shorter than its length");
            }
            return match fields.into_trailers() {
                Ok(trailers) => {
                    self.end_received(key);
                    Ok(Some(Event::Trailers { key, trailers }))
                }
                Err(what) => self.malformed(key, what),
            };
        }
        let length = fields.length;
        let head = match fields.into_response() {
            Ok(head) => head,
            Err(what) => return self.malformed(key, what),
        };
        if head.status.is_informational() {
            return match end {
                true => self.malformed(key, "nothing but an interim answer"),
                false => Ok(None),
            };
        }
        stream.head_came = true;
        stream.bodiless |= matches!(
            head.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
        stream.missing = if stream.bodiless { Some(0) } else { length };
        if end && stream.missing.is_some_and(|missing| missing > 0) {
            return self.malformed(key, "no body, but a length");
        }
        if end {
            self.end_received(key);
        }
        let head = Box::new(head);
        Ok(Some(Event::Response { key, head, end }))
    }

    fn peer_reset(&mut self, head: Head, payload: &[u8]) -> Result<Option<Event>, Violation> {
        let code = match payload.len() {
            4 => frame::number(payload).unwrap_or_default(),
            _ => return Err(Violation::size("a reset of the wrong size")),
        };
        if self.is_unbegun(head.id) {
            return Err(Violation::protocol("a reset of no stream"));
        }
        let Some(key) = self.streams.find(head.id) else {
            self.idle()?;
            return Ok(None);
        };
        self.spoiled()?;
        if let Some(stream) = self.streams.get_mut(key) {
            stream.close();
        }
        self.streams.closed(key.id());
        self.tell_room(key);
        self.bury(key);
        let by = ResetBy::Peer(Reason(code));
        Ok(Some(Event::Reset { key, by }))
    }

    fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        self.phase = Phase::Open;
        if head.has(ACK) {
            self.idle()?;
            return match payload.is_empty() {
                true => Ok(()),
                false => Err(Violation::size("an acknowledgement with settings in it")),
            };
        }
        let (settings, []) = payload.as_chunks::<6>() else {
            return Err(Violation::size("settings of the wrong size"));
        };
        self.idle()?;
        for [high, low, value @ ..] in settings {
            self.setting(
                u16::from_be_bytes([*high, *low]),
                u32::from_be_bytes(*value),
            )?;
        }
        self.owe(Kind::Settings, ACK, 0, &[])
    }

    fn setting(&mut self, name: u16, value: u32) -> Result<(), Violation> {
        match name {
            1 => self.encoder.set_table_size(value as usize),
            2 if value > 1 || value == 1 && !self.is_server => {
                return Err(Violation::protocol("a push is offered, which may not be"));
            }
            3 => self.their_streams = value as usize,
            4 if value > LARGEST_WINDOW => {
                let what = "a window that is too large";
                return Err(Violation::new(Reason::FLOW_CONTROL_ERROR, what));
            }
            4 => self.resize_windows(value)?,
            5 if !(frame::DEFAULT_FRAME..=LARGEST_FRAME).contains(&value) => {
                return Err(Violation::protocol("a frame size that may not be"));
            }
            5 => self.their_frame = value as usize,
            _ => {}
        }
        Ok(())
    }

    /// The windows of all streams change by as much.
    fn resize_windows(&mut self, window: u32) -> Result<(), Violation> {
        let change = i64::from(window) - self.their_window;
        self.their_window = i64::from(window);
        for stream in self.streams.all_mut() {
            stream.send_window += change;
            if stream.send_window > i64::from(LARGEST_WINDOW) {
                let what = "a window that is too large";
                return Err(Violation::new(Reason::FLOW_CONTROL_ERROR, what));
            }
        }
        if change > 0 {
            for key in self.streams.keys() {
                self.has_window(key);
            }
            self.serve_line();
        }
        Ok(())
    }

    /// A stream may send more: whatever waits for that stands in the line again.
    fn has_window(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(key)
            && (stream.wants || stream.is_behind())
            && stream.send_window > 0
            && !std::mem::replace(&mut stream.in_line, true)
        {
            self.line.push_back(key);
        }
    }

    fn window_update(&mut self, head: Head, payload: &[u8]) -> Result<Option<Event>, Violation> {
        let more = match payload.len() {
            4 => frame::number(payload).unwrap_or_default() & LARGEST_WINDOW,
            _ => return Err(Violation::size("a window's update of the wrong size")),
        };
        match self.updates.checked_sub(1) {
            Some(left) => self.updates = left,
            None => self.idle()?,
        }
        if head.id == 0 {
            if more == 0 {
                return Err(Violation::protocol("a window's update by nothing"));
            }
            self.send_window += i64::from(more);
            if self.send_window > i64::from(LARGEST_WINDOW) {
                let what = "a window that is too large";
                return Err(Violation::new(Reason::FLOW_CONTROL_ERROR, what));
            }
            self.serve_line();
            return Ok(None);
        }
        if self.is_unbegun(head.id) {
            return Err(Violation::protocol("a window's update of no stream"));
        }
        let Some(key) = self.streams.find(head.id) else {
            return Ok(None); // it was on its way
        };
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(None);
        };
        if more == 0 {
            return self.malformed(key, "a window's update by nothing");
        }
        stream.send_window += i64::from(more);
        if stream.send_window > i64::from(LARGEST_WINDOW) {
            self.abandon(key, Reason::FLOW_CONTROL_ERROR);
            self.tell_room(key);
            let by = ResetBy::Malformed("a window that is too large");
            return Ok(Some(Event::Reset { key, by }));
        }
        self.has_window(key);
        self.serve_line();
        Ok(None)
    }

    fn ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        if payload.len() != 8 {
            return Err(Violation::size("a ping of the wrong size"));
        }
        self.idle()?;
        if !head.has(ACK) {
            return self.owe(Kind::Ping, ACK, 0, payload);
        }
        if payload == LEAVING && self.going == Going::Announced {
            self.going = Going::Last;
            self.say_going(self.last_theirs, Reason::NO_ERROR);
        }
        Ok(())
    }

    fn peer_going(&mut self, payload: &[u8]) -> Result<(), Violation> {
        let (Some(last), Some(code)) = (
            frame::number(payload),
            frame::number(payload.get(4..).unwrap_or_default()),
        ) else {
            return Err(Violation::size("a GOAWAY that is too short"));
        };
        self.idle()?;
        let last = last & frame::LARGEST_ID;
        if self.peer_goes.is_some_and(|before| last > before) {
            return Err(Violation::protocol("a GOAWAY that takes one back"));
        }
        self.peer_goes = Some(last);
        if self.is_server {
            return Ok(()); // nothing was pushed
        }
        for key in self.streams.keys() {
            if key.id() > last
                && let Some(stream) = self.streams.get_mut(key)
                && !stream.is_closed()
            {
                stream.close();
                self.streams.closed(key.id());
                self.tell_room(key);
                self.bury(key);
                let by = ResetBy::Unprocessed(Reason(code));
                self.events.push_back(Event::Reset { key, by });
            }
        }
        Ok(())
    }
}

/// A header block may be as large as this in any case.
const LARGEST_BLOCK: usize = 32 * 1024;

impl<S> Stream<S> {
    /// Counts what came of a body; what is wrong with it, if something is.
    fn count(&mut self, data: usize, end: bool) -> Option<&'static str> {
        if !self.head_came {
            return Some("a body before its head");
        }
        let missing = self.missing.as_mut()?;
        match missing.checked_sub(data as u64) {
            Some(left) => *missing = left,
            None => return Some("a body that is longer than its length"),
        }
        (end && *missing > 0).then_some("a body that is shorter than its length")
    }
}
