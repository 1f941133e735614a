//! What the provider has.

use super::Handler;
use crate::proto::tfplugin6 as wire;
use wire::{get_metadata as metadata, get_provider_schema, get_resource_identity_schemas};

const CAPABILITIES: wire::ServerCapabilities = wire::ServerCapabilities {
    plan_destroy: true,
    get_provider_schema_optional: true,
    move_resource_state: false,
    generate_resource_config: false,
};

impl Handler {
    /// The names of all that there is.
    pub fn metadata(&self) -> metadata::Response {
        let data_sources = self.data_sources.keys();
        let resources = self.resources.keys();
        let functions = self.plugin.functions.keys();
        metadata::Response {
            server_capabilities: Some(CAPABILITIES),
            data_sources: data_sources
                .map(|name| metadata::DataSourceMetadata {
                    type_name: (*name).to_owned(),
                })
                .collect(),
            resources: resources
                .map(|name| metadata::ResourceMetadata {
                    type_name: (*name).to_owned(),
                })
                .collect(),
            functions: functions
                .map(|name| metadata::FunctionMetadata {
                    name: (*name).to_owned(),
                })
                .collect(),
            ..Default::default()
        }
    }

    /// The schemas of all that there is.
    pub fn provider_schema(&self) -> get_provider_schema::Response {
        let data_sources = self.data_sources.iter();
        let resources = self.resources.iter();
        get_provider_schema::Response {
            provider: Some(self.provider.to_wire()),
            resource_schemas: resources
                .map(|(name, schema)| ((*name).to_owned(), schema.to_wire()))
                .collect(),
            data_source_schemas: data_sources
                .map(|(name, schema)| ((*name).to_owned(), schema.to_wire()))
                .collect(),
            server_capabilities: Some(CAPABILITIES),
            functions: self.functions().functions,
            ..Default::default()
        }
    }

    /// By what resources are known again.
    pub fn identity_schemas(&self) -> get_resource_identity_schemas::Response {
        let all = self.resources.iter();
        let all =
            all.filter_map(|(name, schema)| Some(((*name).to_owned(), schema.identity_to_wire()?)));
        get_resource_identity_schemas::Response {
            identity_schemas: all.collect(),
            diagnostics: Vec::new(),
        }
    }
}
