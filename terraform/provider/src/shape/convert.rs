//! Terraform's values to the API's JSON, and back.

use std::collections::BTreeMap;

use mesh_model::Key;
use mesh_tfprotocol::{Number, Value};
use serde_json::{Map, Value as Json, json};

use super::{Object, Shape};
use crate::names::Names;

/// What is sent. What is null is left out.
pub(crate) fn to_json(value: &Value, shape: &Shape, names: &Names) -> Json {
    match (shape, value) {
        (Shape::Key, Value::String(text)) => match names.key(text) {
            Ok(key) => json!(key),
            // The check of the attribute has said so.
            Err(_) => json!(text),
        },
        (_, Value::String(text)) => json!(text),
        (_, Value::Bool(value)) => json!(value),
        (_, Value::Number(Number::Int(whole))) => json!(whole),
        (_, Value::Number(number)) => json!(number.as_f64()),
        (Shape::List(of), Value::List(all)) => {
            all.iter().map(|one| to_json(one, of, names)).collect()
        }
        (Shape::Map(of), Value::Map(all)) => {
            let one = |(name, one): (&String, _)| (name.clone(), to_json(one, of, names));
            Json::Object(all.iter().map(one).collect())
        }
        (Shape::Object(object), Value::Map(_)) => {
            let mut all = Map::new();
            for (name, field) in &object.fields {
                let value = value.get(name);
                if !value.is_null() && !value.is_unknown() {
                    all.insert(name.clone(), to_json(value, &field.shape, names));
                }
            }
            Json::Object(all)
        }
        _ => Json::Null,
    }
}

/// What was read. What is not there is null.
pub(crate) fn to_value(json: &Json, shape: &Shape, names: &Names) -> Value {
    match (shape, json) {
        (Shape::Key, Json::Object(_)) => match serde_json::from_value::<Key>(json.clone()) {
            Ok(key) => names.written(&key).into(),
            Err(_) => Value::Null,
        },
        (Shape::List(of), Json::Array(all)) => {
            Value::List(all.iter().map(|one| to_value(one, of, names)).collect())
        }
        (Shape::Map(of), Json::Object(all)) => {
            let one = |(name, one): (&String, _)| (name.clone(), to_value(one, of, names));
            Value::Map(all.iter().map(one).collect())
        }
        (Shape::Object(object), Json::Object(_)) => object_value(json, object, names),
        (_, Json::String(text)) => text.as_str().into(),
        (_, Json::Bool(value)) => Value::Bool(*value),
        (_, Json::Number(number)) => {
            Number::parse(&number.to_string()).map_or(Value::Null, Value::Number)
        }
        _ => Value::Null,
    }
}

fn object_value(json: &Json, object: &Object, names: &Names) -> Value {
    let one = |(name, field): (&String, &super::Field)| {
        let value = to_value(json.get(name).unwrap_or(&Json::Null), &field.shape, names);
        (name.clone(), value)
    };
    Value::Map(object.fields.iter().map(one).collect::<BTreeMap<_, _>>())
}
