//! Defaults, and values that mean the same.
//!
//! Terraform shows a difference wherever what is read is not, byte for byte,
//! what was written. So a state always has the defaults in it, and keeps what
//! was written (`60s`) for as long as what is read (`1m`) means the same.

use std::collections::BTreeMap;

use super::{Attribute, Kind, Nesting, Schema};
use crate::Value;

impl Schema {
    /// The value with every default where it has null.
    pub fn with_defaults(&self, value: &Value) -> Value {
        object(&self.attributes, value, &with_default)
    }

    /// What was read, in the words of what was written before wherever it means
    /// the same.
    pub fn in_words_of(&self, before: &Value, read: &Value) -> Value {
        if before.entries().is_none() || read.entries().is_none() {
            return read.clone();
        }
        let mut all = BTreeMap::new();
        for one in &self.attributes {
            let (before, read) = (before.get(&one.name), read.get(&one.name));
            all.insert(one.name.clone(), one.in_words_of(before, read));
        }
        Value::Map(all)
    }

    /// The value with null for whatever is only written.
    pub(crate) fn without_secrets(&self, value: &Value) -> Value {
        object(
            &self.attributes,
            value,
            &|attribute, value| match attribute.write_only {
                true => Value::Null,
                false => attribute.inner(value, &|inner, value| without_secret(inner, value)),
            },
        )
    }
}

fn without_secret(attribute: &Attribute, value: &Value) -> Value {
    match attribute.write_only {
        true => Value::Null,
        false => attribute.inner(value, &without_secret),
    }
}

fn with_default(attribute: &Attribute, value: &Value) -> Value {
    let value = match (&attribute.default, value) {
        (Some(default), Value::Null) => default,
        _ => value,
    };
    attribute.inner(value, &with_default)
}

type Turn<'a> = &'a dyn Fn(&Attribute, &Value) -> Value;

fn object(attributes: &[Attribute], value: &Value, turn: Turn<'_>) -> Value {
    if value.entries().is_none() {
        return value.clone();
    }
    let one = |one: &Attribute| (one.name.clone(), turn(one, value.get(&one.name)));
    Value::Map(attributes.iter().map(one).collect())
}

impl Attribute {
    /// The value with every nested attribute's value turned.
    fn inner(&self, value: &Value, turn: Turn<'_>) -> Value {
        let Kind::Nested(nesting, attributes) = &self.kind else {
            return value.clone();
        };
        match (nesting, value) {
            (Nesting::Single, value) => object(attributes, value, turn),
            (_, Value::List(all)) => Value::List(
                all.iter()
                    .map(|one| object(attributes, one, turn))
                    .collect(),
            ),
            (_, Value::Map(all)) => {
                let one = |(name, one): (&String, _)| (name.clone(), object(attributes, one, turn));
                Value::Map(all.iter().map(one).collect())
            }
            _ => value.clone(),
        }
    }

    /// The form in which values that mean the same are equal: an empty
    /// collection, and an object with nothing in it, is as null.
    fn normal_of(&self, value: &Value) -> Value {
        let value = match &self.normal {
            Some(normal) if !value.is_null() && !value.is_unknown() => normal(value),
            _ => self.inner(value, &Self::normal_of),
        };
        match &value {
            Value::List(all) if all.is_empty() => Value::Null,
            Value::Map(all) if all.values().all(Value::is_null) => Value::Null,
            _ => value,
        }
    }

    fn in_words_of(&self, before: &Value, read: &Value) -> Value {
        let (normal, normal_read) = (self.normal_of(before), self.normal_of(read));
        if normal == normal_read || self.is_set() && normal.is_same_set(&normal_read) {
            return before.clone();
        }
        let Kind::Nested(nesting, attributes) = &self.kind else {
            return read.clone();
        };
        let one = |before: &Value, read: &Value| {
            let inner = Schema {
                attributes: attributes.clone(),
                ..Schema::default()
            };
            inner.in_words_of(before, read)
        };
        match (nesting, before, read) {
            (Nesting::Single, before, read) => one(before, read),
            (Nesting::List, Value::List(before), Value::List(read)) => {
                let read = read.iter().enumerate();
                let read = read.map(|(at, read)| one(before.get(at).unwrap_or(&Value::Null), read));
                Value::List(read.collect())
            }
            (Nesting::Map, before, Value::Map(read)) => {
                let read = read.iter();
                let read = read.map(|(name, read)| (name.clone(), one(before.get(name), read)));
                Value::Map(read.collect())
            }
            _ => read.clone(),
        }
    }
}
