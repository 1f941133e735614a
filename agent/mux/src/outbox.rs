//! The plaintext that waits for the connection's next write, and the turns of
//! those who wait for room in it.
//!
//! Streams append frames here and nobody writes but the driver, once a turn:
//! that is what makes many small messages one record and one system call. The
//! buffer is bounded. Who finds it full queues up; each time that the driver
//! got the buffer out it starts a round: it divides the room among the first in
//! the queue and keeps it for them, so that neither a stream with endless data
//! nor a crowd of newcomers can starve one that waits.

use std::collections::VecDeque;

use crate::scratch;
use crate::wire::{self, HEADER, Kind, MAX_PAYLOAD};

/// Frames to be sent.
#[derive(Debug)]
pub(crate) struct Outbox {
    buf: Vec<u8>,
    /// The last frame, if it is DATA: its stream, and where it begins.
    tail: Option<(u32, usize)>,
    /// Bytes that the driver took and has not yet got rid of.
    in_flight: usize,
    limit: usize,
}

impl Outbox {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            buf: Vec::new(),
            tail: None,
            in_flight: 0,
            limit,
        }
    }

    /// How much data may still be appended.
    pub(crate) fn space(&self) -> usize {
        self.limit.saturating_sub(self.unsent())
    }

    /// All bytes that are not sent yet.
    pub(crate) fn unsent(&self) -> usize {
        self.buf.len() + self.in_flight
    }

    /// Whether the driver has nothing to take.
    pub(crate) fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// Whether so much waits that gathering more would bring nothing.
    pub(crate) fn is_heavy(&self) -> bool {
        self.buf.len() >= self.limit / 2
    }

    /// The buffer, to append a frame that is not DATA.
    pub(crate) fn control(&mut self) -> &mut Vec<u8> {
        self.tail = None;
        self.buffer()
    }

    /// Appends data of a stream. Small pieces that follow each other share a
    /// frame, so that a byte at a time does not cost ten.
    pub(crate) fn data(&mut self, id: u32, mut bytes: &[u8]) {
        self.buffer();
        if let Some((last, at)) = self.tail
            && last == id
            && !bytes.is_empty()
        {
            let length = self.buf.len() - at - HEADER;
            let (more, rest) = bytes.split_at(bytes.len().min(MAX_PAYLOAD - length));
            self.buf.extend_from_slice(more);
            let header = wire::header(Kind::Data, id, length + more.len());
            self.buf[at..at + HEADER].copy_from_slice(&header);
            bytes = rest;
        }
        for piece in bytes.chunks(MAX_PAYLOAD) {
            self.tail = Some((id, self.buf.len()));
            wire::put(&mut self.buf, Kind::Data, id, piece);
        }
    }

    /// Takes everything that is ready, to be written at once.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        debug_assert_eq!(self.in_flight, 0);
        self.tail = None;
        self.in_flight = self.buf.len();
        std::mem::take(&mut self.buf)
    }

    /// Counts bytes of what was taken as written.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.in_flight -= bytes;
    }

    /// Forgets what nobody took: the connection ends.
    pub(crate) fn discard(&mut self) {
        self.tail = None;
        scratch::recycle(std::mem::take(&mut self.buf));
    }

    fn buffer(&mut self) -> &mut Vec<u8> {
        if self.buf.capacity() == 0 {
            self.buf = scratch::write_buffer();
        }
        &mut self.buf
    }
}

/// Who waits for room, in order.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    queue: VecDeque<u32>,
    round: u64,
    /// Bytes kept for streams that were called in this round and have not come.
    reserved: usize,
}

/// A stream's part in the turns.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    queued: bool,
    /// The round in which it was called and the bytes kept for it, until used.
    called: Option<(u64, usize)>,
}

impl Turns {
    /// How many of `space` bytes this stream may append now.
    pub(crate) fn allowance(&self, turn: &Turn, space: usize) -> usize {
        match turn.called {
            Some((round, share)) if round == self.round => {
                let others = self.reserved - share;
                if self.queue.is_empty() {
                    space.saturating_sub(others)
                } else {
                    share.min(space)
                }
            }
            _ if self.queue.is_empty() => space.saturating_sub(self.reserved),
            _ => 0,
        }
    }

    /// The stream has appended what it could.
    pub(crate) fn served(&mut self, turn: &mut Turn) {
        if let Some((round, share)) = turn.called.take()
            && round == self.round
        {
            self.reserved -= share;
        }
    }

