//! How a server comes to a cluster: it makes one, with others or alone, or joins one.
//!
//! Whoever is to make one asks `retry_join` first, and the servers that Nomad knows: if any of them
//! belongs to a cluster, this one joins it. So a server whose data is gone comes back as a new member, and never begins a
//! second cluster beside the first.

mod decide;
mod form;
mod id;

pub(crate) use form::{admit, form, identity};
pub(crate) use id::server_id;
