//! Tokens of workloads: signed by this agent, and live until they are logged out.
//!
//! Nomad logs in once and never again, so a token must outlive the JWT that it was given for, and
//! this agent's restarts. A token is the name of a login, signed with a key that only this agent
//! has; on disk stand the key and whom each live login was of, but no token.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::workload::{Sent, Workload};
use crate::{AgentError, disk};

/// The key, in bytes.
const KEY: usize = 32;
/// How a token of ours begins. A new form gets a new number.
const PREFIX: &str = "meshworkload1.";
/// The longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 4096;
/// Tokens that are live at once.
const MAX_LIVE: usize = 4096;
/// Of one workload: a Nomad client that restarts logs in again, and never ends the older one.
const MAX_OF_ONE: usize = 4;

/// Why a token could not be made or ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("{MAX_LIVE} workloads of this node have a token; that is all that are remembered")]
    TooMany,
    #[error("the system gives no randomness")]
    Randomness,
    #[error("{}: {reason}", path.display())]
    Disk { path: PathBuf, reason: String },
}

/// A live token. Its secret is not to be logged.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// Names it, and is no secret.
    pub(crate) accessor: String,
    /// The token itself.
    pub(crate) secret: String,
    pub(crate) workload: Workload,
    /// The auth method that was named at the login, for people.
    pub(crate) method: String,
    pub(crate) description: String,
    /// When it was given, as RFC 3339.
    pub(crate) created: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("accessor", &self.accessor)
            .field("workload", &self.workload)
            .finish_non_exhaustive()
    }
}

/// What is remembered of a live token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Live {
    workload: Workload,
    method: String,
    description: String,
    created: String,
    /// Later ones have higher numbers.
    number: u64,
}

/// The form on disk. Key and tokens are one file: neither is of use without the other.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Kept {
    key: String,
    #[serde(default)]
    live: BTreeMap<String, Live>,
}

