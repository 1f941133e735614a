//! Writers put data in, the driver takes everything out at once.

use std::io::IoSlice;
use std::task::{Poll, Waker, ready};

use super::{End, State};
use crate::error::StreamError;
use crate::wire::{self, Kind};

impl State {
    /// Appends as much as credit and the stream's turn allow.
    pub(crate) fn write(
        &mut self,
        id: u32,
        pieces: &[IoSlice<'_>],
        waker: &Waker,
    ) -> Poll<Result<usize, StreamError>> {
        let wanted: usize = pieces.iter().map(|piece| piece.len()).sum();
        if wanted == 0 {
            return Poll::Ready(self.may_write(id).map(|()| 0));
        }
        let allowed = ready!(self.room(id, waker))?;
        let Some(slot) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(self.stream_error(End::Connection)));
        };
        let mut left = allowed;
        for piece in pieces {
            let now = &piece[..piece.len().min(left)];
            self.outbox.data(id, now);
            left -= now.len();
        }
        let written = allowed - left;
        self.turns.served(&mut slot.turn);
        slot.credit -= written;
        self.credit -= written;
        self.wake_driver = true;
        Poll::Ready(Ok(written))
    }

    /// How many bytes credit and the stream's turn allow; the stream waits while
    /// it is none.
    pub(crate) fn room(&mut self, id: u32, waker: &Waker) -> Poll<Result<usize, StreamError>> {
        self.may_write(id)?;
        let Some(slot) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(self.stream_error(End::Connection)));
        };
        let space = self.outbox.space().min(self.credit);
        let allowed = if slot.credit == 0 {
            0
        } else {
            self.turns.allowance(&slot.turn, space).min(slot.credit)
        };
        if allowed > 0 {
            return Poll::Ready(Ok(allowed));
        }
        match &mut slot.writer {
            Some(writer) => writer.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        if slot.credit > 0 {
            self.turns.wait(id, &mut slot.turn);
            self.wake_driver = true;
        }
        Poll::Pending
    }

    /// Whether our half of a stream is open.
    fn may_write(&self, id: u32) -> Result<(), StreamError> {
        match self.streams.get(&id) {
            None => Err(self.stream_error(End::Connection)),
            Some(slot) if slot.fin_sent => Err(StreamError::AfterShutdown),
            Some(slot) => slot.ended.map_or(Ok(()), |end| Err(self.stream_error(end))),
        }
    }

    /// Ends our half of a stream.
    pub(crate) fn finish(&mut self, id: u32) -> Result<(), StreamError> {
        let Some(slot) = self.streams.get_mut(&id) else {
            return Err(self.stream_error(End::Connection));
        };
        if slot.fin_sent {
            return Ok(());
        }
        if let Some(end) = slot.ended {
            return Err(self.stream_error(end));
        }
        slot.fin_sent = true;
        self.live -= usize::from(!slot.is_live());
        self.turns.leave(id, &mut slot.turn);
        wire::put(self.outbox.control(), Kind::Fin, id, &[]);
        self.wake_driver = true;
        Ok(())
    }

    /// Asks the other side for a sign of life.
    pub(crate) fn ping(&mut self) {
        if self.closed.is_none() {
            wire::put(self.outbox.control(), Kind::Ping, 0, b"mesh/1 ?");
        }
    }

    /// Whether there is something to write.
    pub(crate) fn has_output(&self) -> bool {
        !self.outbox.is_empty()
            || self.pong.is_some()
            || self.update_connection
            || !self.updates.is_empty()
    }

    /// Whether gathering more for the next write would bring nothing.
    pub(crate) fn is_heavy(&self) -> bool {
        self.outbox.is_heavy()
    }

    /// Takes everything that is ready. What was taken before must be written.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        if self.closed.is_none() {
            if let Some(token) = self.pong.take() {
                wire::put(self.outbox.control(), Kind::Pong, 0, &token);
            }
            self.send_updates();
        }
        self.has_greeted = true;
        self.outbox.take()
    }

    /// Part of what was taken has been written.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.outbox.sent(bytes);
    }

    /// Calls those who wait for room, as many as it is enough for. To be called
    /// when room or credit of the connection has come.
    pub(crate) fn call_waiting(&mut self) {
        self.wake_next_opener();
        if !self.turns.is_waiting() {
            return;
        }
        let round = self.turns.begin_round(self.outbox.space().min(self.credit));
        while let Some(id) = self.turns.next(&round) {
            if let Some(slot) = self.streams.get_mut(&id) {
                self.turns.call(&round, &mut slot.turn);
                self.wakes.extend(slot.writer.take());
            }
        }
    }

    /// Whether writers wait although there is room: those who were called did
    /// not come, and another round is due.
    pub(crate) fn is_round_due(&self) -> bool {
        self.turns.is_waiting() && self.outbox.unsent() == 0 && self.credit > 0
    }
}
