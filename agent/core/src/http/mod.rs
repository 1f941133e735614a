//! The agent's doors: Nomad's on 127.0.0.1:8500, as Consul's agent answers there, and the agent's
//! own socket, from which bootstraps come.

mod access;
mod acl;
mod answer;
mod bootstrap;
mod catalog;
mod checks;
mod config;
mod connect;
mod health;
mod intentions;
mod native;
mod node;
mod peer;
mod query;
mod serve;
mod services;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post, put};
use axum::{Extension, Router};
use mesh_proto::bootstrap::AgentAddress;
use tokio::sync::watch;
use tower_http::timeout::TimeoutLayer;

pub(crate) use access::{is_trusted, read_token};
pub(crate) use answer::Failure;
pub(crate) use bootstrap::issue;
pub(crate) use peer::Peer;
pub(crate) use serve::{Places, serve};

use crate::catalog::{Catalog, Owner, View};
use crate::checks::Board;
use crate::compiler::Compiler;
use crate::facts::Facts;
use crate::feed::{Records, Tickets};
use crate::identity::Identity;
use crate::leaves::Leaves;
use crate::uplink::{Link, Membership, Reader};
use answer::blocking;

/// The largest body that is read, in bytes.
const MAX_BODY: usize = 512 * 1024;
/// How long a request may take; one for a bootstrap may wait longer.
const LIMIT: Duration = Duration::from_secs(30);

/// The same for what is read from a server; a change may be waited for, and a sixteenth longer.
const READ_LIMIT: Duration = Duration::from_secs(query::MAX_WAIT.as_secs() * 17 / 16 + 30);

/// What the doors work with.
pub(crate) struct Door {
    pub(crate) node_id: String,
    pub(crate) node_name: String,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) board: Arc<Board>,
    pub(crate) compiler: Arc<Compiler>,
    pub(crate) facts: Arc<Facts>,
    pub(crate) records: Arc<Records>,
    pub(crate) tickets: Arc<Tickets>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) servers: Reader,
    pub(crate) leaves: Arc<Leaves>,
    pub(crate) link: watch::Receiver<Link>,
    /// The register token, if there is one.
    pub(crate) token: ArcSwapOption<Vec<u8>>,
    pub(crate) register_token_file: Option<PathBuf>,
    /// Whether connections of this very process may change anything.
    pub(crate) takes_own_writes: bool,
    pub(crate) instance_dir: Option<PathBuf>,
    /// Why the instance files could not be taken the last time, if so.
    pub(crate) files: ArcSwapOption<String>,
    /// The agent's own socket, if it has one.
    pub(crate) socket: Option<PathBuf>,
    /// Where proxies open their stream.
    pub(crate) grpc: SocketAddr,
    /// Where DNS answers, if it does.
    pub(crate) dns: Option<SocketAddr>,
    /// The same, as a bootstrap names it.
    pub(crate) feed: AgentAddress,
}

impl Door {
    /// The mesh's datacenter as Nomad is told it; it wants one, known or not.
    fn datacenter(&self) -> String {
        let known = self.membership.datacenter();
        known.unwrap_or_else(|| "dc1".to_owned())
    }

    /// Makes a change for whoever may make one.
    async fn change<T: Send + 'static>(
        self: Arc<Self>,
        peer: Peer,
        headers: HeaderMap,
        change: impl FnOnce(&Self, Owner) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        blocking(move || {
            let token = self.token.load();
            let token = token.as_ref().map(|token| token.as_slice());
            let owner = access::writer(peer, &headers, token, self.takes_own_writes)?;
            change(&self, owner)
        })
        .await
    }

    fn view(&self) -> View {
        self.catalog.view()
    }
}

/// Nomad's door.
pub(crate) fn router(door: Arc<Door>) -> Router {
    let reads = limited(reads().with_state(door.clone()), READ_LIMIT);
    limited(consul().with_state(door), LIMIT).merge(reads)
}

