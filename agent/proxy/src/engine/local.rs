//! hyper's timer on tokio's.

pub(super) use hyper_util::rt::{TokioIo, TokioTimer};
