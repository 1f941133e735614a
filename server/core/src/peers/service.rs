//! What other servers ask of this one.

use std::sync::Arc;
use std::time::Duration;

use mesh_ca::{SealedWith, Wrapped};
use mesh_proto::servers::v1 as wire;
use mesh_proto::servers::v1::peers_server::{Peers, PeersServer};
use mesh_raft::grpc::Authorize;
use mesh_raft::{Peer, RaftNode};
use mesh_tls::Role;
use tonic::{Request, Response, Status};

use crate::ca::sign_here;
use crate::core::Core;
use crate::feed::certified;
use crate::listen::Caller;

/// How long a newcomer may take to catch up.
const JOIN: Duration = Duration::from_secs(55);
/// Nodes in one message.
const MAX_NODES: usize = 100_000;
/// The longest message, in bytes.
const MAX_MESSAGE: usize = 16 << 20;

/// See the module.
#[derive(Clone)]
pub(crate) struct PeerService(Arc<Core>);

impl PeerService {
    pub(crate) fn server(core: Arc<Core>) -> PeersServer<Self> {
        PeersServer::new(Self(core))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(4 * MAX_MESSAGE)
    }
}

/// Raft is taken from servers only, and not from one member in another's name.
///
/// Members are known by their names, and a name is for people: it need not be the certificate's
/// id. So what is refused is a certificate that has the name of another member than the one that
/// speaks; who came anew without data has a new id, and that is nobody's.
pub(crate) fn authorize_raft(raft: RaftNode) -> Authorize {
    Arc::new(move |extensions, from| {
        let id = match extensions.get::<Caller>() {
            Some(Caller::Cluster(id)) if id.role() == Role::Server => id,
            _ => return Err(Status::permission_denied("Raft is taken from servers only")),
        };
        let status = raft.status();
        let members = || status.voters.iter().chain(&status.learners);
        let Some(speaker) = members().find(|member| member.id == from) else {
            return Ok(());
        };
        let of_another = || members().any(|member| member.name == id.id());
        match speaker.name != id.id() && of_another() {
            true => Err(Status::permission_denied(format!(
                "server {} speaks with the certificate of server {}; give each server its own",
                speaker.name,
                id.id()
            ))),
            false => Ok(()),
        }
    })
}

/// Who is let in, the leader decides.
async fn pass_on(core: &Core, request: wire::JoinRequest) -> Result<wire::JoinResponse, Status> {
    let leader = core.raft.leader().filter(|peer| peer.id != core.me.id);
    match leader {
        Some(leader) if !request.forwarded => {
            let forwarded = wire::JoinRequest {
                forwarded: true,
                ..request
            };
            core.peers.join(&leader.addr, forwarded).await
        }
        _ => Err(Status::unavailable(
            "there is no leader at the moment; it is tried again",
        )),
    }
}

#[tonic::async_trait]
impl Peers for PeerService {
    async fn heartbeats(
        &self,
        request: Request<wire::HeartbeatsRequest>,
    ) -> Result<Response<wire::HeartbeatsResponse>, Status> {
        certified(&request, Role::Server)?;
        let nodes = request.into_inner().nodes;
        if nodes.len() > MAX_NODES {
            return Err(Status::resource_exhausted("too many nodes in one message"));
        }
        if !self.0.leases.leads() {
            return Err(Status::failed_precondition("this server does not lead"));
        }
        for node in &nodes {
            self.0.leases.heard(node);
        }
        Ok(Response::new(wire::HeartbeatsResponse {}))
    }

    async fn proxies(
        &self,
        request: Request<wire::ProxiesRequest>,
    ) -> Result<Response<wire::ProxiesResponse>, Status> {
        certified(&request, Role::Server)?;
        Ok(Response::new(wire::ProxiesResponse {
            agents: self.0.registry.statuses(),
        }))
    }

