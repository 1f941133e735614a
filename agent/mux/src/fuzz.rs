//! The fuzz target: arbitrary bytes from the other side, while an application
//! opens, accepts, reads, writes and drops streams.

use std::task::{Poll, Waker};

use crate::config::Config;
use crate::decode::Decoder;
use crate::error::{CloseReason, ResetCode};
use crate::state::{Role, State};

/// Takes `data` as what a peer sends: the first byte chooses the role and how
/// the bytes are cut into reads. Whatever comes, nothing panics, and what is
/// held stays within the limits.
///
/// # Panics
/// If a limit is broken: that is the bug it looks for.
pub fn fuzz_frames(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else {
        return;
    };
    let role = match choice & 1 {
        0 => Role::Server,
        _ => Role::Client,
    };
    let config = Config {
        max_streams: 8,
        max_pending_opens: 2,
        accept_backlog: 4,
        stream_window: 64 * 1024,
        connection_window: 1024 * 1024,
        write_buffer: 8 * 1024,
        ..Config::default()
    };
    let mut state = State::new(role, config);
    let mut app = Application {
        is_server: role == Role::Server,
        streams: Vec::new(),
    };
    let mut decoder = Decoder::default();
    for read in bytes.chunks(usize::from(choice >> 1) + 1) {
        let fed = decoder.feed(read, |frame| state.frame(frame));
        state.assert_sound();
        if let Err(violation) = fed {
            state.close(CloseReason::Violation(violation));
        }
        app.act(&mut state, read[0]);
        state.assert_sound();
        if state.closed().is_some() {
            break;
        }
    }
    state.close(CloseReason::Lost);
    for id in app.streams {
        state.release(id, ResetCode::CANCELLED);
    }
    state.assert_sound();
}

struct Application {
    is_server: bool,
    streams: Vec<u32>,
}

impl Application {
    /// Does a little of everything, as `choice` says.
    fn act(&mut self, state: &mut State, choice: u8) {
        let waker = Waker::noop();
        if self.is_server {
            if let Poll::Ready(Some((id, _))) = state.accept(waker) {
                self.streams.push(id);
            }
        } else if choice & 1 == 0 {
            let mut ticket = None;
            if let Poll::Ready(Ok(id)) = state.open(b"fuzz", &mut ticket, waker) {
                self.streams.push(id);
            }
            if let Some(ticket) = ticket {
                state.leave_line(ticket);
            }
        }
        for &id in &self.streams {
            if choice & 2 == 0
                && let Poll::Ready(Ok(chunk)) = state.receive(id, waker)
                && !chunk.is_empty()
            {
                state.consumed(id, chunk.len());
            }
            if choice & 4 == 0 {
                let data = [choice; 3000];
                let _ = state.write(id, &[std::io::IoSlice::new(&data)], waker);
            }
        }
        if choice & 24 == 0 && !self.streams.is_empty() {
            let id = self
                .streams
                .swap_remove(usize::from(choice) % self.streams.len());
            if choice & 32 == 0 {
                let _ = state.finish(id);
            }
            state.release(id, ResetCode::FAILED);
        }
        if choice & 64 == 0 {
            let output = state.take_output();
            state.sent(output.len());
            state.call_waiting();
        }
        if choice == 255 {
            state.drain();
        }
        let _ = state.take_few_wakes();
    }
}
