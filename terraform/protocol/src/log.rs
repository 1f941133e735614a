//! The log, as Terraform reads it from a plugin's standard error: one JSON
//! object a line.
//!
//! Only what providers say themselves is written. What libraries say of their
//! connections could have a secret in it that is in no plan and no state.

use std::io::Write;

use serde_json::{Map, Value as Json, json};
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Begins the log of this process; how much is said, `TF_LOG` tells.
pub(crate) fn begin() {
    let level = ["TF_LOG_PROVIDER", "TF_LOG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|text| !text.is_empty()));
    let most = match level.unwrap_or_default().to_ascii_uppercase().as_str() {
        "TRACE" | "JSON" => Level::TRACE,
        "DEBUG" => Level::DEBUG,
        "INFO" => Level::INFO,
        _ => Level::WARN,
    };
    let all = tracing_subscriber::registry().with(Lines { most });
    // A second one (in tests) leaves the first.
    let _ = tracing::subscriber::set_global_default(all);
}

struct Lines {
    most: Level,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn enabled(&self, of: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        of.level() <= &self.most && of.target().starts_with("mesh_")
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let now = time::OffsetDateTime::now_utc().format(&Rfc3339);
        fields.0.insert(
            "@level".to_owned(),
            json!(event.metadata().level().as_str().to_lowercase()),
        );
        fields.0.insert("@module".to_owned(), json!("provider"));
        fields
            .0
            .insert("@timestamp".to_owned(), json!(now.unwrap_or_default()));
        let line = Json::Object(fields.0).to_string();
        // Where nobody reads the log, there is nobody to tell.
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }
}

#[derive(Default)]
struct Fields(Map<String, Json>);

impl Fields {
    fn put(&mut self, field: &Field, value: Json) {
        let name = match field.name() {
            "message" => "@message",
            name => name,
        };
        self.0.insert(name.to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put(field, json!(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, json!(value));
    }
}
