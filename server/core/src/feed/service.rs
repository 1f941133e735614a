//! The `Servers` service: agents only, each for the node in its certificate.

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use futures::Stream;
use mesh_proto::servers::v1 as wire;
use mesh_proto::servers::v1::servers_server::{Servers, ServersServer};
use mesh_tls::Role;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::read::{read, write_config};
use super::session::serve;
use super::{MAX_FACT, MAX_MESSAGE};
use crate::ca::sign_or_pass_on;
use crate::core::Core;
use crate::listen::Caller;

/// Messages that wait for the connection.
const OUTBOX: usize = 16;

/// See the module.
#[derive(Clone)]
pub(crate) struct FeedService {
    core: Arc<Core>,
    /// The HTTP API, for reads.
    api: Router,
}

impl FeedService {
    pub(crate) fn server(core: Arc<Core>, api: Router) -> ServersServer<Self> {
        ServersServer::new(Self { core, api })
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_FACT)
    }
}

/// The id that the caller's certificate has for this role.
pub(crate) fn certified<T>(request: &Request<T>, role: Role) -> Result<String, Status> {
    match request.extensions().get::<Caller>() {
        Some(Caller::Cluster(id)) if id.role() == role => Ok(id.id().to_owned()),
        Some(Caller::Cluster(id)) => Err(Status::permission_denied(format!(
            "this is for certificates of the role {role}; this one is of {id}"
        ))),
        _ => Err(Status::unauthenticated("there is no certificate")),
    }
}

#[tonic::async_trait]
impl Servers for FeedService {
    type OpenStream = Pin<Box<dyn Stream<Item = Result<wire::ToAgent, Status>> + Send>>;

    async fn open(
        &self,
        request: Request<Streaming<wire::FromAgent>>,
    ) -> Result<Response<Self::OpenStream>, Status> {
        let node = certified(&request, Role::Agent)?;
        let (out, outbox) = mpsc::channel(OUTBOX);
        tokio::spawn(serve(self.core.clone(), node, request.into_inner(), out));
        Ok(Response::new(Box::pin(ReceiverStream::new(outbox))))
    }

    async fn sign(
        &self,
        request: Request<wire::SignRequest>,
    ) -> Result<Response<wire::SignResponse>, Status> {
        let node = certified(&request, Role::Agent)?;
        let signed = sign_or_pass_on(&self.core, node, request.into_inner()).await?;
        Ok(Response::new(signed))
    }

    async fn read(
        &self,
        request: Request<wire::ReadRequest>,
    ) -> Result<Response<wire::ReadResponse>, Status> {
        certified(&request, Role::Agent)?;
        let caller = request.extensions().get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| Status::unauthenticated("there is no certificate"))?;
        let answer = read(&self.api, caller, &request.get_ref().target).await?;
        Ok(Response::new(answer))
    }

    async fn write_config(
        &self,
        request: Request<wire::WriteConfigRequest>,
    ) -> Result<Response<wire::ReadResponse>, Status> {
        certified(&request, Role::Agent)?;
        let caller = request.extensions().get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| Status::unauthenticated("there is no certificate"))?;
        let answer = write_config(&self.api, caller, request.into_inner().text).await?;
        Ok(Response::new(answer))
    }
}