    async fn identify(
        &self,
        request: Request<wire::IdentifyRequest>,
    ) -> Result<Response<wire::IdentifyResponse>, Status> {
        certified(&request, Role::Server)?;
        Ok(Response::new(crate::bootstrap::identity(&self.0).await))
    }

    async fn can_open(
        &self,
        request: Request<wire::CanOpenRequest>,
    ) -> Result<Response<wire::CanOpenResponse>, Status> {
        certified(&request, Role::Server)?;
        let request = request.into_inner();
        let wrapped = (!request.data_key.is_empty()).then_some(Wrapped {
            mount: request.mount,
            key: request.key,
            data_key: request.data_key,
        });
        let with = SealedWith {
            id: request.key_id,
            transit: wrapped,
        };
        let opened = self.0.ca.keyring.open(&with).await;
        Ok(Response::new(wire::CanOpenResponse {
            problem: opened
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default(),
        }))
    }

    async fn sign_for(
        &self,
        request: Request<wire::SignForRequest>,
    ) -> Result<Response<wire::SignResponse>, Status> {
        certified(&request, Role::Server)?;
        let request = request.into_inner();
        let wish = request.wish.unwrap_or_default();
        let signed = sign_here(&self.0, &request.node, &wish).await?;
        Ok(Response::new(signed))
    }

    async fn join(
        &self,
        request: Request<wire::JoinRequest>,
    ) -> Result<Response<wire::JoinResponse>, Status> {
        certified(&request, Role::Server)?;
        let core = &self.0;
        let request = request.into_inner();
        if !core.raft.is_leader() {
            return pass_on(core, request).await.map(Response::new);
        }
        let state = core.store.state();
        let Some(cluster) = state.cluster() else {
            return Err(Status::failed_precondition(
                "this server belongs to no cluster yet",
            ));
        };
        if request.level < state.level() {
            return Err(Status::failed_precondition(format!(
                "the cluster is at level {}, and the server speaks up to {}; upgrade it",
                state.level(),
                request.level
            )));
        }
        let peer = Peer {
            id: request.id,
            name: request.server,
            addr: request.address,
        };
        crate::bootstrap::admit(core, peer, JOIN).await?;
        Ok(Response::new(wire::JoinResponse {
            cluster_id: cluster.value.cluster_id.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mesh_tls::ClusterId;
    use tonic::Code;

    use super::*;
    use crate::tests::harness::cluster;

    #[tokio::test]
    async fn no_member_speaks_in_anothers_name() {
        let servers = cluster(3).await;
        let raft = &servers[0].0.core.raft;
        let id = |name: &str| {
            let voters = raft.status().voters;
            let found = voters.iter().find(|peer| peer.name == name);
            found.unwrap().id
        };
        let authorize = authorize_raft(raft.clone());
        let ask = |role, name: &str, from| {
            let mut extensions = tonic::Extensions::new();
            extensions.insert(Caller::Cluster(ClusterId::new(role, name).unwrap()));
            authorize(&extensions, from).map_err(|status| status.code())
        };
        let denied = Err(Code::PermissionDenied);
        assert_eq!(ask(Role::Server, "s2", id("s2")), Ok(()));
        assert_eq!(ask(Role::Server, "s2", id("s3")), denied);
        assert_eq!(ask(Role::Server, "s2", id("s1")), denied);
        assert_eq!(ask(Role::Agent, "s2", id("s2")), denied);
        assert_eq!(
            authorize(&tonic::Extensions::new(), id("s2")).map_err(|s| s.code()),
            denied
        );
        // Who lost its data has another id, and who comes has none that is known.
        assert_eq!(ask(Role::Server, "s2", 1), Ok(()));
        assert_eq!(ask(Role::Server, "s9", 1), Ok(()));
        // Its name is not its certificate's.
        assert_eq!(ask(Role::Server, "host-2.example.com", id("s2")), Ok(()));
        for (server, _) in servers {
            server.shutdown().await;
        }
    }
}
