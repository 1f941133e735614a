//! Nomad's HTTP API, as a part of the mesh asks it, and where the servers are, as Nomad knows.
//!
//! Servers that run as Nomad's jobs have no address that could stand in a file. A `template` of the
//! job could write one, but Nomad ends a task whose template it cannot renew for some minutes: the
//! mesh would go when Nomad's servers do. So the parts ask Nomad themselves, when they look for a
//! server, and where Nomad does not answer they go on with what it said last.
#![forbid(unsafe_code)]

mod client;
mod servers;

pub use client::{Access, Answer, Nomad, NomadError};
pub use reqwest::Method;
pub use servers::Servers;
