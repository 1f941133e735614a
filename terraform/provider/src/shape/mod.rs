//! The API's own description of its nouns, as Terraform's attributes.
//!
//! `docs/reference/openapi.json` is made from the model by the server, whose tests hold it to
//! the model. What is here walks it: a field that the model gets has an attribute with the same
//! name, without a word here. Only what the description cannot say (texts for people, defaults,
//! what means the same) stands in [`words`].

mod attributes;
mod convert;
mod words;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde_json::Value as Json;

pub(crate) use attributes::{attributes, given, key};
pub(crate) use convert::{to_json, to_value};

/// What a field holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shape {
    /// A text.
    Text,
    /// A text that is one of some.
    Words(Vec<String>),
    /// A length of time, such as `5s`.
    Duration,
    /// A service's namespace and name, written as one text.
    Key,
    /// A bool.
    Bool,
    /// A whole number, with the least and the most that it may be.
    Whole(Option<i64>, Option<i64>),
    /// A number.
    Number,
    /// Several, in order.
    List(Box<Shape>),
    /// Several, by name.
    Map(Box<Shape>),
    /// Fields of their own.
    Object(Object),
}

/// Fields, and the name that the description has for the whole, which is empty for some.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Object {
    pub(crate) name: String,
    pub(crate) fields: BTreeMap<String, Field>,
}

/// One field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    pub(crate) shape: Shape,
    /// It must be there.
    pub(crate) required: bool,
}

/// The object of that name in the description; one without fields where there is none, which the
/// tests exclude.
pub(crate) fn object(name: &str) -> Object {
    match read(&schemas()[name], name) {
        Shape::Object(object) => object,
        _ => Object::default(),
    }
}

fn schemas() -> &'static Json {
    static DOCUMENT: OnceLock<Arc<Json>> = OnceLock::new();
    let text = include_str!("../../../../docs/reference/openapi.json");
    let document =
        DOCUMENT.get_or_init(|| Arc::new(serde_json::from_str(text).unwrap_or_default()));
    &document["components"]["schemas"]
}

fn read(schema: &Json, name: &str) -> Shape {
    if let Some(target) = schema["$ref"].as_str() {
        let name = target.rsplit('/').next().unwrap_or_default();
        return match name {
            "Key" => Shape::Key,
            "Duration" => Shape::Duration,
            name => read(&schemas()[name], name),
        };
    }
    // `anyOf` is only ever something or null.
    if let Some(first) = schema["anyOf"].get(0) {
        return read(first, name);
    }
    if let Some(words) = schema["enum"].as_array() {
        let words = words.iter().filter_map(Json::as_str).map(str::to_owned);
        return Shape::Words(words.collect());
    }
    match schema["type"].as_str() {
        Some("boolean") => Shape::Bool,
        Some("integer") => Shape::Whole(schema["minimum"].as_i64(), schema["maximum"].as_i64()),
        Some("number") => Shape::Number,
        Some("array") => Shape::List(Box::new(read(&schema["items"], ""))),
        Some("object") if schema["properties"].is_object() => {
            let required = |field: &str| {
                let all = schema["required"].as_array().into_iter().flatten();
                all.filter_map(Json::as_str).any(|one| one == field)
            };
            let fields = schema["properties"].as_object().into_iter().flatten();
            let fields = fields.map(|(field, schema)| {
                let required = required(field);
                let shape = read(schema, "");
                (field.clone(), Field { shape, required })
            });
            Shape::Object(Object {
                name: name.to_owned(),
                fields: fields.collect(),
            })
        }
        Some("object") => Shape::Map(Box::new(read(&schema["additionalProperties"], ""))),
        _ => Shape::Text,
    }
}

#[cfg(test)]
mod tests;
