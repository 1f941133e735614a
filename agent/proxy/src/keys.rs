//! The proxy's key, and the one that takes its place when its leaf is revoked.
//!
//! Until there is a leaf for the next key the proxy proves itself by the one in
//! use: that is the one which the agent knows.

use std::sync::{Mutex, MutexGuard, PoisonError};

use mesh_tls::LeafKey;
use mesh_tls::csr::CsrError;

/// See the module. Made in this process, and never out of its memory.
pub(crate) struct Keys(Mutex<Inner>);

struct Inner {
    in_use: LeafKey,
    next: Option<LeafKey>,
}

impl Keys {
    pub(crate) fn new(key: LeafKey) -> Self {
        Self(Mutex::new(Inner {
            in_use: key,
            next: None,
        }))
    }

    /// The key by which the proxy proves itself.
    pub(crate) fn in_use(&self) -> LeafKey {
        self.inner().in_use.clone()
    }

    /// The key for which a leaf is asked.
    pub(crate) fn wanted(&self) -> LeafKey {
        let inner = self.inner();
        inner.next.as_ref().unwrap_or(&inner.in_use).clone()
    }

    /// Whether another key is to take the place of the one in use.
    pub(crate) fn is_renewed(&self) -> bool {
        self.inner().next.is_some()
    }

    /// Another key is to take the place of the one in use; one that is to do so
    /// already stays.
    pub(crate) fn renew(&self) -> Result<(), CsrError> {
        let mut inner = self.inner();
        if inner.next.is_none() {
            inner.next = Some(LeafKey::generate()?);
        }
        Ok(())
    }

    /// There is a leaf for the key that was wanted.
    pub(crate) fn settle(&self) {
        let mut inner = self.inner();
        if let Some(next) = inner.next.take() {
            inner.in_use = next;
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing is left half done under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
