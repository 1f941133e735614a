//! What this crate promises, shown by whole handshakes.

#![allow(clippy::unwrap_used)]

mod cluster;
mod malformed;
mod mesh;
mod svid;
