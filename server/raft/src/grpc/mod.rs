//! The transport between real servers: gRPC, one call, over connections that the
//! server makes and takes (with TLS) elsewhere.

mod client;
mod service;

pub use client::{BoxedIo, Connector, GrpcTransport, Io};
pub use service::{Authorize, RaftServer, RaftService};