    /// The stream waits. One that was called and came too late goes first.
    pub(crate) fn wait(&mut self, id: u32, turn: &mut Turn) {
        if !turn.queued {
            turn.queued = true;
            match turn.called {
                Some(_) => self.queue.push_front(id),
                None => self.queue.push_back(id),
            }
        }
    }

    /// The stream goes away.
    pub(crate) fn leave(&mut self, id: u32, turn: &mut Turn) {
        self.served(turn);
        if std::mem::take(&mut turn.queued) {
            self.queue.retain(|queued| *queued != id);
        }
    }

    /// Begins a round with `space` bytes. What was kept in the last one and not
    /// used lapses, so that nobody waits for a task that does not come.
    pub(crate) fn begin_round(&mut self, space: usize) -> Round {
        self.round += 1;
        self.reserved = 0;
        let waiting = self.queue.len().max(1);
        Round {
            share: (space / waiting).max(MAX_PAYLOAD).min(space),
            space,
        }
    }

    /// The next stream that the round has room for.
    pub(crate) fn next(&mut self, round: &Round) -> Option<u32> {
        if round.share == 0 || self.reserved + round.share > round.space {
            return None;
        }
        self.queue.pop_front()
    }

    /// Keeps a share for a stream that [`Turns::next`] named.
    pub(crate) fn call(&mut self, round: &Round, turn: &mut Turn) {
        turn.queued = false;
        turn.called = Some((self.round, round.share));
        self.reserved += round.share;
    }

    /// Whether somebody waits.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Everybody may go: the connection ends.
    pub(crate) fn dissolve(&mut self) {
        *self = Self {
            round: self.round + 1,
            ..Self::default()
        };
    }
}

impl Turn {
    /// Whether the stream waits for its turn (and not for its own credit).
    pub(crate) fn is_queued(&self) -> bool {
        self.queued
    }
}

/// How the room of one round is divided.
#[derive(Debug)]
pub(crate) struct Round {
    share: usize,
    space: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_share_a_frame() {
        let mut outbox = Outbox::new(1 << 20);
        for _ in 0..100 {
            outbox.data(1, b"x");
        }
        assert_eq!(outbox.unsent(), HEADER + 100);
        outbox.data(3, b"y");
        outbox.data(1, b"z");
        assert_eq!(outbox.unsent(), HEADER + 100 + 2 * (HEADER + 1));
        outbox.data(1, &[0; MAX_PAYLOAD]);
        assert_eq!(outbox.unsent(), 4 * HEADER + 102 + MAX_PAYLOAD);
    }

    #[test]
    fn those_who_wait_are_called_in_order_and_before_newcomers() {
        let mut turns = Turns::default();
        let mut waiting: Vec<Turn> = (0..6).map(|_| Turn::default()).collect();
        for (id, turn) in waiting.iter_mut().enumerate() {
            turns.wait(id as u32, turn);
        }
        let newcomer = Turn::default();
        assert_eq!(turns.allowance(&newcomer, 40_000), 0);

        let round = turns.begin_round(40_000);
        let mut called = Vec::new();
        while let Some(id) = turns.next(&round) {
            turns.call(&round, &mut waiting[id as usize]);
            called.push(id);
        }
        assert_eq!(called, [0, 1], "two shares of one frame fit");
        assert_eq!(turns.allowance(&waiting[0], 40_000), MAX_PAYLOAD);
        assert_eq!(turns.allowance(&newcomer, 40_000), 0);

        // 0 is served and waits again; 1 does not come: its share lapses, but
        // when it comes it goes first.
        turns.served(&mut waiting[0]);
        turns.wait(0, &mut waiting[0]);
        let round = turns.begin_round(20_000);
        assert_eq!(turns.next(&round), Some(2));
        turns.call(&round, &mut waiting[2]);
        assert_eq!(turns.allowance(&waiting[1], 20_000), 0);
        turns.wait(1, &mut waiting[1]);
        let round = turns.begin_round(20_000);
        assert_eq!(turns.next(&round), Some(1));
    }

    #[test]
    fn a_share_is_never_larger_than_the_room() {
        let mut turns = Turns::default();
        let mut turn = Turn::default();
        turns.wait(1, &mut turn);
        let round = turns.begin_round(0);
        assert_eq!(turns.next(&round), None);
        let round = turns.begin_round(10);
        assert_eq!(turns.next(&round), Some(1));
        turns.call(&round, &mut turn);
        assert_eq!(turns.allowance(&turn, 10), 10);
        turns.leave(1, &mut turn);
        assert_eq!(turns.reserved, 0);
    }
}
