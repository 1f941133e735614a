//! Being logged in: a token that is renewed, and a new one where that is of no use any more.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use vaultrs::api::AuthInfo;
use vaultrs::client::VaultClient;
use zeroize::Zeroizing;

use super::VaultAuth;
use super::connection::{Connection, header, read};
use super::words::{self, Trouble};

/// Where a token comes from without a file.
const VARIABLE: &str = "VAULT_TOKEN";
/// Between two attempts to log in, at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Renewals are not nearer to each other than this.
const RENEWAL: Duration = Duration::from_secs(1);
/// A token that can be asked about is asked about this often, though it need not be renewed: it
/// may have been revoked.
const CHECK: Duration = Duration::from_secs(30);

/// A token that was good when we got it.
pub(super) struct Login {
    pub(super) client: Arc<VaultClient>,
    /// Of a token that was given to us: what it was read from said.
    given: Option<Zeroizing<String>>,
    life: Mutex<Life>,
}

/// How long a token lives.
#[derive(Clone, Copy, Debug)]
struct Life {
    /// When it was got, renewed, or asked about.
    since: Instant,
    /// How long from then; `None`: for ever.
    ttl: Option<Duration>,
    /// How long when it was new: what a renewal should give again.
    whole: Option<Duration>,
    renewable: bool,
}

impl Life {
    fn new(seconds: u64, renewable: bool) -> Self {
        let ttl = (seconds > 0).then(|| Duration::from_secs(seconds));
        Self {
            since: Instant::now(),
            ttl,
            whole: ttl,
            renewable,
        }
    }

    fn left(&self) -> Option<Duration> {
        self.ttl.map(|ttl| ttl.saturating_sub(self.since.elapsed()))
    }

    /// How long until it should be renewed or replaced: half its life.
    fn until_half(&self) -> Duration {
        let half = match self.ttl {
            Some(ttl) => (ttl / 2).max(RENEWAL),
            None => CHECK,
        };
        half.saturating_sub(self.since.elapsed())
    }
}

impl Login {
    fn life(&self) -> Life {
        *self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lives(&self, life: Life) {
        *self.life.lock().unwrap_or_else(PoisonError::into_inner) = life;
    }

    /// Whether Vault still knows this token.
    pub(super) async fn is_good(&self) -> Result<bool, Trouble> {
        let begin = Instant::now();
        match vaultrs::token::lookup_self(&*self.client).await {
            Ok(_) => Ok(true),
            Err(error) if words::is_forbidden(&error) => Ok(false),
            Err(error) => {
                let what = "GET auth/token/lookup-self";
                Err(words::trouble(what, &error, begin.elapsed()))
            }
        }
    }
}

/// The login of a server, one at a time.
pub(super) struct Logins {
    auth: VaultAuth,
    current: Mutex<Option<Arc<Login>>>,
    /// Held by who logs in. What went wrong the last time, when, and how long to wait then.
    attempt: tokio::sync::Mutex<Option<(Trouble, Instant, Duration)>>,
}

impl Logins {
    pub(super) fn new(auth: VaultAuth) -> Self {
        Self {
            auth,
            current: Mutex::default(),
            attempt: tokio::sync::Mutex::default(),
        }
    }

