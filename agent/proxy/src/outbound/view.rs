//! An upstream as a worker sees it: its rules, with the clusters found.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use rand::Rng;

use super::ClusterState;
use crate::config::{Outbound, Rule};

/// An upstream as a worker sees it.
pub(crate) struct OutboundView {
    pub(crate) config: Arc<Outbound>,
    rules: Vec<RuleView>,
    pub(crate) cluster: Rc<ClusterState>,
}

/// A rule and its clusters.
pub(crate) struct RuleView {
    pub(crate) rule: Arc<Rule>,
    /// With the sum of the weights up to each.
    to: Vec<(Rc<ClusterState>, u64)>,
}

impl OutboundView {
    /// `None` if a cluster is not there, which compiling has made sure of.
    pub(crate) fn new(
        config: Arc<Outbound>,
        clusters: &HashMap<String, Rc<ClusterState>>,
    ) -> Option<Self> {
        let rules = config
            .rules
            .iter()
            .map(|rule| {
                let to = rule
                    .to
                    .iter()
                    .map(|(name, sum)| Some((clusters.get(name)?.clone(), *sum)))
                    .collect::<Option<_>>()?;
                Some(RuleView {
                    rule: rule.clone(),
                    to,
                })
            })
            .collect::<Option<_>>()?;
        Some(Self {
            cluster: clusters.get(&config.cluster)?.clone(),
            config,
            rules,
        })
    }

    pub(crate) fn rules(&self) -> &[RuleView] {
        &self.rules
    }
}

impl RuleView {
    /// Draws a cluster by weight.
    pub(crate) fn draw(&self, random: &mut impl Rng) -> Option<&Rc<ClusterState>> {
        if let [(only, _)] = self.to.as_slice() {
            return Some(only);
        }
        let (_, sum) = self.to.last()?;
        let drawn = random.random_range(0..*sum);
        let found = self.to.iter().find(|(_, below)| drawn < *below)?;
        Some(&found.0)
    }
}
