//! Identities, parsed once and then carried as values.
//!
//! The rules are those of the SPIFFE standard (SPIFFE-ID, sections 2.1 to 2.3), taken strictly:
//! what a lenient parser would normalise (upper case, a trailing slash, an escaped letter), this
//! one refuses, so that two different texts are always two different identities.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest identity, in bytes (SPIFFE-ID, section 2.3).
const MAX_ID: usize = 2048;
/// The longest trust domain, in bytes (SPIFFE-ID, section 2.1).
const MAX_TRUST_DOMAIN: usize = 255;
const SCHEME: &str = "spiffe://";
/// The trust domain of the cluster's own certificates. No mesh may have it.
const CLUSTER_DOMAIN: &str = "meshctl.internal";

/// Why a text is not an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("identity {shown:?}: {reason}")]
pub struct IdError {
    shown: String,
    reason: String,
}

impl IdError {
    pub(crate) fn new(text: &str, reason: impl Into<String>) -> Self {
        // What is shown may come from a stranger's certificate.
        let mut shown: String = text.chars().take(200).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        Self {
            shown,
            reason: reason.into(),
        }
    }
}

/// The name of a mesh: what stands between `spiffe://` and the first `/` of its identities.
///
/// Lower-case letters, digits, `.`, `-` and `_`; at most 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn cluster() -> Self {
        Self(Arc::from(CLUSTER_DOMAIN))
    }
}

impl FromStr for TrustDomain {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        check_trust_domain(text).map_err(|reason| IdError::new(text, reason))?;
        if text == CLUSTER_DOMAIN {
            return Err(IdError::new(
                text,
                "this trust domain is reserved for the servers' and agents' own certificates",
            ));
        }
        Ok(Self(Arc::from(text)))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The identity of a service: `spiffe://<trust domain>/ns/<namespace>/dc/<dc>/svc/<service>`.
///
/// Cheap to clone, to compare and to use as a key.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    uri: Arc<str>,
    // Where each part ends in `uri`; at most MAX_ID, so u16 is enough.
    domain_end: u16,
    namespace_end: u16,
    dc_end: u16,
}

impl SpiffeId {
    /// The identity of a service of a mesh.
    ///
    /// # Errors
    /// When a part is empty, has a character that an identity cannot have, or all is too long.
    pub fn new(
        domain: &TrustDomain,
        namespace: &str,
        dc: &str,
        service: &str,
    ) -> Result<Self, IdError> {
        // Parsing what was put together refuses a part that holds a slash.
        format!("{SCHEME}{domain}/ns/{namespace}/dc/{dc}/svc/{service}").parse()
    }

    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The trust domain, as text.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.part(SCHEME.len(), self.domain_end)
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.part(
            usize::from(self.domain_end) + "/ns/".len(),
            self.namespace_end,
        )
    }

    /// The datacenter: the server cluster's own name.
    #[must_use]
    pub fn dc(&self) -> &str {
        self.part(usize::from(self.namespace_end) + "/dc/".len(), self.dc_end)
    }

    /// The service.
    #[must_use]
    pub fn service(&self) -> &str {
        self.uri
            .get(usize::from(self.dc_end) + "/svc/".len()..)
            .unwrap_or_default()
    }

    fn part(&self, from: usize, to: u16) -> &str {
        self.uri.get(from..usize::from(to)).unwrap_or_default()
    }
}

impl FromStr for SpiffeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = |reason: &str| IdError::new(text, reason);
        let (domain, path) = split(text)?;
        if domain == CLUSTER_DOMAIN {
            return Err(error(
                "this is a part of the cluster, not a service of a mesh",
            ));
        }
        let [ns, namespace, dc, datacenter, svc, service] =
            segments::<6>(path).ok_or_else(|| error(SERVICE_FORM))?;
        if ns != "ns" || dc != "dc" || svc != "svc" {
            return Err(error(SERVICE_FORM));
        }
        for part in [namespace, datacenter, service] {
            check_segment(part).map_err(|reason| IdError::new(text, reason))?;
        }
        // Cannot overflow: `split` refused what is longer than MAX_ID.
        let domain_end = SCHEME.len() + domain.len();
        let namespace_end = domain_end + "/ns/".len() + namespace.len();
        let dc_end = namespace_end + "/dc/".len() + datacenter.len();
        Ok(Self {
            uri: Arc::from(text),
            domain_end: domain_end as u16,
            namespace_end: namespace_end as u16,
            dc_end: dc_end as u16,
        })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpiffeId({})", self.uri)
    }
}

