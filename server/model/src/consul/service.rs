//! service-defaults and service-resolver: parts of a `service`.

use std::collections::BTreeMap;

use super::{Fragment, filter};
use crate::fields::Fields;
use crate::{Duration, LoadBalancer, Protocol, Subset, check_label};

pub(super) fn defaults(fields: &mut Fields<'_>) -> Fragment {
    fields.later(&[
        "BalanceInboundConnections",
        "Destination",
        "EnvoyExtensions",
        "Expose",
        "ExternalSNI",
        "LocalConnectTimeoutMs",
        "LocalRequestTimeoutMs",
        "MaxInboundConnections",
        "MaxRequestHeadersKB",
        "MeshGateway",
        "RateLimits",
        "TransparentProxy",
        "UpstreamConfig",
    ]);
    only(fields, "Mode", "direct");
    only(fields, "MutualTLSMode", "strict");
    let protocol = fields.word("Protocol", &["tcp", "http", "http2", "grpc"], |text| {
        Protocol::parse(&text.to_ascii_lowercase())
    });
    Fragment::Defaults {
        protocol: protocol.unwrap_or_default(),
        meta: fields.map("Meta"),
    }
}

/// A field of which we have only the default.
fn only(fields: &mut Fields<'_>, key: &'static str, value: &str) {
    if let Some((text, at)) = fields.text(key)
        && text != value
    {
        fields.wrong(at, key, format!("`{text}` is not supported yet"));
    }
}

pub(super) fn resolver(fields: &mut Fields<'_>) -> Fragment {
    fields.later(&["Failover", "PrioritizeByLocality", "Redirect"]);
    let mut subsets = BTreeMap::new();
    for (name, at, inner) in fields.object_map("Subsets") {
        if let Err(error) = check_label(name) {
            inner.wrong(at, "", error);
        }
        subsets.insert(name.to_owned(), subset(inner));
    }
    let default_subset = fields.text("DefaultSubset").map(|(name, at)| {
        if !subsets.contains_key(name) {
            fields.wrong(at, "DefaultSubset", format!("`{name}` is not defined"));
        }
        name.to_owned()
    });
    Fragment::Resolver {
        connect_timeout: timeout(fields, "ConnectTimeout"),
        request_timeout: timeout(fields, "RequestTimeout"),
        default_subset,
        subsets,
        load_balancer: fields.object("LoadBalancer").and_then(load_balancer),
    }
}

/// Consul's zero is its default.
pub(super) fn timeout(fields: &mut Fields<'_>, key: &'static str) -> Option<Duration> {
    fields.duration(key).filter(|timeout| !timeout.is_zero())
}

fn subset(mut fields: Fields<'_>) -> Subset {
    let mut subset = Subset::default();
    if let Some((text, at)) = fields.text("Filter") {
        match filter::parse(text) {
            Some(parsed) => subset = parsed,
            None => {
                let hint = Some(filter::FORMS.to_owned());
                fields.wrong_with(at, "Filter", "this filter is not supported yet", hint);
            }
        }
    }
    subset.only_passing = fields.bool("OnlyPassing").unwrap_or_default();
    fields.finish();
    subset
}

fn load_balancer(mut fields: Fields<'_>) -> Option<LoadBalancer> {
    fields.later(&["HashPolicies", "RingHashConfig"]);
    let policy = fields.word(
        "Policy",
        &["round_robin", "least_request", "random"],
        LoadBalancer::parse,
    );
    if let Some(mut inner) = fields.object("LeastRequestConfig") {
        let at = inner.where_is("ChoiceCount").unwrap_or(inner.at());
        if let Some(count) = inner.u32("ChoiceCount", 0)
            && !matches!(count, 0 | 2)
        {
            let message = format!("{count} is not supported yet; 2 is what is done");
            inner.wrong(at, "ChoiceCount", message);
        }
        inner.finish();
    }
    fields.finish();
    policy
}
