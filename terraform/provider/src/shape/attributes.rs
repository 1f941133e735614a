//! Attributes from shapes, each with the model's own check.

use std::sync::Arc;

use mesh_model::{Duration, Key};
use mesh_tfprotocol::{Attribute, Nesting, Type, Value};
use serde_json::Value as Json;

use super::words::{self, ARE_NOT_ATTRIBUTES};
use super::{Field, Object, Shape, to_json};
use crate::names::Names;

/// The attributes of an object; `names` says what a name without a namespace means.
pub(crate) fn attributes(object: &Object, names: &Names) -> Vec<Attribute> {
    let fields = object.fields.iter();
    let fields = fields
        .filter(|(field, _)| !ARE_NOT_ATTRIBUTES.contains(&(object.name.as_str(), field.as_str())));
    fields
        .map(|(name, field)| attribute(&object.name, name, field, names))
        .collect()
}

fn attribute(of: &str, name: &str, field: &Field, names: &Names) -> Attribute {
    let attribute = by_shape(name, &field.shape, names).describe(words::text(of, name));
    match words::default(of, name) {
        Some(default) => attribute.default(default),
        None if field.required => attribute.required(),
        None if words::is_given(of, name) => attribute.optional().computed().stable(),
        None => attribute.optional(),
    }
}

fn by_shape(name: &str, shape: &Shape, names: &Names) -> Attribute {
    match shape {
        Shape::Text => Attribute::string(name),
        Shape::Words(words) => Attribute::string(name).one_of(words.clone()),
        Shape::Duration => Attribute::string(name)
            .check(parsed::<Duration>)
            .normal(|value| match value.as_str().map(str::parse::<Duration>) {
                Some(Ok(duration)) => duration.to_string().into(),
                _ => value.clone(),
            }),
        Shape::Key => key(name, names, true),
        Shape::Bool => Attribute::bool(name),
        Shape::Whole(least, most) => {
            let (least, most) = (*least, *most);
            Attribute::number(name).check(move |value| whole(value, least, most))
        }
        Shape::Number => Attribute::number(name),
        Shape::List(of) => list(name, of, names),
        Shape::Map(of) => match &**of {
            Shape::Object(object) => nested(name, Nesting::Map, object, names),
            of => Attribute::new(name, Type::map(simple(of))),
        },
        Shape::Object(object) => nested(name, Nesting::Single, object, names),
    }
}

fn list(name: &str, of: &Shape, names: &Names) -> Attribute {
    match of {
        Shape::Object(object) => nested(name, Nesting::List, object, names),
        Shape::Words(words) => {
            let words = words.clone();
            let listed = words.join(", ");
            Attribute::new(name, Type::list(Type::String)).check(move |value| {
                let known = |text: &str| words.iter().any(|word| word == text);
                let mut unknown = value.elements().iter().filter_map(Value::as_str);
                match unknown.find(|text| !known(text)) {
                    Some(text) => Err(format!("has `{text}`, which is none of {listed}")),
                    None => Ok(()),
                }
            })
        }
        Shape::Whole(least, most) => {
            let (least, most) = (*least, *most);
            let all = move |value: &Value| {
                value
                    .elements()
                    .iter()
                    .try_for_each(|one| whole(one, least, most))
            };
            Attribute::new(name, Type::list(Type::Number)).check(all)
        }
        // Methods are taken in any case, and answered in upper case.
        of if name == "methods" => Attribute::new(name, Type::list(simple(of))).normal(|value| {
            let upper = |one: &Value| match one.as_str() {
                Some(text) => text.to_ascii_uppercase().into(),
                None => one.clone(),
            };
            Value::List(value.elements().iter().map(upper).collect())
        }),
        of => Attribute::new(name, Type::list(simple(of))),
    }
}

/// Objects. Those that the model knows by a name are read by it, so that what it refuses is said
/// of the innermost object that is wrong.
fn nested(name: &str, nesting: Nesting, object: &Object, names: &Names) -> Attribute {
    // An object without a name in the description is known by the field that it is in.
    let mut object = object.clone();
    if object.name.is_empty() {
        object.name = name.to_owned();
    }
    let inner = attributes(&object, names);
    let shape = Arc::new(object.clone());
    let names = names.clone();
    let is_header = name == "headers";
    let each = move |value: &Value| match value.is_known() {
        true => refused(
            &shape,
            is_header,
            &to_json(value, &Shape::Object((*shape).clone()), &names),
        ),
        false => Ok(()),
    };
    let attribute = Attribute::nested(name, nesting, inner);
    let attribute = match object.name.as_str() {
        "Condition" if is_header => attribute.normal(lower_names),
        _ => attribute,
    };
    attribute.each(each)
}