/// What a part of the cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// A server: member of the control plane.
    Server,
    /// An agent, on a Nomad client.
    Agent,
    /// A person or program with `meshctl`.
    Cli,
}

impl Role {
    /// The word in the identity: `server`, `agent` or `cli`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Agent => "agent",
            Self::Cli => "cli",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The identity of a part of the cluster: `spiffe://meshctl.internal/<role>/<id>`.
///
/// The id is a server's id, an agent's node id, or the name of whoever uses `meshctl`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId {
    role: Role,
    id: Arc<str>,
}

impl ClusterId {
    /// A role and an id.
    ///
    /// # Errors
    /// When the id is empty, too long, or has characters that an identity cannot have.
    pub fn new(role: Role, id: &str) -> Result<Self, IdError> {
        format!("{SCHEME}{CLUSTER_DOMAIN}/{role}/{id}").parse()
    }

    /// What it is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Which one it is.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl FromStr for ClusterId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = |reason: &str| IdError::new(text, reason);
        let (domain, path) = split(text)?;
        if domain != CLUSTER_DOMAIN {
            return Err(error(CLUSTER_FORM));
        }
        let [role, id] = segments::<2>(path).ok_or_else(|| error(CLUSTER_FORM))?;
        let role = match role {
            "server" => Role::Server,
            "agent" => Role::Agent,
            "cli" => Role::Cli,
            _ => return Err(error(CLUSTER_FORM)),
        };
        check_segment(id).map_err(|reason| IdError::new(text, reason))?;
        Ok(Self {
            role,
            id: Arc::from(id),
        })
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{CLUSTER_DOMAIN}/{}/{}", self.role, self.id)
    }
}

const SERVICE_FORM: &str =
    "a service is spiffe://<trust domain>/ns/<namespace>/dc/<dc>/svc/<service>";
const CLUSTER_FORM: &str =
    "a part of the cluster is spiffe://meshctl.internal/ and then server, agent or cli, and an id";

