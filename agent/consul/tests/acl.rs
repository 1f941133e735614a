//! A login as Nomad makes it, and what it gets: a golden file.
#![allow(clippy::unwrap_used)]

use mesh_consul::acl::{Token, login, token};
use serde_json::json;

#[test]
fn golden_login() {
    let body = json!({"AuthMethod": "nomad-workloads", "BearerToken": "a.b.c",
                      "Meta": {"requested_by": "nomad_service_count-api", "node_id": "0f1e"}});
    let login = login(&body).unwrap();
    assert_eq!(login.bearer, "a.b.c");
    let made = Token {
        accessor: "11111111-2222-3333-4444-555555555555",
        secret: "meshworkload1.11111111.c2ln",
        method: &login.method,
        description: &login.description,
        created: "2026-01-01T00:00:00Z",
        service: Some("count-api"),
        datacenter: "dc1",
    };
    insta::assert_json_snapshot!("token", token(&made));
    let of_task = Token {
        service: None,
        ..made
    };
    assert_eq!(token(&of_task)["ServiceIdentities"], json!([]));
}
