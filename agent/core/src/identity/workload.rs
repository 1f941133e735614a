//! A workload, and what a token of it lets pass.

use mesh_model::Registration;
use serde::{Deserialize, Serialize};

/// What Nomad says of the holder of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Workload {
    /// The allocation's id.
    pub(crate) allocation: String,
    /// Its namespace in Nomad.
    pub(crate) namespace: String,
    /// Its job's id.
    pub(crate) job: String,
    /// The service that the token is for; none: it is a task's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) service: Option<String>,
    /// The task that it is for, if it is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) task: Option<String>,
}

impl Workload {
    /// Why the token is not that of this instance; `None`: it is. Nomad makes an instance's id of
    /// the allocation's, which is always of one length.
    pub(crate) fn misfit(&self, registration: &Registration) -> Option<String> {
        let Registration { id, service, .. } = registration;
        let of = format!("_nomad-task-{}-", self.allocation);
        if !id.starts_with(&of) {
            return Some(format!(
                "the token is of allocation {}, and {id} is not of that one",
                self.allocation
            ));
        }
        match (&self.service, &self.task) {
            (Some(own), _) if own == service => None,
            (Some(own), _) => Some(format!("the token is for service {own}, not for {service}")),
            (None, task) => Some(format!(
                "the token is for task {}, not for service {service}",
                task.as_deref().unwrap_or_default()
            )),
        }
    }
}

/// A token that came with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// None came.
    Nothing,
    /// Not one of ours, or not one that this agent knows: the Nomad client's own, or one from
    /// before this agent lost its data.
    Foreign,
    /// One of ours that was logged out.
    Ended,
    /// A workload's.
    Of(Workload),
}

/// What somebody is told who needs a token and has none.
const HOW: &str = "attestation is \"workload\" here, so what is in the mesh needs the token of its \
    allocation and service. Set `consul { service_identity { aud = [\"consul.io\"] } }` in the \
    configuration of Nomad's servers, and a `consul { token = \"…\" }` (any text) in that of its \
    clients, without which the sidecar's bootstrap comes without a token; then run the job again";

impl Sent {
    /// Why a workload's token, where one came, is not that of this instance; `None`: it is. An
    /// ended one does no harm here: what is taken away is often taken away after the logout.
    pub(crate) fn misfit(&self, registration: &Registration) -> Option<String> {
        match self {
            Self::Of(workload) => workload.misfit(registration),
            Self::Nothing | Self::Foreign | Self::Ended => None,
        }
    }

    /// Why this instance may not be registered, or its sidecar not be started, with this token;
    /// `None`: it may. `required`: a token must have come.
    pub(crate) fn refusal(&self, registration: &Registration, required: bool) -> Option<String> {
        match self {
            Self::Of(workload) => workload.misfit(registration),
            Self::Ended => {
                Some("the token was logged out; Nomad did so when its allocation ended".into())
            }
            Self::Nothing if required => Some(format!("no token came: {HOW}")),
            Self::Foreign if required => Some(format!(
                "the token is not one that this agent gave to a workload: {HOW}"
            )),
            Self::Nothing | Self::Foreign => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    const ALLOC: &str = "6f3b1a2c-0000-4000-8000-000000000001";

    fn registration(id: &str, service: &str) -> Registration {
        let body = json!({"ID": id, "Name": service, "Connect": {"SidecarService": {}}});
        mesh_consul::register::parse(&body).unwrap().registration
    }

    #[test]
    fn a_token_is_for_one_service_of_one_allocation() {
        let of = Workload {
            allocation: ALLOC.into(),
            namespace: "default".into(),
            job: "shop".into(),
            service: Some("web".into()),
            task: None,
        };
        let own = format!("_nomad-task-{ALLOC}-group-shop-web-80");
        let other = own.replace("0001", "0002");
        let of_task = Workload {
            service: None,
            task: Some("shop".into()),
            ..of.clone()
        };
        for (token, id, service, reason) in [
            (&of, own.as_str(), "web", None),
            (
                &of,
                own.as_str(),
                "api",
                Some("the token is for service web"),
            ),
            (
                &of,
                other.as_str(),
                "web",
                Some("the token is of allocation"),
            ),
            (&of, "web", "web", Some("the token is of allocation")),
            (
                &of_task,
                own.as_str(),
                "web",
                Some("the token is for task shop"),
            ),
        ] {
            let why = Sent::Of(token.clone()).refusal(&registration(id, service), true);
            let fits = match (&why, reason) {
                (Some(why), Some(reason)) => why.starts_with(reason),
                (None, None) => true,
                _ => false,
            };
            assert!(fits, "{id} {service}: {why:?}");
        }
        let web = registration(&own, "web");
        for (sent, required, refused) in [
            (Sent::Nothing, false, false),
            (Sent::Nothing, true, true),
            (Sent::Foreign, false, false),
            (Sent::Foreign, true, true),
            (Sent::Ended, false, true),
            (Sent::Ended, true, true),
        ] {
            assert_eq!(sent.refusal(&web, required).is_some(), refused, "{sent:?}");
            assert_eq!(sent.misfit(&web), None);
        }
    }
}
