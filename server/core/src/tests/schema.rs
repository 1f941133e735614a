//! Every answer in these tests is held against the OpenAPI document: what a program reads there is
//! what it gets.

use serde_json::Value;

use super::harness::Answer;

/// Fails when the answer is not what the document says.
pub(crate) fn check(method: &str, path: &str, answer: &Answer) {
    let document = crate::openapi();
    let json = answer
        .header("content-type")
        .starts_with("application/json");
    if !json || path == "/openapi.json" {
        return;
    }
    let value = answer.json();
    if value.get("error").is_some() {
        return fits(&document, &reference("Error"), &value, "error");
    }
    let found = document["paths"].as_object().unwrap().iter();
    // `/v1/proxies/wait` before `/v1/proxies/{x}`.
    let mut found: Vec<_> = found.filter(|(template, _)| is(template, path)).collect();
    found.sort_by_key(|(template, _)| template.matches('{').count());
    let (template, operations) = found.first().expect(path);
    let response = &operations[method.to_lowercase()]["responses"]["200"];
    let schema = &response["content"]["application/json"]["schema"];
    assert!(schema.is_object(), "{method} {template} has no schema");
    fits(&document, schema, &value, template);
}

fn reference(name: &str) -> Value {
    serde_json::json!({"$ref": format!("#/components/schemas/{name}")})
}

fn is(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) =
        (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template
            .iter()
            .zip(&path)
            .all(|(t, p)| t.starts_with('{') || t == p)
}

fn fits(document: &Value, schema: &Value, value: &Value, place: &str) {
    if let Err(error) = holds(document, schema, value, place) {
        panic!("{error}");
    }
}

fn holds(document: &Value, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    if let Some(to) = schema["$ref"].as_str() {
        let name = to.rsplit('/').next().unwrap();
        let schema = &document["components"]["schemas"][name];
        assert!(schema.is_object(), "{to} does not exist");
        return holds(document, schema, value, place);
    }
    for any in ["anyOf", "oneOf"] {
        if let Some(list) = schema[any].as_array() {
            let results: Vec<_> = list
                .iter()
                .map(|one| holds(document, one, value, place))
                .collect();
            let good = results.iter().any(Result::is_ok);
            return good
                .then_some(())
                .ok_or(format!("{place}: {value} fits none: {results:?}"));
        }
    }
    let right = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        _ => true,
    };
    if !right {
        return Err(format!(
            "{place}: {value} is not of type {}",
            schema["type"]
        ));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        return Err(format!("{place}: {value} is not one of {words:?}"));
    }
    if schema.get("const").is_some_and(|wanted| wanted != value) {
        return Err(format!("{place}: {value} is not {}", schema["const"]));
    }
    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
        holds(
            document,
            &schema["items"],
            item,
            &format!("{place}[{number}]"),
        )?;
    }
    let Some(fields) = value.as_object() else {
        return Ok(());
    };
    for required in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(required.as_str().unwrap()) {
            return Err(format!("{place}: has no {required}"));
        }
    }
    for (name, field) in fields {
        let place = format!("{place}.{name}");
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (known @ Value::Object(_), _) => holds(document, known, field, &place)?,
            (_, Value::Bool(false)) => return Err(format!("{place}: is not in the document")),
            (_, more @ Value::Object(_)) => holds(document, more, field, &place)?,
            _ => {}
        }
    }
    Ok(())
}

#[test]
fn the_document_is_the_one_in_the_repository() {
    let document = serde_json::to_string_pretty(&crate::openapi()).unwrap() + "\n";
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/reference/openapi.json"
    );
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(path, &document).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == document,
        "docs/reference/openapi.json is old; run with INSTA_UPDATE=always"
    );
}

#[test]
fn every_reference_leads_somewhere() {
    let document = crate::openapi();
    let text = document.to_string();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for part in text.split("#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name}");
    }
    for name in schemas.keys() {
        let used = format!("#/components/schemas/{name}\"");
        assert!(text.contains(&used), "{name} is not used");
    }
}
