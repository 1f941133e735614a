//! The sealing keys that a server has, and the one that the CA's keys are sealed with.
//!
//! Which one that is stands in the state ([`CaState::sealing`](crate::CaState)): all envelopes of
//! a CA have the same. It is a file's, which is there when the server starts; or a data key that
//! stands in the state itself, wrapped by a key of Vault's transit engine that never leaves Vault.
//! The latter is unwrapped once and then kept in memory, so that signing goes on while Vault is
//! away.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::CaError;
use crate::seal::{SealError, SealingKey};
use crate::state::CaState;
use crate::vault::Vault;

/// What keys of a CA are sealed with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedWith {
    /// The key: see [`SealingKey::id`].
    pub id: String,
    /// The key itself, wrapped by Vault. None: it is in a file of each server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transit: Option<Wrapped>,
}

impl SealedWith {
    /// As it is written.
    #[must_use]
    pub fn by(&self) -> SealBy {
        match self.transit {
            Some(_) => SealBy::Transit,
            None => SealBy::File,
        }
    }
}

/// A data key that Vault's transit engine has encrypted. Worth nothing without Vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wrapped {
    /// Where the engine is mounted.
    pub mount: String,
    /// The key of the engine.
    pub key: String,
    /// As Vault wrote it, `vault:v1:…`.
    pub data_key: String,
}

/// What seals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SealBy {
    /// A key in a file of each server.
    #[default]
    File,
    /// A data key that Vault's transit engine wraps.
    Transit,
}

impl SealBy {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Transit => "transit",
        }
    }
}

/// A key of Vault's transit engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransitPlace {
    /// Where the engine is mounted.
    pub mount: String,
    /// The key's name.
    pub key: String,
}

/// What a server's configuration says of sealing.
#[derive(Clone, Debug, Default)]
pub struct SealingOptions {
    /// Keys from files. The first one seals; the others open only.
    pub files: Vec<Arc<SealingKey>>,
    /// The key in Vault that wraps data keys.
    pub transit: Option<TransitPlace>,
    /// What seals the keys of a new CA.
    pub by: SealBy,
}

/// See the module.
pub struct Keyring {
    options: SealingOptions,
    vault: Option<Arc<Vault>>,
    /// Data keys that Vault has unwrapped.
    opened: Mutex<Vec<Arc<SealingKey>>>,
    /// Why the last one could not be.
    trouble: Mutex<Option<String>>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Keyring {
    /// Of a configuration. Nothing is asked yet.
    #[must_use]
    pub fn new(options: SealingOptions, vault: Option<Arc<Vault>>) -> Self {
        Self {
            options,
            vault,
            opened: Mutex::default(),
            trouble: Mutex::default(),
        }
    }

    /// What seals the keys of a new CA.
    #[must_use]
    pub fn by(&self) -> SealBy {
        self.options.by
    }

    /// How many keys of Vault's are open: it grows when something can be opened that could not be.
    #[must_use]
    pub fn opened(&self) -> usize {
        self.lock().len()
    }

    /// The key that a CA's keys are sealed with, where it is here.
    ///
    /// # Errors
    /// When it is not, and what to do; both ids are named.
    pub fn of(&self, state: &CaState) -> Result<Arc<SealingKey>, SealError> {
        self.held(&state.sealing)
    }

    /// A key, where it is here. Vault is not asked.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn held(&self, with: &SealedWith) -> Result<Arc<SealingKey>, SealError> {
        let opened = self.lock().clone();
        let mut all = self.options.files.iter().chain(&opened);
        if let Some(key) = all.find(|key| key.id() == with.id) {
            return Ok(key.clone());
        }
        match &with.transit {
            Some(wrapped) => {
                let trouble = self.trouble.lock();
                let trouble = trouble.unwrap_or_else(PoisonError::into_inner).clone();
                Err(SealError::Closed {
                    place: format!("{}/{}", wrapped.mount, wrapped.key),
                    reason: trouble.unwrap_or_else(|| "it was not asked yet".to_owned()),
                })
            }
            None => {
                let have: Vec<&str> = self.options.files.iter().map(|key| key.id()).collect();
                Err(SealError::WrongKey {
                    what: "the CA".to_owned(),
                    needed: with.id.chars().take(64).collect(),
                    have: match have.is_empty() {
                        true => "none".to_owned(),
                        false => have.join(", "),
                    },
                })
            }
        }
    }

