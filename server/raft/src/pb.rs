//! The messages of `proto/raft.proto`, as prost makes them.
#![allow(missing_docs, unreachable_pub, clippy::all)]

tonic::include_proto!("mesh.raft.v1");
