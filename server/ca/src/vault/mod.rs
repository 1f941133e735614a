//! HashiCorp Vault (and what speaks as it does, such as OpenBao) as the mesh's CA.
//!
//! The root is at one mount of Vault's PKI engine, and never leaves it. Below it is an
//! intermediate of ours, of one of two kinds ([`LeafSigning`](crate::LeafSigning)): its key is in
//! Vault too, which then signs every leaf ([`VaultLeaves`]); or its key was made by a server, is
//! sealed in the state, and the servers sign ([`BuiltIn`](crate::BuiltIn)), so that Vault is
//! needed once a year and not once a leaf.
//!
//! Each server has a [`Vault`] of its own: an address, and a way to log in. What it has of
//! secrets is in memory only, or in files that the operator gives it. What of the CA is replicated
//! ([`CaState`](crate::CaState)) says nothing of how Vault is reached.
//!
//! Vault may be sealed, away, slow, or forget our token: nothing here is fatal. [`Vault::keep`]
//! asks how it does, logs in again, and [`Vault::health`] tells.
//!
//! Making and renewing ([`create_in_vault`], [`renew_in_vault`]) are the leader's. When a leader
//! ends between Vault's answer and its own commit, Vault keeps an intermediate that nobody uses.

mod connection;
mod cross;
mod health;
pub(crate) mod judge;
mod leaves;
mod login;
mod make;
mod policy;
mod transit;
mod words;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use vaultrs::client::VaultClient;
use vaultrs::error::ClientError;

pub use health::{VaultFailures, VaultHealth, VaultState};
pub use leaves::VaultLeaves;
pub use make::{create_in_vault, renew_in_vault};
pub use policy::{transit_policy, vault_policy};

use crate::authority::AuthorityError;
use connection::Connection;
use login::Logins;
use words::Trouble;
pub(crate) use words::line;

/// How long Vault may take for an answer.
const ANSWER: Duration = Duration::from_secs(8);
/// Between two questions how it does, when it does well.
const LOOK: Duration = Duration::from_secs(10);
/// The same when it does not.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How a server reaches Vault. Nothing of it is replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultOptions {
    /// `https://vault.internal:8200`.
    pub address: String,
    /// The namespace of Vault Enterprise or OpenBao.
    pub namespace: Option<String>,
    /// CA certificates for `https`, PEM; no others count then.
    pub ca_file: Option<PathBuf>,
    /// The name that its certificate must have, where the address has another.
    pub server_name: Option<String>,
    /// A client certificate and its key, PEM, where Vault asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// How it logs in.
    pub auth: VaultAuth,
}

/// How a server logs in to Vault. Secrets are read from files, each time anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VaultAuth {
    /// A token, from a file, or else from `VAULT_TOKEN` in the environment.
    Token {
        /// The file; read again whenever it changes.
        file: Option<PathBuf>,
    },
    /// AppRole.
    AppRole {
        /// Where it is mounted.
        mount: String,
        /// The role's id; no secret.
        role_id: String,
        /// A file with the secret id.
        secret_id_file: PathBuf,
    },
    /// A JWT, such as Nomad's workload identity.
    Jwt {
        /// Where it is mounted.
        mount: String,
        /// The role; none: the mount's default.
        role: Option<String>,
        /// A file with the JWT.
        file: PathBuf,
    },
}

/// Vault, as one server reaches it.
pub struct Vault {
    connection: Connection,
    logins: Logins,
    health: Mutex<VaultHealth>,
    /// Something went wrong: look now how it does.
    wake: Notify,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("address", &self.connection.address())
            .finish_non_exhaustive()
    }
}

impl Vault {
    /// Nothing is asked yet; see [`Self::keep`].
    ///
    /// # Errors
    /// When a certificate file cannot be read, or the address is none.
    pub fn new(options: VaultOptions) -> Result<Self, String> {
        let connection = Connection::new(&options)?;
        Ok(Self {
            health: Mutex::new(VaultHealth::unknown(connection.address())),
            logins: Logins::new(options.auth),
            connection,
            wake: Notify::new(),
        })
    }

    /// How it does, as last seen.
    pub fn health(&self) -> VaultHealth {
        let mut health = self.lock().clone();
        health.token_seconds = self.logins.seconds_left();
        health
    }

    /// Stays logged in, and looks how Vault does. For as long as it is polled.
    pub async fn keep(&self) {
        loop {
            let next = self.look().await;
            tokio::select! {
                () = tokio::time::sleep(next) => {}
                () = self.wake.notified() => {
                    // Whoever fails wakes us; they fail by the hundred.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    /// One look; how long until the next.
    async fn look(&self) -> Duration {
        let mut found = self.connection.ask_health().await;
        if found.0 == VaultState::Ok
            && let Err(trouble) = self.logins.keep(&self.connection).await
        {
            found = match trouble {
                Trouble::Unavailable(reason) | Trouble::Limited(reason) => {
                    (VaultState::Down, Some(reason))
                }
                Trouble::Denied(reason) => (VaultState::Denied, Some(reason)),
            };
        }
        let well = found.0 == VaultState::Ok;
        self.tell(found);
        match well {
            true => LOOK.min(self.logins.renews_in()),
            false => LOOK_AGAIN,
        }
    }

    fn tell(&self, (state, reason): (VaultState, Option<String>)) {
        let mut health = self.lock();
        let before = health.state;
        if before != state || health.reason != reason {
            let address = &health.address;
            match (&reason, state) {
                (_, VaultState::Ok) => tracing::info!(%address, "Vault does well"),
                (reason, _) => tracing::warn!(
                    %address, state = state.as_str(),
                    reason = reason.as_deref().unwrap_or_default(),
                    "Vault cannot be used; what needs it waits"
                ),
            }
        }
        health.saw(state, reason);
    }

    /// Asks Vault something, logged in. `what` is what is asked, for errors. Where the token is no
    /// longer good, logs in again and asks once more.
    pub(crate) async fn ask<T, F>(
        &self,
        what: &str,
        ask: impl Fn(Arc<VaultClient>) -> F,
    ) -> Result<T, AuthorityError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let result = self.ask_once(what, ask).await;
        match &result {
            Ok(_) => {}
            Err(Trouble::Unavailable(_)) => {
                self.lock().failures.unavailable += 1;
                self.wake.notify_one();
            }
            Err(Trouble::Limited(_)) => self.lock().failures.limited += 1,
            Err(Trouble::Denied(_)) => {
                self.lock().failures.denied += 1;
                self.wake.notify_one();
            }
        }
        result.map_err(Trouble::into)
    }

    async fn ask_once<T, F>(
        &self,
        what: &str,
        ask: impl Fn(Arc<VaultClient>) -> F,
    ) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        // Whoever waits for a Vault that is away keeps others waiting.
        if let Some(reason) = self.lock().away() {
            return Err(Trouble::Unavailable(reason));
        }
        let login = self.logins.current(&self.connection).await?;
        let begin = Instant::now();
        let error = match ask(login.client.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if !words::is_forbidden(&error) || login.is_good().await? {
            return Err(words::trouble(what, &error, begin.elapsed()));
        }
        let login = self.logins.after(&login, &self.connection).await?;
        let again = ask(login.client.clone()).await;
        again.map_err(|error| words::trouble(what, &error, begin.elapsed()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VaultHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
