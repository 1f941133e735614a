//! Load balancing: which instance takes the next request.
//!
//! Pure data: no I/O, no lock, and neither a clock nor randomness of its own.
//! Each runtime of a proxy holds one [`EndpointSet`] for each destination and
//! tells it what happened; time is a [`Duration`](std::time::Duration) since any
//! fixed moment. With the same calls and the same seed it does the same.
//!
//! # Which endpoints
//!
//! Those of the first group that has any:
//!
//! 1. passing (or warning), and neither ejected nor avoided;
//! 2. unknown, and neither ejected nor avoided;
//! 3. passing, but ejected or avoided;
//! 4. unknown, but ejected or avoided.
//!
//! Critical endpoints, and those of weight 0, are never picked. In the groups 3
//! and 4 nothing is known to work, so that a choice costs nothing and refusing
//! would turn a doubt into an outage: that is *panic mode*, and it is counted.
//! What a caller excludes does not change the group: a retry that has tried the
//! whole group gets `None`, and may try the same again rather than a worse one.
//!
//! # Which of them
//!
//! See [`Policy`]. A pick is O(log n) and allocates nothing.
//!
//! # What is learned
//!
//! - *Avoided*: an endpoint that cannot be connected to is left alone at once,
//!   for a time that doubles with each failure ([`Avoidance`]). When it is over
//!   one request may try; only when that one gets through do others follow.
//! - *Ejected*: an endpoint that fails requests in a row is left alone, if
//!   outlier detection is on ([`Outlier`]).
//! - [`RetryBudget`] keeps retries from making an overload worse.
//!
//! ```
//! use std::time::Duration;
//! use mesh_balance::{Endpoint, EndpointSet, Health, Outcome, Policy};
//! use rand::{SeedableRng, rngs::StdRng};
//!
//! let mut rng = StdRng::seed_from_u64(1);
//! let mut set = EndpointSet::new(Policy::RoundRobin);
//! let now = Duration::ZERO;
//! set.update(
//!     [("a", "10.0.0.1:80"), ("b", "10.0.0.2:80")].map(|(key, address)| Endpoint {
//!         key,
//!         weight: 1,
//!         health: Health::Passing,
//!         value: address,
//!     }),
//!     now,
//!     &mut rng,
//! );
//! let first = set.pick(now, &mut rng, &[]).unwrap();
//! let tried = [first.token()];
//! set.done(first, Outcome::ConnectFailure, now);
//! let second = set.pick(now, &mut rng, &tried).unwrap();
//! assert!(set.value(&second).is_some());
//! set.done(second, Outcome::Success, now);
//! ```
#![forbid(unsafe_code)]

mod budget;
mod endpoint;
mod heap;
mod outlier;
mod pool;
mod set;

pub use budget::{BudgetConfig, RetryBudget};
pub use endpoint::{Endpoint, Health, Outcome, Picked, Status, Token};
pub use outlier::{Avoidance, Outlier};
pub use pool::Policy;
pub use set::{Counters, EndpointSet};
