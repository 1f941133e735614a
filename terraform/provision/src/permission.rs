//! What a token of Nomad's must be allowed, and what is said where it is not.
//!
//! Nomad itself answers `Permission denied` and no more. Each call here knows what it needs, in the
//! words of Nomad's policies, so that who gives tokens out reads the line that is missing.

use serde_json::Value;

/// Where a policy with all of it stands.
const WHERE: &str = "the provider's page has a policy with all that is needed";

/// What one call needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Need<'a> {
    /// To read nodes.
    Nodes,
    /// A capability in the namespace.
    Capability(&'static str),
    /// What may be done with a variable, and which.
    Variable(&'static str, &'a str),
    /// To run a job which names this host volume.
    RunOn(&'a str),
}

impl<'a> Need<'a> {
    pub(crate) const LIST_JOBS: Self = Self::Capability("list-jobs");
    pub(crate) const READ_JOB: Self = Self::Capability("read-job");
    pub(crate) const SUBMIT_JOB: Self = Self::Capability("submit-job");
    pub(crate) const READ_LOGS: Self = Self::Capability("read-logs");
    pub(crate) const ALLOC_LIFECYCLE: Self = Self::Capability("alloc-lifecycle");

    /// To run this job.
    pub(crate) fn to_run(job: &'a Value) -> Self {
        let groups = job["TaskGroups"].as_array().into_iter().flatten();
        let mut volumes = groups.filter_map(|group| group["Volumes"].as_object());
        let source = volumes.find_map(|all| all.values().find_map(|one| one["Source"].as_str()));
        source.map_or(Self::SUBMIT_JOB, Self::RunOn)
    }

    /// As a policy says it.
    fn words(&self, namespace: &str) -> String {
        match self {
            Self::Nodes => "`read` in the policy of `node`".to_owned(),
            Self::Capability(name) => format!("`{name}` in the namespace `{namespace}`"),
            Self::Variable(what, path) => {
                format!("`{what}` on the variable `{path}` in the namespace `{namespace}`")
            }
            Self::RunOn(volume) => format!(
                "`submit-job` in the namespace `{namespace}`, or `mount-readwrite` on the host volume `{volume}`"
            ),
        }
    }
}

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// Nobody that Nomad could tell from others.
    None,
    /// One that Nomad does not know, or no more.
    Unknown,
    /// One that it knows.
    Known,
}

/// Why Nomad refused.
pub(crate) fn forbidden(need: &Need<'_>, namespace: &str, token: Token) -> String {
    let needs = need.words(namespace);
    match token {
        Token::None => format!(
            "it asks for a token. Set NOMAD_TOKEN (or `token` in the provider's `nomad`) to one that has {needs}; {WHERE}"
        ),
        Token::Unknown => "it does not know the token (NOMAD_TOKEN, or `token` in the provider's `nomad`): is it one of \
             this cluster, and neither deleted nor expired?"
            .to_owned(),
        Token::Known => format!("the token lacks {needs}; {WHERE}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_missing_is_named() {
        let said = |need: Need<'_>| forbidden(&need, "mesh", Token::Known);
        assert!(said(Need::Nodes).starts_with("the token lacks `read` in the policy of `node`;"));
        let text = said(Need::LIST_JOBS);
        assert!(
            text.starts_with("the token lacks `list-jobs` in the namespace `mesh`;"),
            "{text}"
        );
        let text = said(Need::Variable("write", "nomad/jobs/s-0"));
        assert!(
            text.contains("`write` on the variable `nomad/jobs/s-0`"),
            "{text}"
        );
        let job = json!({"TaskGroups": [{"Volumes": null}, {"Volumes": {"state": {"Source": "mesh-server"}}}]});
        let text = said(Need::to_run(&job));
        assert!(
            text.contains("`mount-readwrite` on the host volume `mesh-server`"),
            "{text}"
        );
        assert_eq!(Need::to_run(&json!({})), Need::SUBMIT_JOB);
    }

    #[test]
    fn no_token_and_a_wrong_one_are_told_apart() {
        let text = forbidden(&Need::Nodes, "default", Token::None);
        assert!(
            text.starts_with("it asks for a token. Set NOMAD_TOKEN"),
            "{text}"
        );
        let text = forbidden(&Need::Nodes, "default", Token::Unknown);
        assert!(text.starts_with("it does not know the token"), "{text}");
    }
}
