//! AWS Private CA as the mesh's CA.
//!
//! A CA in AWS, which the operator made and names by its ARN, signs an intermediate whose key a
//! server made and which is sealed in the state; the servers sign leaves with it
//! ([`BuiltIn`](crate::BuiltIn)). So AWS is needed once a year, and not once a leaf. It does not
//! sign each leaf, as Vault can: it signs 25 certificates a second in an account and charges for
//! each, takes two requests and a wait for one, and signs none for less than a day.
//!
//! Nothing is made or deleted in AWS: a CA there costs by the month, and is often an
//! organisation's. Credentials come by the SDK's own chain (environment, files, IMDS, ECS) and
//! never through our configuration. The region is the ARN's.
//!
//! The SDK is behind the cargo feature `aws`. A build without it knows the rows, signs with the
//! intermediate that there is, and says that it cannot make the next.

mod health;
mod make;
mod pca;
#[cfg(feature = "aws")]
mod sdk;

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

pub use health::{AwsFailures, AwsHealth, AwsState};
pub use make::{create_in_aws, renew_in_aws};

use crate::authority::AuthorityError;
use make::Issued;
use pca::{Pca, Trouble};

#[cfg(test)]
pub(crate) use pca::{Described, Wish};
#[cfg(test)]
pub(crate) mod scripted {
    pub(crate) use super::pca::{Pca, Trouble};
}

/// Between two questions how it does, when it does well.
const LOOK: Duration = Duration::from_secs(30);
/// The same when it does not.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// Between two looks whether there is something to ask about.
const IDLE: Duration = Duration::from_secs(1);

/// How a server reaches AWS. Nothing of it is replicated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AwsOptions {
    /// In place of the region's own endpoint: a VPC's, or a test's.
    pub endpoint: Option<String>,
}

/// AWS Private CA, as one server reaches it.
pub struct AwsPca {
    /// `None`: this build is without it.
    pca: Option<Box<dyn Pca>>,
    health: Mutex<Option<AwsHealth>>,
    /// What was asked for and is not used yet.
    issued: tokio::sync::Mutex<Option<Issued>>,
    /// Something went wrong: look now how it does.
    wake: Notify,
}

impl fmt::Debug for AwsPca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsPca")
            .field("built", &self.pca.is_some())
            .finish_non_exhaustive()
    }
}

impl AwsPca {
    /// Nothing is asked yet; see [`Self::keep`].
    #[must_use]
    pub fn new(options: AwsOptions) -> Self {
        #[cfg(feature = "aws")]
        let pca: Option<Box<dyn Pca>> = Some(Box::new(sdk::Sdk::new(options)));
        #[cfg(not(feature = "aws"))]
        let pca = {
            drop(options);
            None
        };
        Self::with(pca)
    }

    pub(crate) fn with(pca: Option<Box<dyn Pca>>) -> Self {
        Self {
            pca,
            health: Mutex::new(None),
            issued: tokio::sync::Mutex::new(None),
            wake: Notify::new(),
        }
    }

    /// Whether this build has it.
    #[must_use]
    pub fn is_built(&self) -> bool {
        self.pca.is_some()
    }

    /// What a build without it says.
    #[must_use]
    pub fn not_built() -> &'static str {
        "this build of meshctl is without AWS Private CA; put one in its place that was built with \
         `--features aws`"
    }

    /// How it does, as last seen. `None`: the mesh's CA is not there, or this build is without it.
    #[must_use]
    pub fn health(&self) -> Option<AwsHealth> {
        self.lock().clone()
    }

    /// Looks how the CA does that `arn` names; `None`: the mesh's CA is elsewhere. For as long as
    /// it is polled.
    pub async fn keep(&self, arn: impl Fn() -> Option<String>) {
        let Some(pca) = &self.pca else {
            return std::future::pending().await;
        };
        loop {
            let next = match arn() {
                Some(arn) => self.look(pca.as_ref(), &arn).await,
                None => {
                    *self.lock() = None;
                    IDLE
                }
            };
            tokio::select! {
                () = tokio::time::sleep(next) => {}
                () = self.wake.notified() => tokio::time::sleep(IDLE).await,
            }
        }
    }

    /// One look; how long until the next.
    async fn look(&self, pca: &dyn Pca, arn: &str) -> Duration {
        let found = match pca.describe(arn).await {
            Ok(described) => described.check(arn),
            Err(trouble) => Err(trouble),
        };
        let well = found.is_ok();
        let mut health = self.lock();
        let mut seen = health.take().filter(|seen| seen.arn == arn);
        let now = seen.get_or_insert_with(|| AwsHealth::unknown(arn));
        if let Err(trouble) = &found {
            now.failed(trouble);
        }
        now.saw(found);
        *health = seen;
        if well { LOOK } else { LOOK_AGAIN }
    }

    fn pca(&self) -> Result<&dyn Pca, AuthorityError> {
        self.pca.as_deref().ok_or_else(|| AuthorityError::Denied {
            provider: crate::state::AWS_PCA,
            reason: format!("the mesh's CA is in AWS, and {}", Self::not_built()),
        })
    }

    /// The answer, or the error to tell; what went wrong is counted and looked at.
    fn told<T>(&self, answer: Result<T, Trouble>) -> Result<T, AuthorityError> {
        if let Err(trouble) = &answer {
            if let Some(health) = self.lock().as_mut() {
                health.failed(trouble);
            }
            self.wake.notify_one();
        }
        answer.map_err(AuthorityError::from)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<AwsHealth>> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
