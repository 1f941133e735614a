//! What a change will bring about, as far as the schema tells.

use std::collections::BTreeMap;

use crate::schema::{Attribute, Kind, Nesting, Schema};
use crate::{Path, Value};

/// What is planned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Planned {
    /// The state as it will be; what only the making tells is unknown in it.
    pub state: Value,
    /// The attributes whose change makes the resource anew.
    pub replaces: Vec<Path>,
}

/// The plan for what is written in `config`, where `prior` is the state now
/// (null when there is none).
pub(crate) fn plan(schema: &Schema, prior: &Value, config: &Value) -> Planned {
    let mut state = object(&schema.attributes, prior, config);
    if prior.is_null() {
        return Planned {
            state,
            replaces: Vec::new(),
        };
    }
    if state != *prior {
        unsettle(&schema.attributes, config, &mut state);
    }
    let mut replaces = Vec::new();
    changed(
        &schema.attributes,
        prior,
        &state,
        &Path::root(),
        &mut replaces,
    );
    Planned { state, replaces }
}

fn object(attributes: &[Attribute], prior: &Value, config: &Value) -> Value {
    if config.entries().is_none() {
        return config.clone();
    }
    let one = |one: &Attribute| {
        let (prior_of, config) = (prior.get(&one.name), config.get(&one.name));
        (
            one.name.clone(),
            attribute(one, prior.is_null(), prior_of, config),
        )
    };
    Value::Map(attributes.iter().map(one).collect())
}

fn attribute(one: &Attribute, is_new: bool, prior: &Value, config: &Value) -> Value {
    let planned = planned(one, is_new, prior, config);
    match one.is_set() && planned.is_same_set(prior) {
        true => prior.clone(),
        false => planned,
    }
}

fn planned(one: &Attribute, is_new: bool, prior: &Value, config: &Value) -> Value {
    if one.write_only {
        return Value::Null;
    }
    if config.is_null() {
        return match (&one.default, one.computed) {
            (Some(default), _) => with_defaults(one, default),
            (None, true) if is_new => Value::Unknown,
            (None, true) => prior.clone(),
            (None, false) => Value::Null,
        };
    }
    let Kind::Nested(nesting, inner) = &one.kind else {
        return config.clone();
    };
    match (nesting, config) {
        (Nesting::Single, config) => object(inner, prior, config),
        (Nesting::List, Value::List(all)) => {
            let all = all.iter().enumerate().map(|(at, config)| {
                let prior = prior.elements().get(at).unwrap_or(&Value::Null);
                object(inner, prior, config)
            });
            Value::List(all.collect())
        }
        (Nesting::Set, Value::List(all)) => Value::List(
            all.iter()
                .map(|config| object(inner, &Value::Null, config))
                .collect(),
        ),
        (Nesting::Map, Value::Map(all)) => {
            let all = all
                .iter()
                .map(|(name, config)| (name.clone(), object(inner, prior.get(name), config)));
            Value::Map(all.collect())
        }
        _ => config.clone(),
    }
}

/// A default may be an object with defaults of its own.
fn with_defaults(one: &Attribute, default: &Value) -> Value {
    let alone = Schema {
        attributes: vec![one.clone()],
        ..Schema::default()
    };
    let value = Value::object([(one.name.as_str(), default.clone())]);
    alone.with_defaults(&value).get(&one.name).clone()
}

/// What the provider gives may be another with any change, unless it is stable.
fn unsettle(attributes: &[Attribute], config: &Value, state: &mut Value) {
    let Value::Map(all) = state else { return };
    for one in attributes {
        let Some(value) = all.get_mut(&one.name) else {
            continue;
        };
        let config = config.get(&one.name);
        if config.is_null() {
            if one.computed && one.default.is_none() && !one.stable {
                *value = Value::Unknown;
            }
            continue;
        }
        let Kind::Nested(nesting, inner) = &one.kind else {
            continue;
        };
        match (nesting, value) {
            (Nesting::Single, value) => unsettle(inner, config, value),
            (Nesting::List, Value::List(all)) => {
                for (at, value) in all.iter_mut().enumerate() {
                    let config = config.elements().get(at).unwrap_or(&Value::Null);
                    unsettle(inner, config, value);
                }
            }
            (Nesting::Map, Value::Map(all)) => {
                for (name, value) in all.iter_mut() {
                    unsettle(inner, config.get(name), value);
                }
            }
            _ => {}
        }
    }
}

/// The attributes that make it anew and are another than before.
fn changed(
    attributes: &[Attribute],
    prior: &Value,
    state: &Value,
    path: &Path,
    out: &mut Vec<Path>,
) {
    for one in attributes {
        let (prior, state) = (prior.get(&one.name), state.get(&one.name));
        if prior == state {
            continue;
        }
        let at = path.attribute(&one.name);
        if one.replaces {
            out.push(at);
            continue;
        }
        let Kind::Nested(nesting, inner) = &one.kind else {
            continue;
        };
        match (nesting, state) {
            (Nesting::Single, state) => changed(inner, prior, state, &at, out),
            (Nesting::List, Value::List(all)) => {
                for (index, state) in all.iter().enumerate() {
                    let prior = prior.elements().get(index).unwrap_or(&Value::Null);
                    changed(inner, prior, state, &at.index(index), out);
                }
            }
            (Nesting::Map, Value::Map(all)) => {
                let all: &BTreeMap<String, Value> = all;
                for (name, state) in all {
                    changed(inner, prior.get(name), state, &at.key(name), out);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
