//! What whoever starts a plugin asks of it.

use tokio_util::sync::CancellationToken;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use crate::proto::health::health_check_response::ServingStatus;
use crate::proto::health::{HealthCheckRequest, HealthCheckResponse, health_server};
use crate::proto::plugin::{
    ConnInfo, Empty, StdioData, grpc_broker_server, grpc_controller_server, grpc_stdio_server,
};

/// A stream on which nothing is said, until it is over.
fn silence<T: Send + 'static>(over: CancellationToken) -> BoxStream<T> {
    let wait = async move { over.cancelled().await };
    Box::pin(futures::stream::StreamExt::filter_map(
        futures::stream::once(wait),
        |()| async { None },
    ))
}

pub(super) struct Controller(pub(super) CancellationToken);

#[tonic::async_trait]
impl grpc_controller_server::GrpcController for Controller {
    async fn shutdown(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        self.0.cancel();
        Ok(Response::new(Empty {}))
    }
}

pub(super) struct Broker(pub(super) CancellationToken);

#[tonic::async_trait]
impl grpc_broker_server::GrpcBroker for Broker {
    async fn start_stream(
        &self,
        _: Request<Streaming<ConnInfo>>,
    ) -> Result<Response<BoxStream<ConnInfo>>, Status> {
        Ok(Response::new(silence(self.0.clone())))
    }
}

/// What this process prints goes to the standard error that Terraform gave it,
/// which it reads anyway.
pub(super) struct Stdio(pub(super) CancellationToken);

#[tonic::async_trait]
impl grpc_stdio_server::GrpcStdio for Stdio {
    async fn stream_stdio(&self, _: Request<()>) -> Result<Response<BoxStream<StdioData>>, Status> {
        Ok(Response::new(silence(self.0.clone())))
    }
}

pub(super) struct Health;

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse {
            status: ServingStatus::Serving.into(),
        }))
    }
}
