//! Who may do what, by the certificate; and who only says that he is on this machine.

use http::{HeaderMap, StatusCode, Uri};
use mesh_tls::Role;

use super::error::ApiError;
use super::route::Access;
use crate::listen::Caller;

/// Whether this caller may use a route of this access.
pub(crate) fn check(
    caller: &Caller,
    access: Access,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(), ApiError> {
    let allowed = match caller {
        Caller::Local => return local(uri, headers),
        Caller::Anonymous => access == Access::Open,
        Caller::Cluster(id) => match id.role() {
            Role::Server | Role::Cli => true,
            Role::Agent => access != Access::Operator,
        },
    };
    match (allowed, caller) {
        (true, _) => Ok(()),
        (false, Caller::Cluster(id)) => Err(forbidden(format!(
            "{id} may not do this; use a certificate of the role cli or server"
        ))),
        (false, _) => Err(forbidden(
            "this needs a client certificate of the cluster; see `meshctl tls cert create`"
                .to_owned(),
        )),
    }
}

/// A page in a browser on this machine must not reach this through a name of
/// its own that leads here (DNS rebinding).
fn local(uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    let header = headers.get(http::header::HOST);
    let header = header.and_then(|value| value.to_str().ok());
    let authority = uri.authority().map(http::uri::Authority::as_str);
    let Some(host) = authority.or(header) else {
        return Err(forbidden("the Host header is missing".to_owned()));
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let address = name.parse::<std::net::IpAddr>();
    match name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback()) {
        true => Ok(()),
        false => Err(forbidden(
            "in plaintext this server answers only as localhost or by a loopback address"
                .to_owned(),
        )),
    }
}

fn forbidden(message: String) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "forbidden", message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mesh_tls::ClusterId;

    fn may(caller: &Caller, access: Access, host: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert("host", host.parse().unwrap());
        check(caller, access, &Uri::from_static("/v1/status"), &headers).is_ok()
    }

    #[test]
    fn by_role() {
        let part = |role| Caller::Cluster(ClusterId::new(role, "x").unwrap());
        for (caller, open, read, operator) in [
            (Caller::Local, true, true, true),
            (Caller::Anonymous, true, false, false),
            (part(Role::Agent), true, true, false),
            (part(Role::Cli), true, true, true),
            (part(Role::Server), true, true, true),
        ] {
            assert_eq!(
                may(&caller, Access::Open, "localhost:8700"),
                open,
                "{caller:?}"
            );
            assert_eq!(
                may(&caller, Access::Read, "localhost:8700"),
                read,
                "{caller:?}"
            );
            assert_eq!(
                may(&caller, Access::Operator, "localhost"),
                operator,
                "{caller:?}"
            );
        }
    }

    #[test]
    fn local_is_by_a_local_name() {
        for (host, good) in [
            ("127.0.0.1:8700", true),
            ("[::1]:8700", true),
            ("LOCALHOST", true),
            ("evil.example:8700", false),
            ("localhost.evil.example", false),
            ("10.0.0.1", false),
            ("", false),
        ] {
            assert_eq!(may(&Caller::Local, Access::Open, host), good, "{host}");
        }
    }
}
