//! `terraform-provider-mesh`: the mesh's intentions, services, routes, defaults and CA in
//! Terraform, and its servers and agents on Nomad.
//!
//! The protocol is in `mesh-tfprotocol`. Here are the resources, and the table in which they are
//! registered: a new one is one more line of [`plugin`].
#![forbid(unsafe_code)]

mod ca;
mod connection;
mod data;
mod docs;
mod entry;
mod functions;
mod given;
mod names;
mod provider;
mod provision;
mod release;
mod shape;

use std::path::Path;
use std::process::ExitCode;

use mesh_tfprotocol::Plugin;

use ca::Ca;
use data::{Data, What};
use entry::{Entry, Noun};
use functions::{Config, SpiffeIdOf};
use provider::Mesh;
use provision::{AgentResource, ServerResource};

/// The provider and all that it has.
fn plugin() -> Plugin {
    let mesh = Mesh::default();
    Plugin::new("mesh", mesh.clone())
        .resource("mesh_agent", AgentResource::new(mesh.place.clone()))
        .resource("mesh_ca", Ca::new(&mesh))
        .resource("mesh_defaults", Entry::new(&mesh, Noun::Defaults))
        .resource("mesh_intention", Entry::new(&mesh, Noun::Intention))
        .resource("mesh_route", Entry::new(&mesh, Noun::Route))
        .resource("mesh_server", ServerResource::new(mesh.place.clone()))
        .resource("mesh_service", Entry::new(&mesh, Noun::Service))
        .data_source("mesh_ca_roots", Data::new(&mesh, What::CaRoots))
        .data_source(
            "mesh_intention_check",
            Data::new(&mesh, What::IntentionCheck),
        )
        .data_source("mesh_service", Data::new(&mesh, What::Service))
        .data_source("mesh_services", Data::new(&mesh, What::Services))
        .data_source("mesh_status", Data::new(&mesh, What::Status))
        .function("config", Config::new())
        .function("spiffe_id", SpiffeIdOf)
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // For those who build it; Terraform gives no arguments.
    let made = match arguments.as_slice() {
        ["docs", folder] => docs::write(&plugin(), Path::new(folder)).map_err(|e| e.to_string()),
        ["mirror", folder] => release::mirror(Path::new(folder)).map_err(|e| e.to_string()),
        ["release", folder] => release::release(Path::new(folder)).map_err(|e| e.to_string()),
        _ => return mesh_tfprotocol::serve(plugin()).await,
    };
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("terraform-provider-mesh: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_schema_has_a_mistake() {
        let plugin = plugin();
        let all = plugin
            .resource_schemas()
            .into_iter()
            .chain(plugin.data_source_schemas());
        for (name, schema) in all.chain([("provider", plugin.schema())]) {
            assert_eq!(schema.mistakes(), [""; 0], "{name}");
            assert!(!schema.description.is_empty(), "{name}");
            // These mean something else at the top of Terraform's blocks.
            let taken = [
                "count",
                "for_each",
                "depends_on",
                "lifecycle",
                "provider",
                "provisioner",
                "connection",
            ];
            for word in taken {
                assert!(schema.attribute(word).is_none(), "{name}.{word}");
            }
        }
    }
}
