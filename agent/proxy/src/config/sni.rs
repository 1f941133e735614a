//! The names in a TLS hello that mean this service.

use mesh_model::Key;
use mesh_tls::SpiffeId;

/// `<service>.<namespace>.<dc>.internal.<trust domain>`, and the same with a
/// subset before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnName(String);

impl OwnName {
    pub(crate) fn new(service: &Key, identity: &SpiffeId) -> Self {
        Self(format!(
            "{}.{}.{}.internal.{}",
            service.name,
            service.namespace,
            identity.dc(),
            identity.trust_domain()
        ))
    }

    /// Whether a caller that asks for `name` means this service. Which subset
    /// it asks for does not matter: it chose this instance by it.
    pub(crate) fn is(&self, name: &str) -> bool {
        if name.eq_ignore_ascii_case(&self.0) {
            return true;
        }
        name.split_once('.')
            .is_some_and(|(subset, rest)| !subset.is_empty() && rest.eq_ignore_ascii_case(&self.0))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn own_names() {
        let identity = "spiffe://a.mesh/ns/default/dc/dc1/svc/web".parse().unwrap();
        let own = OwnName::new(&Key::of("web"), &identity);
        assert!(own.is("web.default.dc1.internal.a.mesh"));
        assert!(own.is("v1.web.default.dc1.internal.a.mesh"));
        assert!(own.is("V1.Web.default.dc1.internal.a.mesh"));
        for other in [
            "",
            "web",
            ".web.default.dc1.internal.a.mesh",
            "a.b.web.default.dc1.internal.a.mesh",
            "web.default.dc2.internal.a.mesh",
            "web.default.dc1.internal.b.mesh",
            "xweb.default.dc1.internal.a.mesh",
        ] {
            assert!(!own.is(other), "{other}");
        }
    }
}
