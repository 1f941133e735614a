//! What is said to the user: a mistake or a warning, at its attribute.

use crate::Path;
use crate::proto::tfplugin6 as wire;

/// One mistake or warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether it is only a warning.
    pub is_warning: bool,
    /// What is wrong, in one line without a full stop.
    pub summary: String,
    /// More about it, and what to do.
    pub detail: String,
    /// Which attribute; the root: none in particular.
    pub path: Path,
}

impl Diagnostic {
    /// A mistake.
    pub fn error(summary: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            is_warning: false,
            summary: summary.into(),
            detail: detail.into(),
            path: Path::root(),
        }
    }

    /// A warning.
    pub fn warning(summary: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            is_warning: true,
            ..Self::error(summary, detail)
        }
    }

    /// At that attribute.
    pub fn at(mut self, path: Path) -> Self {
        self.path = path;
        self
    }
}

/// All that is said. `?` on a `Result<_, Diagnostic>` makes one of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more.
    pub fn push(&mut self, one: Diagnostic) {
        self.0.push(one);
    }

    /// All of those, too.
    pub fn extend(&mut self, more: impl IntoIterator<Item = Diagnostic>) {
        self.0.extend(more);
    }

    /// Whether there is a mistake among them.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|one| !one.is_warning)
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// Nothing, or the mistakes.
    pub fn into_result(self) -> Result<(), Self> {
        match self.has_errors() {
            true => Err(self),
            false => Ok(()),
        }
    }

    pub(crate) fn to_wire(&self) -> Vec<wire::Diagnostic> {
        use wire::diagnostic::Severity;
        let one = |one: &Diagnostic| wire::Diagnostic {
            severity: match one.is_warning {
                true => Severity::Warning,
                false => Severity::Error,
            }
            .into(),
            summary: one.summary.clone(),
            detail: one.detail.clone(),
            attribute: (!one.path.is_root()).then(|| one.path.to_wire()),
        };
        self.0.iter().map(one).collect()
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(one: Diagnostic) -> Self {
        Self(vec![one])
    }
}

impl FromIterator<Diagnostic> for Diagnostics {
    fn from_iter<T: IntoIterator<Item = Diagnostic>>(all: T) -> Self {
        Self(all.into_iter().collect())
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
