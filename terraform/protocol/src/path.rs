//! Where in a value something is.

use std::fmt;

use crate::proto::tfplugin6::AttributePath;
use crate::proto::tfplugin6::attribute_path::{Step as WireStep, step::Selector};

/// A path into a value: `rules[0].to[1].weight`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(Vec<Step>);

/// One step of a [`Path`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// An attribute of an object.
    Attribute(String),
    /// An element of a map.
    Key(String),
    /// An element of a list.
    Index(usize),
}

impl Path {
    /// The whole.
    pub fn root() -> Self {
        Self::default()
    }

    /// An attribute at the top.
    pub fn of(name: &str) -> Self {
        Self::root().attribute(name)
    }

    /// An attribute of this.
    pub fn attribute(&self, name: &str) -> Self {
        self.with(Step::Attribute(name.to_owned()))
    }

    /// An element of this map.
    pub fn key(&self, name: &str) -> Self {
        self.with(Step::Key(name.to_owned()))
    }

    /// An element of this list, from 0.
    pub fn index(&self, at: usize) -> Self {
        self.with(Step::Index(at))
    }

    /// A step further.
    pub fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// Its steps.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Whether it is the whole.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn to_wire(&self) -> AttributePath {
        let steps = self.0.iter().map(|step| WireStep {
            selector: Some(match step {
                Step::Attribute(name) => Selector::AttributeName(name.clone()),
                Step::Key(name) => Selector::ElementKeyString(name.clone()),
                Step::Index(at) => Selector::ElementKeyInt(*at as i64),
            }),
        });
        AttributePath {
            steps: steps.collect(),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Attribute(name) if at == 0 => f.write_str(name)?,
                Step::Attribute(name) => write!(f, ".{name}")?,
                Step::Key(name) => write!(f, "[{name:?}]")?,
                Step::Index(at) => write!(f, "[{at}]")?,
            }
        }
        Ok(())
    }
}
