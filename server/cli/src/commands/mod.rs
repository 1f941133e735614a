//! The commands, a file each.

pub(crate) mod agent;
pub(crate) mod apply;
pub(crate) mod ca;
mod ca_revoked;
pub(crate) mod catalog;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod doctor;
pub(crate) mod intention;
pub(crate) mod operator;
pub(crate) mod placed;
pub(crate) mod proxy;
pub(crate) mod server;
pub(crate) mod snapshot;
pub(crate) mod status;
pub(crate) mod tls;
pub(crate) mod validate;

pub(crate) mod files;
mod live;
