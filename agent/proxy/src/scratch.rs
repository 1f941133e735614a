//! The buffers of a worker, shared by all its connections.
//!
//! A connection reads and writes only while it is polled, so that one read
//! buffer serves them all, and an idle connection holds none.

use std::cell::Cell;

use bytes::{Bytes, BytesMut};

/// Size of the read buffer. Bytes per system call decide what bulk costs.
const READ: usize = 256 * 1024;
/// How many emptied write buffers are kept, and up to which size.
const SPARE: usize = 8;
const SPARE_MAX: usize = 256 * 1024;

/// Room for one read of what is handed on in pieces.
const SHARED_READ: usize = 128 * 1024;

thread_local! {
    static SHARED_BUFFER: Cell<BytesMut> = Cell::new(BytesMut::new());
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
    let mut buffer = SHARED_BUFFER.take();
    buffer.reserve(SHARED_READ);
    let result = work(&mut buffer);
    let read = buffer.split().freeze();
    SHARED_BUFFER.set(buffer);
    (read, result)
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

/// Lets go of the write buffers that nobody uses now; gives back how many bytes they had. Whoever
/// carries much has them again at once, and whoever did holds nothing of it.
pub(crate) fn let_go() -> usize {
    WRITE_BUFFERS.take().iter().map(Vec::capacity).sum()
}
