//! `terraform-provider-mesh`: the mesh's intentions, services, routes, defaults and CA in
//! Terraform.
//!
//! The protocol is in `mesh-tfprotocol`. Here are the resources, and the table in which they are
//! registered: a new one is one more line of [`plugin`].
#![forbid(unsafe_code)]

mod connection;
mod entry;
mod names;
mod provider;
mod shape;

use std::process::ExitCode;

use mesh_tfprotocol::Plugin;

use entry::{Entry, Noun};
use provider::Mesh;

/// The provider and all that it has.
fn plugin() -> Plugin {
    let mesh = Mesh::default();
    Plugin::new("mesh", mesh.clone())
        .resource("mesh_defaults", Entry::new(&mesh, Noun::Defaults))
        .resource("mesh_intention", Entry::new(&mesh, Noun::Intention))
        .resource("mesh_route", Entry::new(&mesh, Noun::Route))
        .resource("mesh_service", Entry::new(&mesh, Noun::Service))
}

#[tokio::main]
async fn main() -> ExitCode {
    mesh_tfprotocol::serve(plugin()).await
}
