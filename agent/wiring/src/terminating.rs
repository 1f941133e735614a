//! A terminating gateway: a port at which sidecars call services outside the
//! mesh, each with its own policy.

use std::collections::BTreeSet;

use mesh_model::{GatewayKind, GatewayRegistration, LinkedService, Status};
use mesh_policy::PolicyForm;
use mesh_proto::config::{
    BindAddress, Health, OriginTls, OutsideInstance, OutsideService, ServicePolicy, Terminating,
};
use mesh_proto::fact::{MeshFact, Outside, Topic};

use crate::wire::Input;

/// What the gateway is to do, if it is terminating and its row is known and says
/// so too.
fn of<'a>(input: &Input<'a>) -> Option<(&'a GatewayRegistration, &'a [LinkedService])> {
    let registration = input.registration.gateway.as_ref();
    let registration = registration.filter(|it| it.kind == GatewayKind::Terminating)?;
    let gateway = input.facts.gateway(&input.registration.key())??;
    (gateway.kind() == GatewayKind::Terminating).then(|| (registration, gateway.linked()))
}

/// What the wiring of its services hangs on.
pub(crate) fn topics(input: &Input<'_>) -> BTreeSet<Topic> {
    let linked = of(input).map(|(_, linked)| linked).unwrap_or_default();
    let services = linked.iter().map(|it| &it.service);
    services
        .flat_map(|key| {
            [
                Topic::Service(key.clone()),
                Topic::Intentions(key.clone()),
                Topic::Outside(key.clone()),
            ]
        })
        .collect()
}

/// The services, and who may call each.
pub(crate) fn wire(
    input: &Input<'_>,
    mesh: &MeshFact,
) -> (Option<Terminating>, Vec<ServicePolicy>) {
    let Some((registration, linked)) = of(input) else {
        return (None, Vec::new());
    };
    let policies = linked.iter().map(|one| ServicePolicy {
        service: one.service.clone(),
        policy: PolicyForm {
            default: mesh.default_intention.as_str().to_owned(),
            intentions: input
                .facts
                .intentions(&one.service)
                .unwrap_or_default()
                .to_vec(),
        },
    });
    let bind = registration.bind.iter().map(|it| BindAddress {
        address: it.address.clone(),
        port: it.port,
    });
    let services = linked.iter().filter_map(|one| service(input, one));
    let terminating = Terminating {
        bind: bind.collect(),
        services: services.collect(),
    };
    (Some(terminating), policies.collect())
}

fn service(input: &Input<'_>, linked: &LinkedService) -> Option<OutsideService> {
    let service = input.facts.service(&linked.service)?;
    let instances = input.facts.outside(&linked.service).unwrap_or_default();
    Some(OutsideService {
        service: linked.service.clone(),
        protocol: service.protocol,
        connect_timeout: service.connect_timeout(),
        tls: linked.is_tls().then(|| OriginTls {
            ca_file: linked.ca_file.clone(),
            cert_file: linked.cert_file.clone(),
            key_file: linked.key_file.clone(),
            sni: linked.sni.clone(),
        }),
        instances: instances.iter().filter_map(instance).collect(),
    })
}

/// `None` when it gets no calls.
fn instance(one: &Outside) -> Option<OutsideInstance> {
    let weight = match one.status {
        Status::Passing => one.weights.passing,
        Status::Warning => one.weights.warning,
        Status::Critical => return None,
    };
    (weight > 0).then(|| OutsideInstance {
        id: format!("{}/{}", one.node, one.instance),
        address: one.address.clone(),
        port: one.port,
        weight,
        health: match one.silent {
            true => Health::Unknown,
            false => Health::Healthy,
        },
    })
}
