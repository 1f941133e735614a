//! Values in JSON: states, and identities, as Terraform keeps them.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::WireError;
use crate::{Number, Type, Value};

/// Reads a value of a type. An attribute of an object that is not there is
/// null; one that the type does not have is passed over, since a state may be
/// of an older schema.
pub fn from_json(json: &Json, ty: &Type) -> Result<Value, WireError> {
    let wrong = || WireError::new(format!("{} is not a {ty}", brief(json)));
    Ok(match (ty, json) {
        (_, Json::Null) => Value::Null,
        (Type::Bool, Json::Bool(value)) => Value::Bool(*value),
        (Type::Number, Json::Number(number)) => {
            Value::Number(Number::parse(&number.to_string()).ok_or_else(wrong)?)
        }
        (Type::String, Json::String(text)) => Value::String(text.clone()),
        (Type::List(of) | Type::Set(of), Json::Array(all)) => {
            let read =
                |(at, one)| from_json(one, of).map_err(|e: WireError| e.within(&format!("{at}")));
            Value::List(all.iter().enumerate().map(read).collect::<Result<_, _>>()?)
        }
        (Type::Tuple(of), Json::Array(all)) if of.len() == all.len() => {
            let read = |(one, of)| from_json(one, of);
            Value::List(all.iter().zip(of).map(read).collect::<Result<_, _>>()?)
        }
        (Type::Map(of), Json::Object(all)) => {
            let mut map = BTreeMap::new();
            for (name, one) in all {
                map.insert(
                    name.clone(),
                    from_json(one, of).map_err(|e| e.within(name))?,
                );
            }
            Value::Map(map)
        }
        (Type::Object(of), Json::Object(all)) => {
            let mut map = BTreeMap::new();
            for (name, of) in of {
                let one = all.get(name).unwrap_or(&Json::Null);
                map.insert(
                    name.clone(),
                    from_json(one, of).map_err(|e| e.within(name))?,
                );
            }
            Value::Map(map)
        }
        (Type::Dynamic, Json::Object(all)) => {
            let (Some(ty), Some(value)) = (all.get("type"), all.get("value")) else {
                return Err(wrong());
            };
            let ty = Type::from_json(ty).map_err(|e| WireError::new(e.to_string()))?;
            let value = from_json(value, &ty)?;
            Value::Typed(ty, Box::new(value))
        }
        _ => return Err(wrong()),
    })
}

/// Writes a value. What is unknown has no JSON form.
pub fn to_json(value: &Value) -> Result<Json, WireError> {
    Ok(match value {
        Value::Null => Json::Null,
        Value::Unknown => return Err(WireError::new("a value is not known yet")),
        Value::Bool(value) => json!(value),
        Value::Number(number) => {
            let text = number.to_string();
            serde_json::from_str(&text).map_err(|_| WireError::new("it is not a number"))?
        }
        Value::String(text) => json!(text),
        Value::List(all) => Json::Array(all.iter().map(to_json).collect::<Result<_, _>>()?),
        Value::Map(all) => {
            let mut map = Map::new();
            for (name, one) in all {
                map.insert(name.clone(), to_json(one).map_err(|e| e.within(name))?);
            }
            Json::Object(map)
        }
        Value::Typed(ty, value) => json!({ "type": ty.to_json(), "value": to_json(value)? }),
    })
}

/// Its kind only: a state may hold what must not be shown.
fn brief(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a bool",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}
