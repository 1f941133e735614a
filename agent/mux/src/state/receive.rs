//! Frames come in, readers take data out, credit goes back.
//!
//! What a side allows is `window`: data on its way (`granted`) plus data not
//! read (`unread`). A window grows, doubling, each time that the reader has
//! emptied its stream by when credit is due: then the network was the limit.

use std::collections::{HashMap, VecDeque};
use std::task::{Poll, Waker};

use bytes::BytesMut;

use super::{End, Slot, State};
use crate::error::{CloseReason, ErrorCode, ResetCode, StreamError, Violation};
use crate::wire::{self, Frame, MAX_CREDIT};

/// By how much answers may go over the write buffer's limit before we think
/// that the other side makes us write what it does not read.
const MAX_ANSWERS: usize = 1024 * 1024;

impl State {
    /// Takes one frame of the other side.
    pub(crate) fn frame(&mut self, frame: Frame<'_>) -> Result<(), Violation> {
        if self.closed.is_some() {
            return Ok(()); // what follows an end is not looked at
        }
        match frame {
            Frame::Settings { max_streams } => {
                if std::mem::replace(&mut self.greeted, true) {
                    return Err(Violation::SecondSettings);
                }
                self.settings(max_streams);
                return Ok(());
            }
            _ if !self.greeted => return Err(Violation::SettingsNotFirst),
            Frame::Data { id, bytes } => self.data(id, bytes)?,
            Frame::Window { id: 0, credit } => {
                self.credit = add_credit(0, self.credit, credit)?;
                self.call_waiting();
            }
            Frame::Window { id, credit } => {
                if let Some(slot) = known(&mut self.streams, self.last_id, id)? {
                    slot.credit = add_credit(id, slot.credit, credit)?;
                    if !slot.turn.is_queued() {
                        self.wakes.extend(slot.writer.take());
                    }
                }
            }
            Frame::Open { id, metadata } => self.opened(id, metadata)?,
            Frame::Fin { id } => {
                if let Some(slot) = known(&mut self.streams, self.last_id, id)? {
                    if slot.fin_received {
                        return Err(Violation::AfterFin { id });
                    }
                    if slot.ended.is_none() {
                        slot.fin_received = true;
                        self.live -= usize::from(!slot.is_live());
                        self.wakes.extend(slot.reader.take());
                    }
                }
            }
            Frame::Reset { id, code } => self.reset(id, ResetCode(code))?,
            Frame::Ping(token) => self.pong = Some(token), // the latest one counts
            Frame::Pong(_) | Frame::Ignored => {}
            Frame::GoAway { last, code, reason } => {
                if let Some(before) = self.goaway_received
                    && last > before
                {
                    return Err(Violation::GoAwayGrew { last, before });
                }
                self.goaway_received = Some(last);
                self.peer_drains(last);
                if code != ErrorCode::NONE.0 {
                    self.close(CloseReason::PeerError {
                        code: ErrorCode(code),
                        reason: reason.into(),
                    });
                }
            }
        }
        match self
            .outbox
            .unsent()
            .saturating_sub(self.config.write_buffer)
        {
            over if over > MAX_ANSWERS => Err(Violation::Excess(over)),
            _ => Ok(()),
        }
    }

    fn data(&mut self, id: u32, bytes: &[u8]) -> Result<(), Violation> {
        let length = bytes.len();
        if length > self.granted {
            let credit = self.granted;
            return Err(Violation::NoCredit {
                id: 0,
                length,
                credit,
            });
        }
        self.granted -= length;
        match known(&mut self.streams, self.last_id, id)? {
            Some(slot) if slot.fin_received => return Err(Violation::AfterFin { id }),
            Some(slot) if slot.ended.is_none() => {
                if length > slot.granted {
                    let credit = slot.granted;
                    return Err(Violation::NoCredit { id, length, credit });
                }
                slot.granted -= length;
                slot.unread += length;
                slot.push(bytes);
                self.wakes.extend(slot.reader.take());
                self.unread += length;
            }
            // It was on its way when the stream ended: nobody will read it.
            _ => {}
        }
        // Here as well: what comes for a stream that nobody reads is never consumed.
        self.check_connection_window();
        Ok(())
    }

