//! The state machine from outside, as the servers use it.
#![allow(clippy::unwrap_used)]

mod catalog;
mod config;
mod corpus;
mod forms;
mod gateways;
mod leaves;
mod make;
mod replica;
mod restore;
mod snapshots;
mod transactions;
mod virtuals;
mod watches;
