//! Health of what runs here, and what applications without a sidecar ask: a golden file of each.
#![allow(clippy::unwrap_used)]

use mesh_consul::connect::{Certificate, Question, Root, authorized, leaf, question, roots};
use mesh_consul::health::{Health, code, worst};
use mesh_model::Status;
use serde_json::json;

#[test]
fn golden_health() {
    let of = |status| Health {
        status,
        service: json!({"ID": "web-1", "Service": "web"}),
        checks: vec![json!({"CheckID": "service:web-1", "Status": status.as_str()})],
    };
    insta::assert_json_snapshot!("health", of(Status::Warning).json());
    let all = [
        of(Status::Passing),
        of(Status::Critical),
        of(Status::Warning),
    ];
    assert_eq!(worst(&all), Some(Status::Critical));
    assert_eq!(worst(&[]), None);
    let codes = [Status::Passing, Status::Warning, Status::Critical].map(code);
    assert_eq!(codes, [200, 429, 503]);
}

#[test]
fn golden_leaf() {
    let (one, two) = ([0x30_u8; 50], [0x31_u8; 3]);
    let shown = leaf(&Certificate {
        chain: &[&one, &two],
        key: "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        serial: "0c69a1",
        service: "web",
        uri: "spiffe://0f1e.mesh/ns/default/dc/dc1/svc/web",
        valid: ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
        index: 7,
    });
    insta::assert_json_snapshot!("leaf", shown);
}

#[test]
fn golden_roots() {
    let root = |id: &str, active| Root {
        id: id.to_owned(),
        pem: format!("-----BEGIN CERTIFICATE-----\n{id}\n-----END CERTIFICATE-----\n"),
        active,
        valid: active.then(|| ("2026-01-01T00:00:00Z".into(), "2036-01-01T00:00:00Z".into())),
    };
    let shown = roots("0f1e.mesh", &[root("old", false), root("new", true)], 7);
    insta::assert_json_snapshot!("roots", shown);
}

#[test]
fn golden_authorize() {
    let body = json!({"Target": "db", "ClientCertURI": "spiffe://0f1e.mesh/ns/default/dc/dc1/svc/web",
                      "ClientCertSerial": "04:00:00:00:00:01:15:4b:5a:c3:94"});
    let asked = question(&body).unwrap();
    let wanted = Question {
        target: "db".into(),
        namespace: None,
        client: "spiffe://0f1e.mesh/ns/default/dc/dc1/svc/web".into(),
        serial: Some("04:00:00:00:00:01:15:4b:5a:c3:94".into()),
    };
    assert_eq!(asked, wanted);
    for (body, start) in [
        (json!({"ClientCertURI": "x"}), "Target: missing"),
        (json!({"Target": "db"}), "ClientCertURI: missing"),
        (json!({"Target": 1}), "Target: expected a string"),
        (
            json!({"Target": "db", "ClientCertURI": "x", "ClientCertSerial": 4}),
            "ClientCertSerial: expected a string",
        ),
    ] {
        let error = question(&body).unwrap_err().to_string();
        assert!(error.starts_with(start), "{error}");
    }
    insta::assert_json_snapshot!(
        "authorized",
        authorized(false, "intention web => db (deny)")
    );
}