    /// A key; Vault is asked for it where it is not here.
    ///
    /// # Errors
    /// When it cannot be had, and what to do; or in Vault's words.
    pub async fn open(&self, with: &SealedWith) -> Result<Arc<SealingKey>, CaError> {
        let missing = match self.held(with) {
            Ok(key) => return Ok(key),
            Err(error) => error,
        };
        let Some(wrapped) = &with.transit else {
            return Err(missing.into());
        };
        let opened = async {
            let vault = self.vault.as_ref().ok_or_else(no_vault)?;
            vault.unwrap_key(wrapped, &with.id).await
        };
        let opened = opened.await;
        let told = opened.as_ref().err().map(ToString::to_string);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = told;
        let key = Arc::new(opened?);
        self.hold(key.clone());
        Ok(key)
    }

    /// Keeps a key that Vault has opened.
    pub fn hold(&self, key: Arc<SealingKey>) {
        let mut all = self.lock();
        if key.sealed_with().transit.is_some() && !all.iter().any(|one| one.id() == key.id()) {
            all.push(key);
        }
    }

    /// The key that seals from now on: the first file's, or a new one that Vault wraps.
    ///
    /// # Errors
    /// When this server's configuration does not say where it is, or Vault does not do its part.
    pub async fn fresh(&self, by: SealBy) -> Result<Arc<SealingKey>, CaError> {
        match by {
            SealBy::File => self.options.files.first().cloned().ok_or_else(|| {
                let reason = "this server has no sealing_key_file; give each server the same one";
                CaError::state("sealing", reason)
            }),
            SealBy::Transit => {
                let place = self.options.transit.as_ref().ok_or_else(|| {
                    let reason = "this server's configuration does not say where Vault's transit \
                                  engine is; give each server `sealing { transit { key = … } }`";
                    CaError::state("sealing", reason)
                })?;
                let vault = self.vault.as_ref().ok_or_else(no_vault)?;
                Ok(Arc::new(vault.new_wrapped_key(place).await?))
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<SealingKey>>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_vault() -> CaError {
    let reason = "the key that opens the CA's keys is Vault's, and this server's configuration does \
                  not say how Vault is reached; give it `ca { vault { address = …, auth … } }` and \
                  start it again";
    CaError::state("sealing", reason)
}

/// The CA with every private key in an envelope of another key.
///
/// # Errors
/// When one does not open with the old key.
pub fn reseal(state: &CaState, old: &SealingKey, new: &SealingKey) -> Result<CaState, CaError> {
    use crate::builtin::{INTERMEDIATE_KEY, ROOT_KEY};
    use crate::seal::Sealed;
    let again = |purpose: &str, name: &str, sealed: &mut Option<Sealed>| {
        if let Some(envelope) = sealed {
            *sealed = Some(new.seal(purpose, name, &old.open(purpose, name, envelope)?)?);
        }
        Ok::<(), CaError>(())
    };
    let mut next = state.clone();
    let root = state.active_root().map_or("", |root| root.id.as_str());
    again(ROOT_KEY, root, &mut next.root_key)?;
    if let Some(one) = &mut next.intermediate {
        again(INTERMEDIATE_KEY, &one.id, &mut one.key)?;
    }
    if let Some(rotation) = &mut next.rotation {
        again(ROOT_KEY, &rotation.to, &mut rotation.root_key)?;
        let one = &mut rotation.intermediate;
        again(INTERMEDIATE_KEY, &one.id, &mut one.key)?;
    }
    next.sealing = new.sealed_with();
    Ok(next)
}
