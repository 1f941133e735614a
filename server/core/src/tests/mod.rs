//! Servers in this process, over real sockets.
#![allow(clippy::unwrap_used)]

pub(crate) mod agent;
mod api;
mod blocking;
mod cluster;
mod config;
mod feed;
mod fuzz;
mod gateways;
mod golden;
pub(crate) mod harness;
mod import;
mod leases;
mod levels;
mod limits;
mod local;
mod reads;
mod restore;
mod revoke;
mod rotation;
mod schema;
mod sealing;
mod sign;
mod streams;
