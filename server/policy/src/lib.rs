//! Who may call whom: the one intention evaluator.
//!
//! The proxy, the servers, and `meshctl intention check` ask this crate and no
//! other code, so that what is explained is what is enforced. It decides from
//! verified facts only: the caller's identity as its certificate says it, and
//! for HTTP the request after its path was normalised
//! ([`mesh_model::normalize_path`]).
//!
//! The rules, as Consul's users know them: exactly one intention governs a
//! pair, the one of highest precedence; permissions are read from the top, the
//! first that matches decides, and where none matches the mesh's default
//! holds, not an intention of lower precedence. What this build does not
//! understand denies.
#![forbid(unsafe_code)]

mod decision;
mod evaluate;
mod form;
mod matcher;

pub use decision::{ConnectionDecision, Decider, Decision};
pub use evaluate::Policy;
pub use form::{Feature, Features, NotUnderstood, PolicyForm};
pub use matcher::{HeaderLookup, RequestFacts, RequestMatcher};
