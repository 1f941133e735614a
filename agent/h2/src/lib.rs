//! HTTP/2 (RFC 9113) without I/O: bytes in, events out; calls in, bytes out.
//!
//! It is made for a proxy: what a head says is read once, and what both ends
//! have said before is a copy of references (HPACK); pieces of bodies stay
//! where they were read when they are large; everything that a turn of the loop
//! writes is in one [`Output`], and window updates and other answers are with
//! it. A [`Connection`] is either end. It knows no time, no task and no socket:
//!
//! - whoever uses it reads, gives what was read to [`Connection::receive`] until
//!   that has no more events, and writes what [`Connection::output`] has;
//! - each stream carries something of its user, whatever is needed to wake and
//!   to hand over;
//! - a peer that breaks a rule of the connection gets a GOAWAY, and
//!   [`Violation`] says which; one that breaks a stream's gets a reset.
//!
//! What makes work without use is bounded: sizes of heads and of what they are
//! made of, frames that bring nothing, streams that are given up, answers that
//! are not read.
#![forbid(unsafe_code)]

mod config;
mod connection;
mod error;
mod frame;
#[doc(hidden)]
pub mod fuzz;
mod head;
mod hpack;
mod huffman;
mod output;

pub use config::Config;
pub use connection::{Connection, Event, Key, Room};
pub use error::{Reason, ResetBy, Violation};
pub use hpack::HpackError;
pub use output::Output;
