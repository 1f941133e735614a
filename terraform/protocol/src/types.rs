//! Types of values, and their form in JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

/// Deepest type that is read, in levels: no schema comes near it.
const DEEPEST: usize = 64;

/// The type of a [`crate::Value`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// A number.
    Number,
    /// A text.
    String,
    /// Any: the value carries its type.
    Dynamic,
    /// Values of one type, in order.
    List(Box<Type>),
    /// Values of one type, none twice, without an order.
    Set(Box<Type>),
    /// Values of one type by name.
    Map(Box<Type>),
    /// Values, each of its own type, by name.
    Object(BTreeMap<String, Type>),
    /// Values, each of its own type, in order.
    Tuple(Vec<Type>),
}

/// A type that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a type")]
pub struct TypeError(String);

impl Type {
    /// A list of these.
    pub fn list(of: Self) -> Self {
        Self::List(Box::new(of))
    }

    /// A set of these.
    pub fn set(of: Self) -> Self {
        Self::Set(Box::new(of))
    }

    /// A map of these.
    pub fn map(of: Self) -> Self {
        Self::Map(Box::new(of))
    }

    /// An object with these attributes.
    pub fn object<N: Into<String>>(of: impl IntoIterator<Item = (N, Self)>) -> Self {
        Self::Object(of.into_iter().map(|(name, of)| (name.into(), of)).collect())
    }

    /// As Terraform writes it: `"string"`, `["list","string"]`,
    /// `["object",{"a":"bool"}]`.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Bool => json!("bool"),
            Self::Number => json!("number"),
            Self::String => json!("string"),
            Self::Dynamic => json!("dynamic"),
            Self::List(of) => json!(["list", of.to_json()]),
            Self::Set(of) => json!(["set", of.to_json()]),
            Self::Map(of) => json!(["map", of.to_json()]),
            Self::Object(of) => {
                let of: Map<String, Json> = of
                    .iter()
                    .map(|(name, of)| (name.clone(), of.to_json()))
                    .collect();
                json!(["object", of])
            }
            Self::Tuple(of) => {
                json!(["tuple", of.iter().map(Self::to_json).collect::<Vec<_>>()])
            }
        }
    }

    /// The same as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_json().to_string().into_bytes()
    }

    /// Reads what [`Self::to_json`] writes. Which attributes of an object are
    /// optional, which Terraform may add, is not kept.
    pub fn from_json(json: &Json) -> Result<Self, TypeError> {
        Self::read(json, 0)
    }

    fn read(json: &Json, depth: usize) -> Result<Self, TypeError> {
        let wrong = || TypeError(json.to_string().chars().take(80).collect());
        if depth > DEEPEST {
            return Err(TypeError("what is nested so deeply".to_owned()));
        }
        if let Some(word) = json.as_str() {
            return match word {
                "bool" => Ok(Self::Bool),
                "number" => Ok(Self::Number),
                "string" => Ok(Self::String),
                "dynamic" => Ok(Self::Dynamic),
                _ => Err(wrong()),
            };
        }
        let parts = json.as_array().ok_or_else(wrong)?;
        let (kind, of) = match parts.as_slice() {
            [kind, of] | [kind, of, _] => (kind.as_str().ok_or_else(wrong)?, of),
            _ => return Err(wrong()),
        };
        Ok(match (kind, of) {
            ("list", of) => Self::list(Self::read(of, depth + 1)?),
            ("set", of) => Self::set(Self::read(of, depth + 1)?),
            ("map", of) => Self::map(Self::read(of, depth + 1)?),
            ("object", Json::Object(of)) => {
                let mut all = BTreeMap::new();
                for (name, of) in of {
                    all.insert(name.clone(), Self::read(of, depth + 1)?);
                }
                Self::Object(all)
            }
            ("tuple", Json::Array(of)) => {
                let of: Result<_, _> = of.iter().map(|of| Self::read(of, depth + 1)).collect();
                Self::Tuple(of?)
            }
            _ => return Err(wrong()),
        })
    }
}

/// As people write it: `list(string)`.
impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Number => f.write_str("number"),
            Self::String => f.write_str("string"),
            Self::Dynamic => f.write_str("any"),
            Self::List(of) => write!(f, "list({of})"),
            Self::Set(of) => write!(f, "set({of})"),
            Self::Map(of) => write!(f, "map({of})"),
            Self::Object(_) => f.write_str("object"),
            Self::Tuple(_) => f.write_str("tuple"),
        }
    }
}
