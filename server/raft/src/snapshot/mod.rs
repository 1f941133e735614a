//! Snapshots: the state as of one entry, in a file.
//!
//! A file becomes a snapshot only by its name: it is written under another one,
//! made durable, renamed, and the folder made durable; only then do older ones go.
//! So at every moment a good one is there, whatever the power does.

mod file;
mod store;

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};

pub use file::inspect;
pub(crate) use file::{Header, verify};
pub(crate) use store::{Incoming, SnapshotStore};

/// What a snapshot file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The file.
    pub file: PathBuf,
    /// The last entry that it holds.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// Version of the body, as [`crate::Machine::format`] gave it.
    pub machine_format: u32,
    /// Bytes of the whole file.
    pub bytes: u64,
    /// Bytes of the body in it.
    pub body_bytes: u64,
}

/// A snapshot file in openraft's hands. We send and take files ourselves, so that
/// what it could read and write of it is used by its tests only.
#[derive(Debug)]
pub(crate) struct SnapshotHandle {
    path: PathBuf,
    file: tokio::fs::File,
    /// Of a file that is not a snapshot yet: if it never becomes one, it goes.
    incoming: Option<Incoming>,
}

impl SnapshotHandle {
    pub(crate) fn new(path: &Path, file: std::fs::File) -> Self {
        Self {
            path: path.to_owned(),
            file: tokio::fs::File::from_std(file),
            incoming: None,
        }
    }

    pub(crate) fn received(incoming: Incoming, file: tokio::fs::File) -> Self {
        Self {
            path: incoming.path().to_owned(),
            file,
            incoming: Some(incoming),
        }
    }

    pub(crate) fn take_incoming(&mut self) -> Option<Incoming> {
        self.incoming.take()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&mut self) -> &mut tokio::fs::File {
        &mut self.file
    }
}

impl AsyncRead for SnapshotHandle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_read(cx, buf)
    }
}

impl AsyncWrite for SnapshotHandle {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.file).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_shutdown(cx)
    }
}

impl AsyncSeek for SnapshotHandle {
    fn start_seek(mut self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        Pin::new(&mut self.file).start_seek(position)
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.file).poll_complete(cx)
    }
}

#[cfg(test)]
mod power;
#[cfg(test)]
mod tests;
