//! What is asked for at an agent's own socket.

use std::fmt;

use mesh_model::GatewayKind;
use serde::{Deserialize, Serialize};

/// Which proxy is asked for, and what its bootstrap should say: the body of
/// `POST /v1/proxy/bootstrap`. A field that the agent does not know is refused.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootstrapRequest {
    /// The proxy's id; this or `sidecar_for`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_id: Option<String>,
    /// The kind of gateway that it must be; none: not a gateway, or any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayKind>,
    /// The id of the instance whose sidecar it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar_for: Option<String>,
    /// Where the proxy's admin listener binds, `host:port`; none: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// Where the proxy also says whether it is ready, `host:port`; none: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// Where the proxy finds the agent, `host:port` or `unix://path`, as seen from where it runs;
    /// none: where the agent itself says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_addr: Option<String>,
    /// A token that proves the allocation, where the mesh asks for one. It comes with what Nomad
    /// gives; it is judged, and then forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl fmt::Debug for BootstrapRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BootstrapRequest")
            .field("proxy_id", &self.proxy_id)
            .field("sidecar_for", &self.sidecar_for)
            .finish_non_exhaustive()
    }
}