    fn reset(&mut self, id: u32, code: ResetCode) -> Result<(), Violation> {
        let Some(slot) = known(&mut self.streams, self.last_id, id)? else {
            return Ok(());
        };
        if slot.ended.is_some() {
            return Ok(());
        }
        self.live -= usize::from(slot.is_live());
        slot.ended = Some(End::Reset(code));
        slot.wake_both(&mut self.wakes);
        // After FIN, a reset only says that our data is not wanted any more.
        let lost = if slot.fin_received { 0 } else { slot.untaken() };
        if lost > 0 {
            slot.received = BytesMut::new();
            slot.more = VecDeque::new();
            slot.unread -= lost;
            self.unread -= lost;
        }
        self.turns.leave(id, &mut slot.turn);
        self.check_connection_window();
        Ok(())
    }

    /// What arrived for a stream and was not taken; empty at its end. The taker
    /// says with [`State::consumed`] how much of it was read.
    pub(crate) fn receive(
        &mut self,
        id: u32,
        waker: &Waker,
    ) -> Poll<Result<BytesMut, StreamError>> {
        let Some(slot) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(self.stream_error(End::Connection)));
        };
        if !slot.received.is_empty() {
            let next = slot.more.pop_front().unwrap_or_default();
            return Poll::Ready(Ok(std::mem::replace(&mut slot.received, next)));
        }
        if slot.fin_received {
            return Poll::Ready(Ok(BytesMut::new()));
        }
        if let Some(end) = slot.ended {
            return Poll::Ready(Err(self.stream_error(end)));
        }
        match &mut slot.reader {
            Some(reader) => reader.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        Poll::Pending
    }

    /// The application has read this much of what was received.
    pub(crate) fn consumed(&mut self, id: u32, bytes: usize) {
        let Some(slot) = self.streams.get_mut(&id) else {
            return;
        };
        slot.unread -= bytes;
        self.unread -= bytes;
        if self.closed.is_some() {
            return;
        }
        let due = slot.window - slot.granted - slot.unread >= slot.window / 2;
        if due && !slot.update_due && !slot.fin_received && slot.ended.is_none() {
            slot.update_due = true;
            self.updates.push(id);
            self.wake_driver = true;
        }
        self.check_connection_window();
    }

    pub(super) fn check_connection_window(&mut self) {
        // Half of what is not held by streams that nobody reads: with half of the whole, those
        // that hold half of it would leave the others what was granted before, and no more.
        let free = self.config.connection_window.saturating_sub(self.unread);
        if !self.update_connection && self.granted <= free / 2 {
            self.update_connection = true;
            self.wake_driver = true;
        }
    }

    /// Appends the WINDOW frames that are due.
    pub(super) fn send_updates(&mut self) {
        for id in std::mem::take(&mut self.updates) {
            let Some(slot) = self.streams.get_mut(&id) else {
                continue;
            };
            slot.update_due = false;
            if slot.fin_received || slot.ended.is_some() {
                continue;
            }
            if slot.unread == 0 {
                let growth = slot
                    .window
                    .min(self.config.stream_window - slot.window)
                    .min(self.config.connection_window / 2 - self.grown);
                slot.window += growth;
                self.grown += growth;
            }
            let credit = slot.window - slot.granted - slot.unread;
            if credit > 0 {
                slot.granted += credit;
                wire::put_window(self.outbox.control(), id, credit);
            }
        }
        if std::mem::take(&mut self.update_connection) {
            let credit = (self.config.connection_window).saturating_sub(self.granted + self.unread);
            if credit > 0 {
                self.granted += credit;
                wire::put_window(self.outbox.control(), 0, credit);
            }
        }
    }
}

/// The stream of a frame; `None` if it has ended here.
fn known(
    streams: &mut HashMap<u32, Slot>,
    last_id: u32,
    id: u32,
) -> Result<Option<&mut Slot>, Violation> {
    if id > last_id || id.is_multiple_of(2) {
        return Err(Violation::NotOpened { id });
    }
    Ok(streams.get_mut(&id))
}

fn add_credit(id: u32, have: usize, more: u32) -> Result<usize, Violation> {
    match have + more as usize {
        sum if sum > MAX_CREDIT => Err(Violation::TooMuchCredit { id }),
        sum => Ok(sum),
    }
}
