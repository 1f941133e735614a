//! Who registered an instance, and so who may change it.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Who made a registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Owner {
    /// An instance file; whoever may write it is an administrator.
    File(PathBuf),
    /// A process of this user, over HTTP.
    Uid(u32),
    /// Whoever brought the register token.
    Token,
}

impl Owner {
    /// Whether `other` may replace what this one made. All files are one owner: an instance may
    /// move from one to another.
    pub(crate) fn may_be_replaced_by(&self, other: &Self) -> bool {
        matches!((self, other), (Self::File(_), Self::File(_))) || self == other
    }

    /// Whether `other`, who may register, may say how a TTL check of what this one made is. A file
    /// names nobody who would: whoever may register speaks for its checks.
    pub(crate) fn may_be_checked_by(&self, other: &Self) -> bool {
        matches!(self, Self::File(_)) || self.may_be_replaced_by(other)
    }

    /// Whether `other` may take away what this one made. Root may, so that nothing stays for
    /// good; what stands in a file would come back with the next reload.
    pub(crate) fn may_be_removed_by(&self, other: &Self) -> bool {
        self.may_be_replaced_by(other) || (*other == Self::Uid(0) && !matches!(self, Self::File(_)))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Uid(uid) => write!(f, "uid {uid}"),
            Self::Token => f.write_str("the register token"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_replaces() {
        let (a, b) = (Owner::File("a.hcl".into()), Owner::File("b.hcl".into()));
        assert!(a.may_be_replaced_by(&b));
        assert!(!a.may_be_removed_by(&Owner::Uid(0)));
        assert!(!Owner::Uid(7).may_be_replaced_by(&Owner::Uid(0)));
        assert!(Owner::Uid(7).may_be_removed_by(&Owner::Uid(0)));
        assert!(!Owner::Token.may_be_removed_by(&Owner::Uid(7)));
    }
}
