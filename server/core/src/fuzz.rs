//! What must hold of any bytes that come from outside: fuzz targets as plain functions. They panic
//! when it does not; a test replays a corpus through them.

use mesh_proto::servers::v1 as wire;
use prost::Message;

/// Reads `data` as an agent's message, down to the commands and topics in it.
pub fn agent_message(data: &[u8]) {
    let Ok(message) = wire::FromAgent::decode(data) else {
        return;
    };
    crate::feed::read_any(message);
}

/// Reads `data` as the body of `/v1/apply`, as a query, and as a key in a path.
pub fn api_request(data: &[u8]) {
    crate::api::read_any(data);
}
