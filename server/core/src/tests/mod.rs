//! Servers in this process, over real sockets.
#![allow(clippy::unwrap_used)]

mod agent;
mod api;
mod blocking;
mod cluster;
mod config;
mod feed;
mod fuzz;
mod golden;
mod harness;
mod leases;
mod restore;
mod schema;
mod sign;
