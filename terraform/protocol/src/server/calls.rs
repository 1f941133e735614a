//! The calls of the protocol, each given to the [`Handler`].

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::Handler;
use crate::proto::tfplugin6 as wire;
use crate::proto::tfplugin6::provider_server::Provider;

pub(super) struct Calls(pub(super) Arc<Handler>);

/// `async fn name(request) -> response`, by the handler's method of that name.
macro_rules! calls {
    ($($name:ident, $module:ident => |$handler:ident, $asked:ident| $answer:expr;)+) => {
        #[tonic::async_trait]
        impl Provider for Calls {
            $(
                async fn $name(
                    &self,
                    request: Request<wire::$module::Request>,
                ) -> Result<Response<wire::$module::Response>, Status> {
                    let $handler = &self.0;
                    let $asked = request.into_inner();
                    #[cfg(test)]
                    crate::handler::record(stringify!($name), &$asked);
                    Ok(Response::new($answer))
                }
            )+
        }
    };
}

calls! {
    get_metadata, get_metadata => |h, _asked| h.metadata();
    get_provider_schema, get_provider_schema => |h, _asked| h.provider_schema();
    get_resource_identity_schemas, get_resource_identity_schemas => |h, _asked| h.identity_schemas();
    get_functions, get_functions => |h, _asked| h.functions();
    validate_provider_config, validate_provider_config => |h, asked| h.validate_provider(asked).await;
    validate_resource_config, validate_resource_config => |h, asked| h.validate_resource(asked).await;
    validate_data_resource_config, validate_data_resource_config => |h, asked| h.validate_data_source(asked).await;
    configure_provider, configure_provider => |h, asked| h.configure(asked).await;
    upgrade_resource_state, upgrade_resource_state => |h, asked| h.upgrade(asked).await;
    upgrade_resource_identity, upgrade_resource_identity => |h, asked| h.upgrade_identity(&asked);
    read_resource, read_resource => |h, asked| h.read(asked).await;
    plan_resource_change, plan_resource_change => |h, asked| h.plan(asked).await;
    apply_resource_change, apply_resource_change => |h, asked| h.apply(asked).await;
    import_resource_state, import_resource_state => |h, asked| h.import(asked).await;
    read_data_source, read_data_source => |h, asked| h.read_data(asked).await;
    call_function, call_function => |h, asked| h.call(asked);
    stop_provider, stop_provider => |h, _asked| {
        h.stop();
        wire::stop_provider::Response::default()
    };
}