/// The live tokens.
pub(crate) struct Tokens {
    path: PathBuf,
    key: hmac::Key,
    kept: Mutex<Kept>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// Reads what stands on disk; the first time it makes a key.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, AgentError> {
        let path = data_dir.join("tokens.json");
        let mut kept: Kept = disk::read(&path)?.unwrap_or_default();
        let mut key = URL_SAFE_NO_PAD.decode(&kept.key).unwrap_or_default();
        if key.len() != KEY {
            // Without the key that signed them, they are nobody's.
            kept = Kept::default();
            key = vec![0; KEY];
            aws_lc_rs::rand::fill(&mut key)
                .map_err(|_| AgentError::Option(TokenError::Randomness.to_string()))?;
            kept.key = URL_SAFE_NO_PAD.encode(&key);
            let bytes = serde_json::to_vec(&kept).map_err(|e| AgentError::Option(e.to_string()))?;
            disk::write(&path, &bytes).map_err(AgentError::disk(&path))?;
        }
        Ok(Self {
            path,
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            kept: Mutex::new(kept),
        })
    }

    /// Makes a token. Where there are too many, the oldest goes whose allocation has nothing
    /// registered here any more. Blocks.
    pub(super) fn create(
        &self,
        workload: Workload,
        method: String,
        description: String,
        now: SystemTime,
        is_here: impl Fn(&str) -> bool,
    ) -> Result<Token, TokenError> {
        let accessor = uuid::Uuid::new_v4().to_string();
        let mut kept = self.lock();
        let mut next = kept.clone();
        let of_it = |live: &Live| live.workload == workload;
        while next.live.values().filter(|live| of_it(live)).count() >= MAX_OF_ONE {
            next.forget_oldest(of_it);
        }
        if next.live.len() >= MAX_LIVE
            && !next.forget_oldest(|live| !is_here(&live.workload.allocation))
        {
            return Err(TokenError::TooMany);
        }
        let live = Live {
            workload,
            method,
            description,
            created: OffsetDateTime::from(now)
                .format(&Rfc3339)
                .unwrap_or_default(),
            number: next
                .live
                .values()
                .map(|live| live.number)
                .max()
                .unwrap_or(0)
                + 1,
        };
        next.live.insert(accessor.clone(), live.clone());
        self.write(&next)?;
        *kept = next;
        Ok(self.token(accessor, live))
    }

    /// What a token is.
    pub(super) fn judge(&self, token: &[u8]) -> Sent {
        let Some(accessor) = self.signed(token) else {
            return Sent::Foreign;
        };
        match self.lock().live.get(accessor) {
            Some(live) => Sent::Of(live.workload.clone()),
            None => Sent::Ended,
        }
    }

    /// A live token, and all that is known of it.
    pub(super) fn find(&self, token: &[u8]) -> Option<Token> {
        let accessor = self.signed(token)?;
        let live = self.lock().live.get(accessor).cloned()?;
        Some(self.token(accessor.to_owned(), live))
    }

    /// Ends a token; whether it was live. Blocks.
    pub(super) fn remove(&self, token: &[u8]) -> Result<bool, TokenError> {
        let Some(accessor) = self.signed(token) else {
            return Ok(false);
        };
        let mut kept = self.lock();
        let mut next = kept.clone();
        if next.live.remove(accessor).is_none() {
            return Ok(false);
        }
        self.write(&next)?;
        *kept = next;
        Ok(true)
    }

    /// The name of the login, of a token with our signature.
    fn signed<'a>(&self, token: &'a [u8]) -> Option<&'a str> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let text = std::str::from_utf8(token).ok()?;
        let (accessor, signature) = text.strip_prefix(PREFIX)?.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let said = format!("{PREFIX}{accessor}");
        hmac::verify(&self.key, said.as_bytes(), &signature).ok()?;
        Some(accessor)
    }

    fn token(&self, accessor: String, live: Live) -> Token {
        let said = format!("{PREFIX}{accessor}");
        let signature = hmac::sign(&self.key, said.as_bytes());
        Token {
            secret: format!("{said}.{}", URL_SAFE_NO_PAD.encode(signature)),
            accessor,
            workload: live.workload,
            method: live.method,
            description: live.description,
            created: live.created,
        }
    }

    fn write(&self, kept: &Kept) -> Result<(), TokenError> {
        let written = serde_json::to_vec(kept)
            .map_err(std::io::Error::from)
            .and_then(|bytes| disk::write(&self.path, &bytes));
        written.map_err(|error| TokenError::Disk {
            path: self.path.clone(),
            reason: error.to_string(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // What is changed is changed in one step, so a poisoned one is as good.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Forgets the oldest of those; whether there was one.
    fn forget_oldest(&mut self, of: impl Fn(&Live) -> bool) -> bool {
        let those = self.live.iter().filter(|(_, live)| of(live));
        let oldest = those.min_by_key(|(_, live)| live.number);
        let Some(oldest) = oldest.map(|(accessor, _)| accessor.clone()) else {
            return false;
        };
        self.live.remove(&oldest);
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn workload(number: usize) -> Workload {
        Workload {
            allocation: format!("alloc-{number}"),
            namespace: "default".into(),
            job: "job".into(),
            service: Some("web".into()),
            task: None,
        }
    }

    fn create(tokens: &Tokens, number: usize, is_here: bool) -> Result<Token, TokenError> {
        let method = "nomad-workloads".to_owned();
        let (now, said) = (SystemTime::UNIX_EPOCH, String::new());
        tokens.create(workload(number), method, said, now, move |_| is_here)
    }

    #[test]
    fn a_token_lives_until_it_is_logged_out_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let made = {
            let tokens = Tokens::open(folder.path()).unwrap();
            create(&tokens, 1, true).unwrap()
        };
        let tokens = Tokens::open(folder.path()).unwrap();
        let secret = made.secret.as_bytes();
        assert_eq!(tokens.judge(secret), Sent::Of(workload(1)));
        assert_eq!(tokens.find(secret), Some(made.clone()));
        let file = folder.path().join("tokens.json");
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(&file).unwrap();
        let signature = made.secret.rsplit('.').next().unwrap();
        assert!(!text.contains(signature), "a token stands on disk");

        assert_eq!(tokens.remove(secret), Ok(true));
        assert_eq!(tokens.remove(secret), Ok(false));
        assert_eq!(tokens.judge(secret), Sent::Ended);
        assert_eq!(tokens.find(secret), None);
        let tokens = Tokens::open(folder.path()).unwrap();
        assert_eq!(tokens.judge(secret), Sent::Ended);
    }

    #[test]
    fn what_another_signed_is_foreign() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (one, other) = (
            Tokens::open(one.path()).unwrap(),
            Tokens::open(other.path()).unwrap(),
        );
        let secret = create(&one, 1, true).unwrap().secret;
        assert_eq!(other.judge(secret.as_bytes()), Sent::Foreign);
        let second = create(&one, 2, true).unwrap();
        let forged = secret.replace(secret.split('.').nth(1).unwrap(), &second.accessor);
        for foreign in [
            "",
            "meshworkload1.",
            "meshworkload1.a.b",
            "00000000-0000-0000-0000-000000000000",
            &forged,
            &secret.replace("meshworkload1", "meshworkload2"),
            &secret[..secret.len() - 1],
            &"x".repeat(100_000),
        ] {
            assert_eq!(one.judge(foreign.as_bytes()), Sent::Foreign, "{foreign}");
        }
        assert_eq!(one.judge(b"meshworkload1.\xff.\xff"), Sent::Foreign);
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(folder.path()).unwrap();
        let first = create(&tokens, 0, true).unwrap();
        for _ in 0..MAX_OF_ONE {
            create(&tokens, 0, true).unwrap();
        }
        assert_eq!(tokens.lock().live.len(), MAX_OF_ONE);
        assert_eq!(tokens.judge(first.secret.as_bytes()), Sent::Ended);

        let mut kept = tokens.lock();
        let live = kept.live.values().next().unwrap().clone();
        for number in 0..MAX_LIVE - MAX_OF_ONE {
            let live = Live {
                workload: workload(number + 1),
                number: number as u64 + 100,
                ..live.clone()
            };
            kept.live.insert(format!("a{number}"), live);
        }
        drop(kept);
        assert_eq!(
            create(&tokens, MAX_LIVE + 1, true),
            Err(TokenError::TooMany)
        );
        create(&tokens, MAX_LIVE + 1, false).unwrap();
        assert_eq!(tokens.lock().live.len(), MAX_LIVE);
    }
}
