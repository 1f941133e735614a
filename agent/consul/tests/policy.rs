//! Intentions and config entries as Consul shows them: a golden file of each.
#![allow(clippy::unwrap_used)]

use mesh_consul::config;
use mesh_consul::filter::Filter;
use mesh_consul::intentions::{INTENTION, Row};
use mesh_model::Key;
use serde_json::{Value, json};

fn row(rule: Value) -> Value {
    let mut row = json!({
        "source": {"namespace": "default", "name": "web"},
        "destination": {"namespace": "default", "name": "db"},
        "description": "the shop", "meta": {"team": "a"}, "owner": "cli",
        "precedence": 9, "create_index": 3, "modify_index": 7,
        "created_at": "2026-03-01T09:30:00.250Z", "modified_at": "2026-03-02T00:00:00.000Z",
    });
    let rule = rule.as_object().unwrap().clone();
    row.as_object_mut().unwrap().extend(rule);
    row
}

#[test]
fn golden_intentions() {
    let plain = Row::read(row(json!({"action": "allow"}))).unwrap();
    insta::assert_json_snapshot!("intention", plain.json());
    let by_request = row(json!({"permissions": [
        {"action": "allow", "path_prefix": "/a", "methods": ["GET"],
         "headers": [{"name": "x-a", "present": true, "invert": true}],
         "query": [{"name": "q", "exact": "1"}]},
        {"action": "deny"}]}));
    insta::assert_json_snapshot!("intention_l7", Row::read(by_request).unwrap().json());
    assert!(plain.is_of(&Key::of("web"), &Key::of("db")));
    assert!(!plain.is_of(&Key::of("db"), &Key::of("web")));
    for text in [
        "SourceName == web",
        "Action == allow and Meta.team == a",
        "Precedence == 9",
    ] {
        assert!(
            Filter::parse(text, INTENTION).unwrap().keeps(&plain.json()),
            "{text}"
        );
    }
    // One with a condition that is not known would look as if it held for more.
    let newer = row(json!({"action": "allow", "only_at_full_moon": true}));
    assert!(Row::read(newer).is_err());
}

#[test]
fn golden_config() {
    let row = |text: &str| -> config::Row {
        serde_json::from_value(json!({
            "kind": "service-defaults", "namespace": "default", "name": "web", "text": text,
            "rows": [], "owner": "cli", "create_index": 3, "modify_index": 7,
        }))
        .unwrap()
    };
    let text =
        r#"{"kind": "service-defaults", "name": "web", "Protocol": "http", "create_index": 1}"#;
    insta::assert_json_snapshot!("config", row(text).json().unwrap());
    // In HCL, a block that stands for a list of one is shown as what it stands for.
    let router = r#"
Kind = "service-router"
Name = "web"
Routes {
  Match {
    HTTP {
      PathPrefix = "/a"
      Header = [{ Name = "x-a", Present = true }]
    }
  }
  Destination {
    Service = "admin"
    RetryOnStatusCodes = [429]
  }
}
"#;
    insta::assert_json_snapshot!("config_hcl", row(router).json().unwrap());
    let sources = r#"
Kind = "service-intentions"
Name = "web"
sources {
  name   = "a"
  action = "allow"
}
sources {
  name   = "b"
  action = "deny"
}
"#;
    let shown = row(sources).json().unwrap();
    assert_eq!(shown["sources"][1]["name"], "b", "{shown}");
    for unknown in [
        "Kind = \"service-defaults\"\nName = \"web\"\nMoon = 1\n",
        "what?",
    ] {
        let error = row(unknown).json().unwrap_err().to_string();
        assert!(
            error.starts_with("service-defaults/web cannot be read by this version"),
            "{error}"
        );
    }
}