/// Headers are answered in lower case.
fn lower_names(value: &Value) -> Value {
    let one = |one: &Value| {
        let mut one = one.clone();
        if let Some(name) = one.get("name").as_str().map(str::to_ascii_lowercase) {
            one.set("name", name);
        }
        if one.get("invert").is_null() {
            one.set("invert", false);
        }
        one
    };
    Value::List(value.elements().iter().map(one).collect())
}

/// What the model says of an object by itself.
fn refused(object: &Object, is_header: bool, json: &Json) -> Result<(), String> {
    use mesh_model::{HeaderMatch, OutlierDetection, Permission, QueryMatch, RequestMatch, Rule};
    let said = match object.name.as_str() {
        "Condition" if is_header => said::<HeaderMatch>(json),
        "Condition" => said::<QueryMatch>(json),
        "RequestMatch" => said::<RequestMatch>(json),
        "Permission" => said::<Permission>(json),
        "Rule" => said::<Rule>(json),
        "TlsPolicy" => said::<mesh_model::TlsPolicy>(json),
        "retries" => said::<mesh_model::Retries>(json),
        "to" => said::<mesh_model::Destination>(json),
        "subsets" => said::<mesh_model::Subset>(json),
        "outlier_detection" => said::<OutlierDetection>(json),
        _ => None,
    };
    said.map_or(Ok(()), Err)
}

fn said<T: serde::de::DeserializeOwned>(json: &Json) -> Option<String> {
    serde_json::from_value::<T>(json.clone())
        .err()
        .map(|error| format!("is refused: {error}"))
}

/// The attributes of what is only read.
pub(crate) fn given(object: &Object) -> Vec<Attribute> {
    let fields = object.fields.iter();
    fields
        .map(|(name, field)| given_one(&object.name, name, &field.shape))
        .collect()
}

fn given_one(of: &str, name: &str, shape: &Shape) -> Attribute {
    let inner = |object: &Object| {
        let mut object = object.clone();
        if object.name.is_empty() {
            object.name = name.to_owned();
        }
        given(&object)
    };
    let attribute = match shape {
        Shape::List(one) => match &**one {
            Shape::Object(object) => Attribute::nested(name, Nesting::List, inner(object)),
            one => Attribute::new(name, Type::list(simple(one))),
        },
        Shape::Map(one) => match &**one {
            Shape::Object(object) => Attribute::nested(name, Nesting::Map, inner(object)),
            one => Attribute::new(name, Type::map(simple(one))),
        },
        Shape::Object(object) => Attribute::single(name, inner(object)),
        shape => Attribute::new(name, simple(shape)),
    };
    let text = [of.strip_suffix("Row").unwrap_or(of), of].map(|of| words::text(of, name));
    let text = text.into_iter().find(|text| !text.is_empty());
    attribute
        .computed()
        .describe(text.unwrap_or("As the HTTP API has it."))
}

/// A service's name, with or without its namespace; `exact`: without a wildcard.
pub(crate) fn key(name: &str, names: &Names, exact: bool) -> Attribute {
    let normal = names.clone();
    Attribute::string(name)
        .check(move |value| match value.as_str().map(str::parse::<Key>) {
            Some(Err(error)) => Err(format!("is wrong: {error}")),
            Some(Ok(key)) if exact => key.check().map_err(|error| format!("is wrong: {error}")),
            _ => Ok(()),
        })
        .normal(
            move |value| match value.as_str().and_then(|text| normal.key(text).ok()) {
                Some(key) => format!("{}/{}", key.namespace, key.name).into(),
                None => value.clone(),
            },
        )
}

fn simple(shape: &Shape) -> Type {
    match shape {
        Shape::Bool => Type::Bool,
        Shape::Whole(..) | Shape::Number => Type::Number,
        _ => Type::String,
    }
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(value: &Value) -> Result<(), String> {
    match value.as_str().map(str::parse::<T>) {
        Some(Err(error)) => Err(format!("is wrong: {error}")),
        _ => Ok(()),
    }
}

fn whole(value: &Value, least: Option<i64>, most: Option<i64>) -> Result<(), String> {
    if value.is_null() || value.is_unknown() {
        return Ok(());
    }
    let Some(number) = value.as_i64() else {
        return Err("must be a whole number".to_owned());
    };
    match (least, most) {
        (Some(least), _) if number < least => Err(format!("must be {least} or more")),
        (_, Some(most)) if number > most => Err(format!("must be {most} or less")),
        _ => Ok(()),
    }
}
