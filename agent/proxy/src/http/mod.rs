//! HTTP as the proxy sees it: calls, answers and bodies, whoever reads and
//! writes their bytes.

mod body;
mod call;
mod headers;
mod replay;
mod reply;

pub(crate) use body::{Body, BodyError, End, Side, Watcher};
pub(crate) use call::{Answer, Call, Handler, OnUpgrade, Tunnel};
pub(crate) use headers::{
    Lookup, clean_application, clean_request, clean_response, clean_trailers, is_grpc,
    is_no_trailer, wants_trailers, wants_upgrade,
};
pub(crate) use replay::Replay;
pub(crate) use reply::{SOURCE, Trouble, denied, trouble};
