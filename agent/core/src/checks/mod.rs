//! Health checks: the agent runs them itself, since Nomad leaves that to Consul's agent, and
//! deployments hang on what they say.

mod board;
mod grpc;
mod probe;
mod runner;
mod thresholds;

pub(crate) use board::Board;
pub(crate) use probe::Network;
pub(crate) use runner::run;