/// The agent's own socket: the same, and what only the machine's users may ask.
pub(crate) fn own_router(door: Arc<Door>) -> Router {
    let own = Router::new()
        .route("/v1/proxy/bootstrap", post(bootstrap::post))
        .route("/v1/agent/reload", put(node::reload).post(node::reload));
    let all = consul().merge(own).with_state(door.clone());
    let reads = limited(reads().with_state(door), READ_LIMIT);
    limited(all, bootstrap::MAX_WAIT + LIMIT).merge(reads)
}

fn consul() -> Router<Arc<Door>> {
    Router::new()
        .route("/v1/agent/self", get(node::own))
        .route("/v1/agent/services", get(services::list))
        .route("/v1/agent/service/{*id}", get(services::one))
        .route("/v1/agent/service/register", put(services::register))
        .route(
            "/v1/agent/service/deregister/{*id}",
            put(services::deregister),
        )
        .route("/v1/agent/checks", get(checks::list))
        .route("/v1/agent/check/register", put(checks::register))
        .route("/v1/agent/check/deregister/{*id}", put(checks::deregister))
        .route("/v1/agent/check/update/{*id}", put(checks::update))
        .route("/v1/agent/check/pass/{*id}", put(checks::pass))
        .route("/v1/agent/check/warn/{*id}", put(checks::warn))
        .route("/v1/agent/check/fail/{*id}", put(checks::fail))
        .route("/v1/agent/health/service/id/{*id}", get(health::by_id))
        .route(
            "/v1/agent/health/service/name/{*name}",
            get(health::by_name),
        )
        .route(
            "/v1/agent/connect/authorize",
            post(connect::authorize).put(connect::authorize),
        )
        .route("/v1/acl/login", post(acl::login).put(acl::login))
        .route("/v1/acl/logout", post(acl::logout).put(acl::logout))
        .route("/v1/acl/token/self", get(acl::own))
        .route("/v1/catalog/datacenters", get(node::datacenters))
        .route("/v1/status/leader", get(node::leader))
        .route("/metrics", get(node::metrics))
        .route("/ready", get(node::ready))
        .fallback(unknown)
}

/// What the servers answer or change, and may be waited for.
fn reads() -> Router<Arc<Door>> {
    Router::new()
        .route("/v1/agent/connect/ca/roots", get(connect::roots))
        .route("/v1/connect/ca/roots", get(connect::roots))
        .route("/v1/agent/connect/ca/leaf/{service}", get(native::leaf))
        .route("/v1/catalog/services", get(catalog::list))
        .route("/v1/catalog/nodes", get(catalog::nodes))
        .route("/v1/catalog/service/{name}", get(catalog::service))
        .route("/v1/catalog/connect/{name}", get(catalog::service_in_mesh))
        .route("/v1/health/service/{name}", get(catalog::health))
        .route("/v1/health/connect/{name}", get(catalog::health_in_mesh))
        .route("/v1/connect/intentions", reading(get(intentions::list)))
        .route(
            "/v1/connect/intentions/exact",
            reading(get(intentions::exact)),
        )
        .route(
            "/v1/connect/intentions/match",
            reading(get(intentions::matching)),
        )
        .route(
            "/v1/connect/intentions/check",
            reading(get(intentions::check)),
        )
        .route("/v1/connect/intentions/{id}", reading(get(unknown)))
        .route(
            "/v1/config",
            get(unknown)
                .put(config::write)
                .post(config::no_write)
                .delete(config::no_write),
        )
        .route("/v1/config/{kind}", reading(get(config::list)))
        .route("/v1/config/{kind}/{name}", reading(get(config::one)))
}

/// A route of policy, which is only read.
fn reading(route: MethodRouter<Arc<Door>>) -> MethodRouter<Arc<Door>> {
    route
        .put(config::no_write)
        .post(config::no_write)
        .delete(config::no_write)
}

fn limited(router: Router, time: Duration) -> Router {
    router
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            time,
        ))
}

async fn unknown(uri: Uri) -> impl IntoResponse {
    Failure::not_found(format!(
        "{} is not known: this is a meshctl agent, which has of Consul's API what Nomad uses",
        uri.path()
    ))
}

/// Who is at the other end.
type Caller = Extension<Peer>;