    fn held(&self) -> Option<Arc<Login>> {
        let current = self.current.lock();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hold(&self, login: Option<Arc<Login>>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = login;
    }

    pub(super) fn seconds_left(&self) -> Option<u64> {
        Some(self.held()?.life().left()?.as_secs())
    }

    /// How long until [`Self::keep`] has something to do.
    pub(super) fn renews_in(&self) -> Duration {
        let login = self.held();
        let half = login.map_or(Duration::ZERO, |login| login.life().until_half());
        half.max(RENEWAL / 4)
    }

    /// The login; makes one where there is none.
    pub(super) async fn current(&self, connection: &Connection) -> Result<Arc<Login>, Trouble> {
        match self.held() {
            Some(login) => Ok(login),
            None => self.log_in(None, connection).await,
        }
    }

    /// The login that follows one whose token is no longer good.
    pub(super) async fn after(
        &self,
        old: &Arc<Login>,
        connection: &Connection,
    ) -> Result<Arc<Login>, Trouble> {
        self.log_in(Some(old), connection).await
    }

    async fn log_in(
        &self,
        old: Option<&Arc<Login>>,
        connection: &Connection,
    ) -> Result<Arc<Login>, Trouble> {
        let mut attempt = self.attempt.lock().await;
        // Another was faster.
        if let Some(held) = self.held()
            && old.is_none_or(|old| !Arc::ptr_eq(old, &held))
        {
            return Ok(held);
        }
        let mut pause = PAUSE.0;
        if let Some((trouble, at, wait)) = &*attempt {
            if at.elapsed() < *wait {
                return Err(trouble.clone());
            }
            pause = (*wait * 2).min(PAUSE.1);
        }
        match self.make(connection).await {
            Ok(login) => {
                let login = Arc::new(login);
                let ttl = login.life().ttl;
                tracing::info!(method = self.auth.name(), ?ttl, "logged in to Vault");
                self.hold(Some(login.clone()));
                *attempt = None;
                Ok(login)
            }
            Err(trouble) => {
                // A token that Vault does not know is of no use any more.
                if old.is_some() {
                    self.hold(None);
                }
                *attempt = Some((trouble.clone(), Instant::now(), pause));
                Err(trouble)
            }
        }
    }

    /// Renews the token, or logs in again, where it is time.
    pub(super) async fn keep(&self, connection: &Connection) -> Result<(), Trouble> {
        let login = self.current(connection).await?;
        if let VaultAuth::Token { file } = &self.auth
            && let Ok(now) = given(file.as_deref())
            && login.given.as_ref().is_some_and(|before| *before != now)
        {
            tracing::info!("the token for Vault is another one now");
            return self.after(&login, connection).await.map(drop);
        }
        let life = login.life();
        if !life.until_half().is_zero() {
            return Ok(());
        }
        match (life.ttl, life.renewable) {
            (None, _) => return self.check(&login, connection).await,
            (Some(_), false) if login.given.is_some() => {
                let left = life.left().unwrap_or_default();
                tracing::warn!(?left, "the token for Vault ends, and cannot be renewed");
                return self.check(&login, connection).await;
            }
            (Some(_), false) => return self.after(&login, connection).await.map(drop),
            (Some(_), true) => {}
        }
        let begin = Instant::now();
        match vaultrs::token::renew_self(&*login.client, None).await {
            Ok(renewed) => {
                let mut next = Life::new(renewed.lease_duration, renewed.renewable);
                next.whole = life.whole;
                login.lives(next);
                let half = next.whole.map(|whole| whole / 2);
                let short = next.ttl < half;
                tracing::debug!(ttl = ?next.ttl, "the token for Vault was renewed");
                match short && login.given.is_none() {
                    // It nears its greatest age: a new one lives longer.
                    true => self.after(&login, connection).await.map(drop),
                    false => Ok(()),
                }
            }
            Err(error) => {
                let what = "POST auth/token/renew-self";
                let trouble = words::trouble(what, &error, begin.elapsed());
                match trouble {
                    Trouble::Denied(reason) => {
                        tracing::info!(%reason, "the token for Vault cannot be renewed");
                        self.after(&login, connection).await.map(drop)
                    }
                    other => Err(other),
                }
            }
        }
    }

    /// Asks whether a token that is not renewed is still known.
    async fn check(&self, login: &Arc<Login>, connection: &Connection) -> Result<(), Trouble> {
        if login.is_good().await? {
            let mut life = login.life();
            life.ttl = life.left();
            life.since = Instant::now();
            login.lives(life);
            return Ok(());
        }
        self.after(login, connection).await.map(drop)
    }

    async fn make(&self, connection: &Connection) -> Result<Login, Trouble> {
        let begin = Instant::now();
        let nobody = connection.client("");
        let (what, answer) = match &self.auth {
            VaultAuth::Token { file } => {
                return self.with_token(file.as_deref(), connection).await;
            }
            VaultAuth::AppRole {
                mount,
                role_id,
                secret_id_file,
            } => {
                let secret = secret("secret_id_file", secret_id_file)?;
                let answer = vaultrs::auth::approle::login(&*nobody, mount, role_id, &secret).await;
                (format!("login by AppRole at auth/{mount}"), answer)
            }
            VaultAuth::Jwt { mount, role, file } => {
                let jwt = secret("jwt_file", file)?;
                let answer = vaultrs::auth::oidc::login(&*nobody, mount, &jwt, role.clone()).await;
                (format!("login by JWT at auth/{mount}"), answer)
            }
        };
        let info: AuthInfo =
            answer.map_err(|error| words::trouble(&what, &error, begin.elapsed()))?;
        let token = Zeroizing::new(info.client_token);
        if !header(&token) {
            return Err(Trouble::Unavailable(format!(
                "{what}: answers with no token"
            )));
        }
        Ok(Login {
            client: connection.client(&token),
            given: None,
            life: Mutex::new(Life::new(info.lease_duration, info.renewable)),
        })
    }

    async fn with_token(
        &self,
        file: Option<&Path>,
        connection: &Connection,
    ) -> Result<Login, Trouble> {
        let token = given(file).map_err(Trouble::Denied)?;
        let from = match file {
            Some(file) => file.display().to_string(),
            None => VARIABLE.to_owned(),
        };
        let client = connection.client(&token);
        let begin = Instant::now();
        let looked = vaultrs::token::lookup_self(&*client).await;
        let life = match looked {
            Ok(looked) => Life::new(looked.ttl, looked.renewable.unwrap_or(false)),
            Err(error) => {
                let what = format!("the token of {from}: GET auth/token/lookup-self");
                return Err(words::trouble(&what, &error, begin.elapsed()));
            }
        };
        Ok(Login {
            client,
            given: Some(token),
            life: Mutex::new(life),
        })
    }
}

impl VaultAuth {
    fn name(&self) -> &'static str {
        match self {
            Self::Token { .. } => "token",
            Self::AppRole { .. } => "approle",
            Self::Jwt { .. } => "jwt",
        }
    }
}

/// The token that was given to us, as it is now.
fn given(file: Option<&Path>) -> Result<Zeroizing<String>, String> {
    let (from, text) = match file {
        Some(file) => (format!("token_file {}", file.display()), text(file)?),
        None => {
            let text = std::env::var(VARIABLE).unwrap_or_default();
            (VARIABLE.to_owned(), Zeroizing::new(text))
        }
    };
    let token = Zeroizing::new(text.trim().to_owned());
    match header(&token) {
        true => Ok(token),
        false if token.is_empty() => Err(format!("{from}: is empty; a token must stand there")),
        false => Err(format!(
            "{from}: is not a token: it has blanks or is too long"
        )),
    }
}

/// A secret that stands in a file; `key` is what names the file.
fn secret(key: &str, file: &Path) -> Result<Zeroizing<String>, Trouble> {
    let text = text(file).map_err(|error| Trouble::Denied(format!("{key} {error}")))?;
    let secret = Zeroizing::new(text.trim().to_owned());
    match header(&secret) {
        true => Ok(secret),
        false => Err(Trouble::Denied(format!(
            "{key} {}: does not hold one word",
            file.display()
        ))),
    }
}

fn text(file: &Path) -> Result<Zeroizing<String>, String> {
    let bytes = Zeroizing::new(read(file)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("{}: is not text", file.display()));
    text.map(|text| Zeroizing::new(text.to_owned()))
}
