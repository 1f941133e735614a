//! The buffers of a thread, shared by all its connections.
//!
//! A connection writes, and hands out what it reads, only while it is polled, so
//! that a few buffers serve a whole runtime, and an idle connection holds none.

use std::cell::Cell;

use bytes::BytesMut;

/// How many emptied write buffers a thread keeps, and up to which size.
const SPARE: usize = 4;
const SPARE_MAX: usize = 1024 * 1024;

/// What a stream that is read as fast as it comes gathers between two turns, and how many such
/// buffers a thread keeps: new ones would be new pages each time.
pub(crate) const CHUNK: usize = 512 * 1024;
const CHUNKS: usize = 4;

thread_local! {
    static CHUNK_BUFFERS: Cell<Vec<BytesMut>> = const { Cell::new(Vec::new()) };
    static WRITE_BUFFERS: Cell<Vec<Vec<u8>>> = const { Cell::new(Vec::new()) };
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

/// An empty buffer for [`CHUNK`] bytes.
pub(crate) fn chunk() -> BytesMut {
    let mut spare = CHUNK_BUFFERS.take();
    let chunk = spare.pop();
    CHUNK_BUFFERS.set(spare);
    chunk.unwrap_or_else(|| BytesMut::with_capacity(CHUNK))
}

/// Gives back what was made by [`chunk`], if it was.
pub(crate) fn recycle_chunk(mut chunk: BytesMut) {
    chunk.clear();
    let mut spare = CHUNK_BUFFERS.take();
    if spare.len() < CHUNKS && chunk.try_reclaim(CHUNK) && chunk.capacity() < 2 * CHUNK {
        spare.push(chunk);
    }
    CHUNK_BUFFERS.set(spare);
}

/// Lets go of the buffers that nobody uses now. Whoever carries much has them again at once, and
/// whoever did holds nothing of it.
pub fn let_go() {
    WRITE_BUFFERS.take();
    CHUNK_BUFFERS.take();
}
