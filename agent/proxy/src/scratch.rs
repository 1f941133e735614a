//! The buffers of a worker, shared by all its connections.
//!
//! A connection reads and writes only while it is polled, so that one read
//! buffer serves them all, and an idle connection holds none.

use std::cell::Cell;

use bytes::{Bytes, BytesMut};

use crate::memory;

/// Size of the read buffer. Bytes per system call decide what bulk costs.
const READ: usize = 512 * 1024;
/// How many emptied write buffers are kept, and up to which size.
const SPARE: usize = 8;
const SPARE_MAX: usize = 512 * 1024;
/// Reads from this size on show that there is bulk.
const LARGE: usize = 64 * 1024;
/// So much of it leaves memory that is worth giving back.
pub(crate) const MUCH: usize = 4 * 1024 * 1024;

/// Room for one read of what is handed on in pieces, and how many such buffers are kept until
/// the last piece of each has gone: new ones would be new pages each time, which cost more than
/// the bytes that are read into them.
const SHARED_READ: usize = 512 * 1024;
const SHARED: usize = 8;

thread_local! {
    static MOVED: Cell<usize> = const { Cell::new(0) };
    static SHARED_BUFFERS: Cell<Vec<BytesMut>> = const { Cell::new(Vec::new()) };
    static READ_BUFFER: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
    static WRITE_BUFFERS: Cell<Vec<Vec<u8>>> = const { Cell::new(Vec::new()) };
}

/// Runs `work` with the thread's read buffer. It is taken out meanwhile, so
/// that whoever asks within gets another one.
pub(crate) fn with_read_buffer<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buffer = READ_BUFFER
        .take()
        .unwrap_or_else(|| vec![0; READ].into_boxed_slice());
    let result = work(&mut buffer);
    READ_BUFFER.set(Some(buffer));
    result
}

/// Runs `work` with room for a read, and gives back what it put there. Pieces of
/// that may be kept; the room comes back when the last of them has gone.
pub(crate) fn shared_read<T>(work: impl FnOnce(&mut BytesMut) -> T) -> (Bytes, T) {
    let mut kept = SHARED_BUFFERS.take();
    // The last one that was used first: it is in the processor's cache. Else what is left of it.
    let free = (kept.iter_mut().enumerate().rev())
        .find_map(|(place, buffer)| buffer.try_reclaim(SHARED_READ).then_some(place));
    let rest = || kept.iter().rposition(is_enough);
    let free = free.or_else(rest);
    let mut buffer = match free {
        Some(place) => kept.remove(place),
        None => BytesMut::with_capacity(SHARED_READ),
    };
    SHARED_BUFFERS.set(kept);
    let result = work(&mut buffer);
    let read = buffer.split().freeze();
    was_read(read.len());
    let mut kept = SHARED_BUFFERS.take();
    if kept.len() >= SHARED {
        kept.remove(0); // the longest in use goes with its pieces
    }
    kept.push(buffer);
    SHARED_BUFFERS.set(kept);
    (read, result)
}

/// Whether what is left of a buffer is worth a read.
fn is_enough(buffer: &BytesMut) -> bool {
    buffer.capacity() - buffer.len() >= SHARED_READ / 2
}

/// Counts what was read at once, if it is much.
pub(crate) fn was_read(bytes: usize) {
    if bytes < LARGE {
        return;
    }
    let before = MOVED.get();
    let now = before.saturating_add(bytes);
    MOVED.set(now);
    if before / MUCH != now / MUCH {
        // Again and again, since another worker may have ended that.
        memory::keep_for_bulk();
    }
}

/// An empty write buffer.
pub(crate) fn write_buffer() -> Vec<u8> {
    let mut spare = WRITE_BUFFERS.take();
    let buffer = spare.pop().unwrap_or_default();
    WRITE_BUFFERS.set(spare);
    buffer
}

/// Gives a write buffer back.
pub(crate) fn recycle(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > SPARE_MAX {
        return;
    }
    buffer.clear();
    let mut spare = WRITE_BUFFERS.take();
    if spare.len() < SPARE {
        spare.push(buffer);
    }
    WRITE_BUFFERS.set(spare);
}

/// Lets go of the buffers that nobody uses now. Whoever carries much has them again at once, and
/// whoever did holds nothing of it. Gives back how many bytes came in large reads since the last
/// time: they have used more memory than these buffers.
pub(crate) fn let_go() -> usize {
    WRITE_BUFFERS.take();
    READ_BUFFER.take();
    SHARED_BUFFERS.take();
    MOVED.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Bytes {
        shared_read(|buffer| buffer.extend_from_slice(bytes)).0
    }

    #[test]
    fn a_buffer_is_used_again_when_its_last_piece_has_gone() {
        let first = read(&[1; SHARED_READ]);
        let place = first.as_ptr();
        let mut pieces: Vec<_> = (0..10).map(|part| first.slice(part..part + 1)).collect();
        drop(first);
        let second = read(b"second");
        assert_ne!(second.as_ptr(), place);
        pieces.truncate(1);
        assert_ne!(read(b"third").as_ptr(), place);
        assert_eq!(pieces, [Bytes::from_static(&[1])]);
        pieces.clear();
        let again: Vec<_> = (0..3).map(|_| read(b"x")).collect();
        assert!(again.iter().any(|piece| piece.as_ptr() == place));
        assert_eq!(second, "second");
    }

    #[test]
    fn what_is_left_of_a_buffer_is_used() {
        let first = read(&[1; SHARED_READ / 4]);
        let second = read(&[2; SHARED_READ / 4]);
        assert_eq!(second.as_ptr_range().start, first.as_ptr_range().end);
        let third = read(&[3; SHARED_READ / 4]);
        let other = read(&[4; SHARED_READ / 4]);
        assert_ne!(other.as_ptr_range().start, third.as_ptr_range().end);
        assert_eq!(first, [1; SHARED_READ / 4].as_slice());
    }

    #[test]
    fn what_is_kept_is_bounded_and_let_go_of() {
        let held: Vec<_> = (0..100).map(|_| read(&[7; SHARED_READ])).collect();
        let kept = SHARED_BUFFERS.take();
        assert_eq!(kept.len(), SHARED);
        SHARED_BUFFERS.set(kept);
        assert_eq!(let_go(), 100 * SHARED_READ);
        assert!(SHARED_BUFFERS.take().is_empty());
        assert!(held.iter().all(|piece| piece.len() == SHARED_READ));
        drop(read(b"small"));
        assert_eq!(let_go(), 0, "it is no bulk");
    }
}
