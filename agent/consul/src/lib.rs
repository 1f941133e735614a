//! Consul's agent API in and out: JSON shapes and their translation.
//!
//! Nomad speaks to the agent as it would to Consul's. This crate is that door and nothing more:
//! what comes in becomes our nouns ([`register`], [`check`]), what goes out is written from them
//! ([`echo`], [`agent`]), and no part of the mesh behind it knows Consul's words. It does no I/O.
//!
//! Going in, keys are taken as Consul takes them (`ServiceID`, `service_id`, `serviceId`), what is
//! left out gets Consul's defaults, and unknown keys are kept and ignored. Going out, what was
//! sent is echoed exactly, since Nomad compares and registers again every 30 s what differs.
#![forbid(unsafe_code)]

pub mod acl;
pub mod agent;
pub mod catalog;
pub mod check;
pub mod config;
pub mod connect;
pub mod echo;
mod error;
mod fields;
pub mod filter;
mod gateway;
pub mod health;
pub mod intentions;
pub mod register;

pub use error::ConsulError;

/// The longest id of an instance or check, in bytes. Nomad's are made of an allocation's,
/// group's and service's names.
pub const MAX_ID: usize = 480;

/// For fuzzing: any bytes are refused or translated; what is translated is echoed with its id.
///
/// # Panics
/// When a registration comes back under another id: a bug.
pub fn fuzz(data: &[u8]) {
    let Ok(body) = serde_json::from_slice::<serde_json::Value>(data) else {
        return;
    };
    let _ = check::parse(&body);
    let _ = check::parse_update(&body);
    let _ = connect::question(&body);
    let _ = acl::login(&body);
    if let Ok(registered) = register::parse(&body) {
        let echoed = echo::service(&registered.registration, Some(&body), "dc1");
        let id = echoed.get("ID").and_then(serde_json::Value::as_str);
        assert_eq!(id, Some(registered.registration.id.as_str()), "id changed");
        let _ = echo::sidecar(&registered.registration, Some(&body), "dc1");
    }
}
