//! Whether the entries hold together: `mesh_model::validate` over the state.

use mesh_model::validate::{self, View};
use mesh_model::{Action, EntryKey, Gateway, Intention, Key, Mesh, Route, Service};

use crate::outcome::{Dangling, Finding, Referrer, Refusal};
use crate::state::State;

/// Looks at a state in which these entries were changed. The warnings, or why
/// the change is refused.
pub(crate) fn check(state: &State, changed: &[EntryKey]) -> Result<Vec<Finding>, Refusal> {
    let found = validate::check(&Entries(state), changed);
    let dangling: Vec<Dangling> = found.dangling.into_iter().map(Dangling::from).collect();
    if found.errors.is_empty() {
        return match dangling.is_empty() {
            true => Ok(found.warnings.into_iter().map(Finding::from).collect()),
            false => Err(Refusal::Dangling { entries: dangling }),
        };
    }
    // Everything that is wrong at once, so that nobody mends one to be told
    // of the next.
    let referrers = dangling.into_iter().flat_map(|entry| entry.referrers);
    let findings = found.errors.into_iter().map(Finding::from);
    Err(Refusal::Invalid {
        findings: findings.chain(referrers.map(Finding::from)).collect(),
    })
}

impl From<validate::Finding> for Finding {
    fn from(found: validate::Finding) -> Self {
        Self {
            key: Some(found.key),
            message: found.message,
        }
    }
}

impl From<Referrer> for Finding {
    fn from(referrer: Referrer) -> Self {
        Self {
            key: Some(referrer.by),
            message: referrer.message,
        }
    }
}

impl From<validate::Dangling> for Dangling {
    fn from(found: validate::Dangling) -> Self {
        let referrer = |found: validate::Referrer| Referrer {
            by: found.by,
            message: found.message,
        };
        Self {
            key: found.key,
            referrers: found.referrers.into_iter().map(referrer).collect(),
        }
    }
}

/// The entries of a state.
struct Entries<'a>(&'a State);

impl View for Entries<'_> {
    fn mesh(&self) -> Option<&Mesh> {
        self.0.mesh().map(|row| &row.value)
    }

    fn service(&self, key: &Key) -> Option<&Service> {
        self.0.service(key).map(|row| &row.value)
    }

    fn route(&self, key: &Key) -> Option<&Route> {
        self.0.route(key).map(|row| &row.value)
    }

    fn intention(&self, source: &Key, destination: &Key) -> Option<&Intention> {
        let row = self.0.intention(source, destination);
        row.map(|row| &row.value)
    }

    fn gateway(&self, key: &Key) -> Option<&Gateway> {
        self.0.gateway(key).map(|row| &row.value)
    }

    fn routes(&self) -> Box<dyn Iterator<Item = &Route> + '_> {
        Box::new(self.0.routes().map(|row| &row.value))
    }

    fn intentions(&self) -> Box<dyn Iterator<Item = &Intention> + '_> {
        Box::new(self.0.intentions.rows().map(|row| &row.value))
    }

    fn gateways(&self) -> Box<dyn Iterator<Item = &Gateway> + '_> {
        Box::new(self.0.gateways().map(|row| &row.value))
    }

    fn default_intention(&self) -> Action {
        self.0.default_intention()
    }
}
