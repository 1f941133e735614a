//! What a service's name means when no namespace is written with it.

use std::sync::{Arc, PoisonError, RwLock};

use mesh_model::{DEFAULT_NAMESPACE, Key, NameError};

/// The provider's namespace, as its block says.
#[derive(Clone, Debug)]
pub(crate) struct Names(Arc<RwLock<String>>);

impl Default for Names {
    fn default() -> Self {
        Self(Arc::new(RwLock::new(DEFAULT_NAMESPACE.to_owned())))
    }
}

impl Names {
    /// From now on that namespace is meant.
    pub(crate) fn set(&self, namespace: &str) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = namespace.to_owned();
    }

    /// The namespace that is meant.
    pub(crate) fn namespace(&self) -> String {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reads `name`, `*`, `namespace/name`, `namespace/*` or `*/*`.
    pub(crate) fn key(&self, text: &str) -> Result<Key, NameError> {
        match text.contains('/') {
            true => text.parse(),
            false => format!("{}/{text}", self.namespace()).parse(),
        }
    }

    /// As it is written: without the namespace where it is the one that is meant.
    pub(crate) fn written(&self, key: &Key) -> String {
        match key.namespace == self.namespace() {
            true => key.name.clone(),
            false => format!("{}/{}", key.namespace, key.name),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_is_of_the_providers_namespace() {
        let names = Names::default();
        assert_eq!(names.key("web").unwrap(), Key::of("web"));
        names.set("team");
        assert_eq!(names.key("web").unwrap(), Key::new("team", "web"));
        assert_eq!(names.key("*").unwrap(), Key::new("team", "*"));
        assert_eq!(names.key("default/web").unwrap(), Key::of("web"));
        for text in ["web", "*", "default/web", "*/*"] {
            assert_eq!(names.written(&names.key(text).unwrap()), text);
        }
    }
}
