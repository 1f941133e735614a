//! Streams begin: opened here at a client, accepted here at a server.

use std::task::{Poll, Waker};

use bytes::Bytes;

use super::{End, Role, Slot, State};
use crate::error::{OpenError, ResetCode, Violation};
use crate::wire::{self, Kind, MAX_METADATA, MAX_STREAM_ID};

impl State {
    /// Opens a stream, or waits in line for one. `ticket` is the caller's place
    /// in the line; it must be given back with [`State::leave_line`] when the
    /// caller gives up.
    pub(crate) fn open(
        &mut self,
        metadata: &[u8],
        ticket: &mut Option<u64>,
        waker: &Waker,
    ) -> Poll<Result<u32, OpenError>> {
        if let Some(reason) = &self.closed {
            return Poll::Ready(Err(OpenError::Closed(reason.clone())));
        }
        if metadata.len() > MAX_METADATA {
            let length = metadata.len();
            return Poll::Ready(Err(OpenError::MetadataTooLong { length }));
        }
        if self.last_id >= MAX_STREAM_ID {
            self.drain(); // ids are used up
        }
        if self.is_draining() {
            return Poll::Ready(Err(OpenError::Draining));
        }
        let first = self
            .open_waiters
            .first_key_value()
            .map(|(ticket, _)| *ticket);
        if (first.is_none() || first == *ticket) && self.may_open() {
            if let Some(ticket) = ticket.take() {
                self.open_waiters.remove(&ticket);
            }
            let id = if self.last_id == 0 {
                1
            } else {
                self.last_id + 2
            };
            self.last_id = id;
            self.streams.insert(id, Slot::new());
            self.live += 1;
            wire::put(self.outbox.control(), Kind::Open, id, metadata);
            self.wake_driver = true;
            self.wake_next_opener();
            return Poll::Ready(Ok(id));
        }
        let place = match *ticket {
            Some(place) => place,
            None if self.open_waiters.len() >= self.config.max_pending_opens => {
                let waiting = self.open_waiters.len();
                return Poll::Ready(Err(OpenError::Busy { waiting }));
            }
            None => {
                self.next_ticket += 1;
                self.next_ticket
            }
        };
        *ticket = Some(place);
        self.open_waiters.insert(place, waker.clone());
        Poll::Pending
    }

    /// A caller that waited does not want a stream any more.
    pub(crate) fn leave_line(&mut self, ticket: u64) {
        if self.open_waiters.remove(&ticket).is_some() {
            self.wake_next_opener();
        }
    }

    /// Whether a stream could be opened at once.
    pub(crate) fn is_ready(&self) -> bool {
        self.closed.is_none()
            && !self.is_draining()
            && self.open_waiters.is_empty()
            && self.may_open()
    }

    /// Wakes the first in the line, if it could open now.
    pub(super) fn wake_next_opener(&mut self) {
        if self.may_open()
            && let Some((_, waker)) = self.open_waiters.first_key_value()
        {
            self.wakes.push(waker.clone());
        }
    }

    fn may_open(&self) -> bool {
        self.streams.len() < self.max_streams && self.outbox.space() > 0
    }

    /// The next stream to serve, `None` when no more will come.
    pub(crate) fn accept(&mut self, waker: &Waker) -> Poll<Option<(u32, Bytes)>> {
        while let Some((id, metadata)) = self.backlog.pop_front() {
            match self.streams.get(&id) {
                Some(slot) if slot.ended.is_none() => return Poll::Ready(Some((id, metadata))),
                _ => self.release(id, ResetCode::CANCELLED), // reset while it waited
            }
        }
        if self.closed.is_some() || self.is_draining() {
            // The driver may be waiting for the backlog to be empty.
            self.wake_driver = true;
            return Poll::Ready(None);
        }
        self.acceptor = Some(waker.clone());
        Poll::Pending
    }

    /// Nobody accepts any more: drain, and refuse what waits.
    pub(crate) fn acceptor_gone(&mut self) {
        self.acceptor_gone = true;
        while let Some((id, _)) = self.backlog.pop_front() {
            self.release(id, ResetCode::REFUSED);
        }
        self.drain();
    }

    /// OPEN came.
    pub(super) fn opened(&mut self, id: u32, metadata: &[u8]) -> Result<(), Violation> {
        if self.role == Role::Client || self.goaway_received.is_some() {
            return Err(Violation::MayNotOpen { id });
        }
        if id.is_multiple_of(2) || id <= self.last_id || id > MAX_STREAM_ID {
            let last = self.last_id;
            return Err(Violation::BadId { id, last });
        }
        self.last_id = id;
        if self.goaway_sent.is_some() {
            return Ok(()); // our GOAWAY tells that it was not processed
        }
        // A handle may outlive its stream for a moment, so there may be more of
        // them; not without end, or a client that opens and resets in a loop
        // would have no limit.
        if self.acceptor_gone
            || self.live >= self.config.max_streams
            || self.streams.len() >= 2 * self.config.max_streams
            || self.backlog.len() >= self.config.accept_backlog
        {
            wire::put_reset(self.outbox.control(), id, ResetCode::REFUSED.0);
            return Ok(());
        }
        self.streams.insert(id, Slot::new());
        self.live += 1;
        self.backlog
            .push_back((id, Bytes::copy_from_slice(metadata)));
        self.wakes.extend(self.acceptor.take());
        Ok(())
    }

    /// SETTINGS came.
    pub(super) fn settings(&mut self, max_streams: Option<u32>) {
        if let Some(max) = max_streams {
            self.max_streams = (max as usize).min(self.config.max_streams);
        }
        self.wake_next_opener();
    }

    /// GOAWAY came, without an error.
    pub(super) fn peer_drains(&mut self, last: u32) {
        if self.role == Role::Client {
            for (id, slot) in &mut self.streams {
                if *id > last && slot.ended.is_none() {
                    self.turns.leave(*id, &mut slot.turn);
                    self.live -= usize::from(slot.is_live());
                    slot.ended = Some(End::NotProcessed);
                    slot.wake_both(&mut self.wakes);
                }
            }
        }
        self.wakes
            .extend(std::mem::take(&mut self.open_waiters).into_values());
        self.wakes.extend(self.acceptor.take());
    }
}
