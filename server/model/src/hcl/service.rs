//! The `service` block.

use crate::fields::Fields;
use crate::{Key, LoadBalancer, OutlierDetection, Protocol, Service, Subset, check_label};

/// What Consul and Envoy take when it is not written.
const CONSECUTIVE_5XX: u32 = 5;

pub(super) fn service(mut fields: Fields<'_>, key: Option<Key>) -> Option<Service> {
    let mut service = Service::named(&key.clone().unwrap_or_else(|| Key::of("")));
    if let Some(protocol) = fields.word(
        "protocol",
        &["tcp", "http", "http2", "grpc"],
        Protocol::parse,
    ) {
        service.protocol = protocol;
    }
    if let Some(balancer) = fields.word(
        "load_balancer",
        &["round_robin", "least_request", "random"],
        LoadBalancer::parse,
    ) {
        service.load_balancer = balancer;
    }
    service.connect_timeout = fields.duration("connect_timeout");
    service.request_timeout = fields.duration("request_timeout");
    service.default_subset = fields.string("default_subset");
    service.meta = fields.map("meta");
    service.outlier_detection = fields.block("outlier_detection").map(outlier_detection);
    for (label, inner) in fields.labelled("subset") {
        if let Err(error) = check_label(&label.text) {
            inner.wrong(label.at, "", error);
        }
        service.subsets.insert(label.text.clone(), subset(inner));
    }
    if let (Some(name), Some(at)) = (&service.default_subset, fields.where_is("default_subset"))
        && !service.subsets.contains_key(name)
    {
        let hint = Some(format!("add `subset \"{name}\" {{ … }}`"));
        fields.wrong_with(
            at,
            "default_subset",
            format!("`{name}` is not defined"),
            hint,
        );
    }
    fields.finish();
    key.map(|_| service)
}

fn outlier_detection(mut fields: Fields<'_>) -> OutlierDetection {
    let detection = OutlierDetection {
        consecutive_5xx: fields.u32("consecutive_5xx", 1).unwrap_or(CONSECUTIVE_5XX),
        base_ejection_time: fields.duration("base_ejection_time"),
        max_ejection_percent: fields
            .whole("max_ejection_percent", 1, 100)
            .and_then(|percent| u32::try_from(percent).ok()),
    };
    fields.finish();
    detection
}

fn subset(mut fields: Fields<'_>) -> Subset {
    let subset = Subset {
        meta: fields.map("meta"),
        tags: fields.strings("tags"),
        only_passing: fields.bool("only_passing").unwrap_or_default(),
    };
    fields.finish();
    subset
}
