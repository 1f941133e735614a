//! Terraform's plugin protocol 6, for providers in Rust.
//!
//! This crate knows nothing of what a provider is about. It speaks with
//! Terraform (the handshake, the certificates of that one run, the calls), and
//! has what every provider needs: values that may be unknown, schemas, plans,
//! diagnostics at their attributes, timeouts and cancellation.
//!
//! # How to write a resource
//!
//! A resource is a type that implements [`Resource`]: a [`Schema`], and what is
//! done to create, read, update and delete one. It is registered in the provider's
//! `main`, in one line: `plugin.resource("mesh_server", MyResource::new(…))`.
//! A name begins with the provider's.
//!
//! - **The schema** is a list of [`Attribute`]s. One that the user must or may
//!   write is `required()` or `optional()`; one that only the provider gives is
//!   `computed()`; `default(…)` is what it is when nothing is written;
//!   `replaces()` makes the resource anew when it changes; `write_only()` is for
//!   secrets that must not be kept. [`Attribute::single`] and
//!   [`Attribute::nested`] have attributes of their own. `Schema::timeout` gives
//!   an operation a deadline that the user can change in `timeouts`.
//!   Test that [`Schema::mistakes`] is empty.
//! - **Checks** of one value stand at its attribute ([`Attribute::check`]); what
//!   takes several is said in [`Resource::validate`], at a [`Path`]. Values may be
//!   unknown there: say nothing about what is.
//! - **The plan** follows from the schema. [`Resource::plan`] may change it, when
//!   something more is known, or refuse it.
//! - **create, update, delete** get a [`Stored`], whose `state` they change as
//!   things come to be. What is in it is kept *also when they fail*, so that a
//!   resource half made is not forgotten: set the state as soon as something
//!   exists that must be cleaned up, then go on. What was written is in
//!   [`Wanted`]: `planned` has the defaults; only `config` has what is
//!   `write_only()`. When they succeed, whatever was unknown in the plan must be
//!   in the state.
//! - **read** changes the state to what is there, or calls [`Stored::gone`].
//!   Values that mean what was written before (by [`Attribute::normal`], or empty
//!   against null) are put back into the words of the configuration, and
//!   defaults are filled in, after it.
//! - **import** sets the attributes that name the thing; Terraform reads next.
//! - `Stored::private` is kept beside the state and never shown: for what the
//!   resource must remember.
//! - **The [`Context`]** says what is going on ([`Context::progress`], which goes
//!   to Terraform's log), takes warnings, and knows when the user has interrupted
//!   it: long waits go through [`Context::until`] or [`Context::sleep`], which
//!   end then. An operation whose time is over is dropped where it awaits, and
//!   the state that it left is kept.
//!
//! ```no_run
//! use mesh_tfprotocol::{
//!     Attribute, Context, Diagnostics, Import, Plugin, Provider, Resource, Schema, Stored, Wanted,
//!     async_trait,
//! };
//!
//! struct Note;
//!
//! #[async_trait]
//! impl Resource for Note {
//!     fn schema(&self) -> Schema {
//!         Schema::new("A note.", vec![
//!             Attribute::string("name").required().replaces().describe("Its name."),
//!             Attribute::string("text").optional().describe("What it says."),
//!             Attribute::string("made_at").computed().stable().describe("When it was made."),
//!         ])
//!     }
//!
//!     async fn read(&self, _: &Context, _: &mut Stored) -> Result<(), Diagnostics> {
//!         Ok(())
//!     }
//!
//!     async fn create(
//!         &self,
//!         cx: &Context,
//!         wanted: &Wanted,
//!         stored: &mut Stored,
//!     ) -> Result<(), Diagnostics> {
//!         cx.progress("writing the note");
//!         stored.state = wanted.planned.clone();
//!         stored.state.set("made_at", "2026-01-01T00:00:00Z");
//!         Ok(())
//!     }
//!
//!     async fn update(
//!         &self,
//!         _: &Context,
//!         wanted: &Wanted,
//!         stored: &mut Stored,
//!     ) -> Result<(), Diagnostics> {
//!         stored.state = wanted.planned.clone();
//!         Ok(())
//!     }
//!
//!     async fn delete(&self, _: &Context, _: &mut Stored) -> Result<(), Diagnostics> {
//!         Ok(())
//!     }
//! }
//!
//! struct Notes;
//!
//! #[async_trait]
//! impl Provider for Notes {
//!     fn schema(&self) -> Schema {
//!         Schema::new("Notes.", vec![])
//!     }
//!
//!     async fn configure(
//!         &self,
//!         _: &Context,
//!         _: &mesh_tfprotocol::Value,
//!     ) -> Result<(), Diagnostics> {
//!         Ok(())
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> std::process::ExitCode {
//!     mesh_tfprotocol::serve(Plugin::new("notes", Notes).resource("notes_note", Note)).await
//! }
//! ```
#![forbid(unsafe_code)]

pub mod plugin;
pub mod schema;

mod context;
mod diagnostic;
mod handler;
mod log;
mod path;
mod plan;
mod server;
mod types;
mod value;
mod wire;

pub use async_trait::async_trait;
pub use context::{Context, Stop};
pub use diagnostic::{Diagnostic, Diagnostics};
pub use handler::Handler;
pub use path::{Path, Step};
pub use plan::Planned;
pub use plugin::{
    DataSource, Function, FunctionError, Import, Parameter, Plugin, Provider, Resource, Signature,
    Stored, Wanted,
};
pub use schema::{Attribute, Kind, Nesting, Operation, Schema};
pub use server::serve;
pub use types::{Type, TypeError};
pub use value::{Number, Value};
pub use wire::{WireError, decode, encode, from_json, to_json};

/// The messages of the protocol, for tests that speak it.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod proto {
    /// Terraform's.
    pub mod tfplugin6 {
        tonic::include_proto!("tfplugin6");
    }
    /// Those of whoever starts a plugin.
    pub mod plugin {
        tonic::include_proto!("plugin");
    }
    /// gRPC's own.
    pub mod health {
        tonic::include_proto!("grpc.health.v1");
    }
}
