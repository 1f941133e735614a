//! What people and programs read, word for word.

use insta::assert_snapshot;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::harness::{Answer, Client, one};

/// A request and its answer as text; what differs from run to run is left out.
struct Walk {
    client: Client,
    log: String,
    hide: Vec<(String, &'static str)>,
}

impl Walk {
    async fn step(&mut self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let answer = match (method, body.clone()) {
            ("PUT", Some(body)) => self.client.put(path, body).await,
            ("POST", Some(body)) => self.client.post(path, body).await,
            ("DELETE", _) => self.client.delete(path).await,
            _ => self.client.get(path).await,
        };
        let mut value: Value = serde_json::from_str(&answer.text).unwrap_or(Value::Null);
        if let Some(id) = value.pointer_mut("/error/request_id") {
            *id = "REQUEST".into();
        }
        hide_times(&mut value);
        let body = body.map_or_else(String::new, |body| format!("{body}\n"));
        let text = serde_json::to_string_pretty(&value).unwrap();
        let text = format!("## {method} {path}\n{body}{}\n{text}\n\n", answer.status);
        let hidden = self.hide.iter();
        self.log += &hidden.fold(text, |text, (what, name)| text.replace(what, name));
        answer
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.step("GET", path, None).await
    }

    async fn put(&mut self, path: &str, body: Value) -> Answer {
        self.step("PUT", path, Some(body)).await
    }
}

/// Puts `TIME` in the place of a row's times, which are those of today.
fn hide_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match name.as_str() {
                    "created_at" | "modified_at" => {
                        let text = field.as_str().unwrap();
                        OffsetDateTime::parse(text, &Rfc3339).unwrap();
                        *field = "TIME".into();
                    }
                    _ => hide_times(field),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(hide_times),
        _ => {}
    }
}

#[tokio::test]
async fn rows() {
    let (server, client) = one().await;
    let status = client.get("/v1/status").await.json();
    let hide = |path: &str, name| {
        (
            status.pointer(path).unwrap().as_str().unwrap().to_owned(),
            name,
        )
    };
    let hide = vec![hide("/epoch", "EPOCH")];
    let log = String::new();
    let mut walk = Walk { client, log, hide };

    walk.get("/v1/mesh").await;
    walk.put("/v1/mesh", json!({"default_intention": "allow"}))
        .await;
    walk.get("/v1/mesh").await;
    walk.step("DELETE", "/v1/mesh", None).await;

    let subsets = json!({"v1": {"meta": {"version": "v1"}}, "v2": {"meta": {"version": "v2"}}});
    walk.put(
        "/v1/services/web",
        json!({"protocol": "http", "subsets": subsets}),
    )
    .await;
    walk.put("/v1/services/team%2Fdb", json!({})).await;
    let route = json!({"rules": [{"name": "canary", "match": [{"path_prefix": "/v1/"}],
        "to": [{"subset": "v1", "weight": 90}, {"subset": "v2", "weight": 10}]}]});
    walk.put("/v1/routes/web", route).await;
    walk.get("/v1/services").await;
    walk.get("/v1/services/web").await;
    walk.get("/v1/routes").await;
    walk.step("DELETE", "/v1/services/web", None).await;
    walk.put("/v1/services/web", json!({"protocol": "http"}))
        .await;
    let bad = json!({"rules": [{"name": "canary", "to": [{"subset": "v1", "weight": 90}]}]});
    walk.put("/v1/routes/web", bad).await;
    walk.put("/v1/services/web", json!({"protocl": "http"}))
        .await;
    walk.put("/v1/services/web", json!({"name": "other"})).await;

    walk.put("/v1/intentions/frontend/web", json!({"action": "allow"}))
        .await;
    let permissions = json!([{"action": "allow", "methods": ["GET"], "path_prefix": "/public/"},
        {"action": "deny", "methods": ["POST", "PUT"]}]);
    walk.put("/v1/intentions/*/web", json!({"permissions": permissions}))
        .await;
    walk.put("/v1/intentions/*%2F*/team%2F*", json!({"action": "deny"}))
        .await;
    walk.get("/v1/intentions").await;
    walk.get("/v1/intentions/match?by=destination&name=web")
        .await;
    walk.get("/v1/intentions/*/web").await;
    walk.get("/v1/intentions/a/b").await;
    walk.step("DELETE", "/v1/intentions/frontend/web", None)
        .await;
    walk.step("DELETE", "/v1/intentions/frontend/web", None)
        .await;
    walk.get("/v1/nothing").await;
    walk.get("/v1/services?colour=red").await;
    walk.step("DELETE", "/v1/services", None).await;
    assert_snapshot!(walk.log);
    server.shutdown().await;
}

#[tokio::test]
async fn checks() {
    let (server, client) = one().await;
    let mut walk = Walk {
        client: client.clone(),
        log: String::new(),
        hide: Vec::new(),
    };
    client
        .put("/v1/services/web", json!({"protocol": "http"}))
        .await;
    let permissions = json!([{"action": "allow", "methods": ["GET"], "path_prefix": "/public/"},
        {"action": "deny", "headers": [{"name": "x-user", "exact": "joe"}]},
        {"action": "allow", "path_exact": "/joe"}]);
    client
        .put("/v1/intentions/*/web", json!({"permissions": permissions}))
        .await;
    client
        .put("/v1/intentions/batch/web", json!({"action": "deny"}))
        .await;

    let questions = [
        json!({"source": "frontend", "destination": "web"}),
        json!({"source": "frontend", "destination": "web", "path": "/public/a/../b?x=1"}),
        json!({"source": "frontend", "destination": "web", "method": "post", "path": "/joe"}),
        json!({"source": "frontend", "destination": "web", "path": "/joe", "headers": {"X-User": "joe"}}),
        json!({"source": "frontend", "destination": "web", "path": "/other"}),
        json!({"source": "batch", "destination": "web"}),
        json!({"source": "frontend", "destination": "db"}),
        json!({"source": "*", "destination": "db"}),
        json!({"source": "frontend", "destination": "web", "method": "GET"}),
        json!({"source": "frontend", "destination": "web", "path": "/public/%2"}),
    ];
    for question in questions {
        walk.step("POST", "/v1/intentions/check", Some(question))
            .await;
    }
    assert_snapshot!(walk.log);
    server.shutdown().await;
}
