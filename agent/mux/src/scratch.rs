//! The buffers of a thread, shared by all its connections.
//!
//! A connection reads and writes only while it is polled, so that one read
//! buffer serves a whole runtime, and an idle connection holds none.

use std::cell::Cell;

/// Size of the read buffer. Bytes per system call decide what bulk costs.
const READ: usize = 256 * 1024;

/// How many emptied write buffers a thread keeps, and up to which size.
const SPARE: usize = 4;
const SPARE_MAX: usize = 512 * 1024;

thread_local! {
    static READ_BUFFER: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
    static WRITE_BUFFERS: Cell<Vec<Vec<u8>>> = const { Cell::new(Vec::new()) };
}

/// Runs `work` with the thread's read buffer. It is taken out meanwhile: a
/// transport that polls another connection inside its own read gets its own.
pub(crate) fn with_read_buffer<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buffer = READ_BUFFER
        .take()
        .unwrap_or_else(|| vec![0; READ].into_boxed_slice());
    let result = work(&mut buffer);
    READ_BUFFER.set(Some(buffer));
    result
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
pub fn let_go() -> usize {
    WRITE_BUFFERS.take().iter().map(Vec::capacity).sum()
}
