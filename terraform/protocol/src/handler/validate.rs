//! Checks before anything is planned, and the provider's own configuration.

use super::{Handler, guarded, value};
use crate::proto::tfplugin6 as wire;
use crate::{Context, Diagnostics, Operation};
use wire::{
    configure_provider, validate_data_resource_config, validate_provider_config,
    validate_resource_config,
};

impl Handler {
    /// The provider's block.
    pub async fn validate_provider(
        &self,
        asked: validate_provider_config::Request,
    ) -> validate_provider_config::Response {
        let said = match value(asked.config.as_ref(), &self.provider.ty()) {
            Err(error) => error.into(),
            Ok(config) => {
                let mut said = self.provider.validate(&config, true);
                self.plugin.provider.validate(&config, &mut said).await;
                said
            }
        };
        validate_provider_config::Response {
            diagnostics: said.to_wire(),
        }
    }

    /// A resource's block.
    pub async fn validate_resource(
        &self,
        asked: validate_resource_config::Request,
    ) -> validate_resource_config::Response {
        let abilities = asked.client_capabilities.unwrap_or_default();
        let checked = async {
            let (resource, schema) = self.resource(&asked.type_name)?;
            let config = value(asked.config.as_ref(), &schema.ty())?;
            let mut said = schema.validate(&config, abilities.write_only_attributes_allowed);
            resource.validate(&config, &mut said).await;
            Ok::<_, crate::Diagnostic>(said)
        };
        validate_resource_config::Response {
            diagnostics: checked.await.unwrap_or_else(Into::into).to_wire(),
        }
    }

    /// A data source's block.
    pub async fn validate_data_source(
        &self,
        asked: validate_data_resource_config::Request,
    ) -> validate_data_resource_config::Response {
        let checked = async {
            let (source, schema) = self.data_source(&asked.type_name)?;
            let config = value(asked.config.as_ref(), &schema.ty())?;
            let mut said = schema.validate(&config, true);
            source.validate(&config, &mut said).await;
            Ok::<_, crate::Diagnostic>(said)
        };
        validate_data_resource_config::Response {
            diagnostics: checked.await.unwrap_or_else(Into::into).to_wire(),
        }
    }

    /// Takes the provider's configuration.
    pub async fn configure(
        &self,
        asked: configure_provider::Request,
    ) -> configure_provider::Response {
        let said: Diagnostics = match value(asked.config.as_ref(), &self.provider.ty()) {
            Err(error) => error.into(),
            Ok(config) => {
                let name = self.plugin.name;
                let cx = Context::new(&self.stop, name, None);
                let provider = &self.plugin.provider;
                let work = async |cx: &Context| provider.configure(cx, &config).await;
                guarded(cx, name, Operation::Read, work).await.1
            }
        };
        configure_provider::Response {
            diagnostics: said.to_wire(),
        }
    }
}
