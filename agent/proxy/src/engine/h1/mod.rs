//! HTTP/1.1, read and written here.
//!
//! Calls of the application and to it are most of what a sidecar does, and a
//! general library pays for what these do not need: a task for each connection
//! with channels to it, and buffers that idle connections hold. Here a request
//! is read, answered and written in the task that has it; bytes are read into
//! the worker's buffer, and a head and the first bytes of its body are one write.
//!
//! It is stricter than it must be: what two parsers could read in two ways is
//! refused (a bare LF, a folded line, two lengths, two hosts, a coding that is
//! not `chunked`), since an application behind it may read it in the other way.

pub(crate) mod client;
mod framing;
mod head;
mod link;
mod names;
pub(crate) mod server;
#[cfg(test)]
mod tests;

pub(crate) use framing::fuzz as fuzz_body;
pub(crate) use head::fuzz as fuzz_head;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// Against the rules; says which.
    #[error("{0}")]
    Rule(&'static str),
    /// More headers, or longer ones, than are taken.
    #[error("too many headers, or too long ones")]
    TooLarge,
}