/// Trust domain and path (which begins with a slash) of a SPIFFE ID.
fn split(text: &str) -> Result<(&str, &str), IdError> {
    if text.len() > MAX_ID {
        return Err(IdError::new(
            text,
            format!("{} bytes, more than the {MAX_ID} allowed", text.len()),
        ));
    }
    let rest = text
        .strip_prefix(SCHEME)
        .ok_or_else(|| IdError::new(text, "it does not begin with spiffe://"))?;
    let (domain, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    check_trust_domain(domain).map_err(|reason| IdError::new(text, reason))?;
    Ok((domain, path))
}

/// The path's segments when there are exactly `N`.
fn segments<const N: usize>(path: &str) -> Option<[&str; N]> {
    let mut found = path.strip_prefix('/')?.split('/');
    let mut out = [""; N];
    for slot in &mut out {
        *slot = found.next()?;
    }
    found.next().is_none().then_some(out)
}

fn check_trust_domain(domain: &str) -> Result<(), String> {
    if domain.is_empty() {
        return Err("the trust domain is empty".into());
    }
    if domain.len() > MAX_TRUST_DOMAIN {
        return Err(format!(
            "the trust domain has {} bytes, more than the {MAX_TRUST_DOMAIN} allowed",
            domain.len()
        ));
    }
    // Refuses port (:), user (@), query and fragment together with all else.
    match domain
        .chars()
        .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_'))
    {
        Some(bad) => Err(format!(
            "the trust domain has {bad:?}; allowed are a-z, 0-9, '.', '-' and '_'"
        )),
        None => Ok(()),
    }
}

fn check_segment(segment: &str) -> Result<(), String> {
    if segment.is_empty() {
        return Err("a part of the path is empty".into());
    }
    if segment == "." || segment == ".." {
        return Err("a part of the path is '.' or '..'".into());
    }
    match segment
        .chars()
        .find(|c| !matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_'))
    {
        Some(bad) => Err(format!(
            "{segment:?} has {bad:?}; allowed are letters, digits, '.', '-' and '_'"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_service_has_its_four_parts() {
        let id: SpiffeId = "spiffe://a1b2.mesh/ns/default/dc/dc1/svc/user-service"
            .parse()
            .unwrap();
        assert_eq!(id.trust_domain(), "a1b2.mesh");
        assert_eq!(id.namespace(), "default");
        assert_eq!(id.dc(), "dc1");
        assert_eq!(id.service(), "user-service");
        let made = SpiffeId::new(
            &"a1b2.mesh".parse().unwrap(),
            "default",
            "dc1",
            "user-service",
        );
        assert_eq!(made.unwrap(), id);
    }

    #[test]
    fn what_the_standard_forbids_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "does not begin"),
            ("https://a.mesh/ns/a/dc/b/svc/c", "does not begin"),
            ("SPIFFE://a.mesh/ns/a/dc/b/svc/c", "does not begin"),
            ("spiffe:///ns/a/dc/b/svc/c", "trust domain is empty"),
            ("spiffe://A.mesh/ns/a/dc/b/svc/c", "has 'A'"),
            ("spiffe://a.mesh:8443/ns/a/dc/b/svc/c", "has ':'"),
            ("spiffe://u@a.mesh/ns/a/dc/b/svc/c", "has '@'"),
            ("spiffe://a.mesh?x/ns/a/dc/b/svc/c", "has '?'"),
            ("spiffe://a.mesh", "a service is"),
            ("spiffe://a.mesh/", "a service is"),
            ("spiffe://a.mesh/ns/a/dc/b/svc/c/", "a service is"),
            ("spiffe://a.mesh/ns/a/dc/b/svc", "a service is"),
            ("spiffe://a.mesh/ns/a/dc/b/app/c", "a service is"),
            ("spiffe://a.mesh/ns//dc/b/svc/c", "is empty"),
            ("spiffe://a.mesh/ns/a/dc/../svc/c", "'.' or '..'"),
            ("spiffe://a.mesh/ns/a/dc/b/svc/c?q=1", "has '?'"),
            ("spiffe://a.mesh/ns/a/dc/b/svc/c#f", "has '#'"),
            ("spiffe://a.mesh/ns/a/dc/b/svc/%63", "has '%'"),
            ("spiffe://a.mesh/ns/a/dc/b/svc/ç", "has 'ç'"),
            ("spiffe://meshctl.internal/ns/a/dc/b/svc/c", "not a service"),
        ] {
            let error = text.parse::<SpiffeId>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let long = format!("spiffe://a.mesh/ns/a/dc/b/svc/{}", "x".repeat(2048));
        let error = long.parse::<SpiffeId>().unwrap_err().to_string();
        assert!(error.contains("more than the 2048"), "{error}");
        assert!(error.len() < 400, "{error}");
    }

    #[test]
    fn a_cluster_id_is_no_service_and_the_other_way() {
        let id: ClusterId = "spiffe://meshctl.internal/server/s1".parse().unwrap();
        assert_eq!((id.role(), id.id()), (Role::Server, "s1"));
        assert_eq!(id.to_string(), "spiffe://meshctl.internal/server/s1");
        for text in [
            "spiffe://a.mesh/server/s1",
            "spiffe://meshctl.internal/root/s1",
            "spiffe://meshctl.internal/server",
            "spiffe://meshctl.internal/server/",
            "spiffe://meshctl.internal/server/s1/x",
        ] {
            assert!(text.parse::<ClusterId>().is_err(), "{text}");
        }
        assert!("meshctl.internal".parse::<TrustDomain>().is_err());
    }

    proptest! {
        #[test]
        fn what_parses_prints_as_it_was(text in "(spiffe://)?[a-z.A:]{0,5}/ns/[a-b/.]{0,4}/dc/x/svc/[a-z%]{1,3}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.to_string(), text);
                let domain: TrustDomain = id.trust_domain().parse().unwrap();
                let again = SpiffeId::new(&domain, id.namespace(), id.dc(), id.service());
                prop_assert_eq!(again.unwrap(), id);
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = text.parse::<SpiffeId>();
            let _ = text.parse::<ClusterId>();
            let _ = text.parse::<TrustDomain>();
        }
    }
}
