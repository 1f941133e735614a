#![allow(clippy::unwrap_used)]
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{Number, Type, Value};

/// Beyond what a float holds only where `large`: JSON is read as floats.
fn number(large: bool) -> impl Strategy<Value = Number> {
    prop_oneof![
        any::<i64>().prop_map(Number::Int),
        // What people write; serde_json does not read the last bit of every float.
        any::<i32>().prop_map(|hundredths| Number::of(f64::from(hundredths) / 100.0)),
        "[1-9][0-9]{20,40}".prop_map(move |text| match large {
            true => Number::parse(&text).unwrap(),
            false => Number::Int(0),
        }),
    ]
}

/// A type and a value of it; in JSON nothing may be unknown.
fn typed(unknown: bool) -> impl Strategy<Value = (Type, Value)> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(|b| (Type::Bool, Value::Bool(b))),
        number(unknown).prop_map(|n| (Type::Number, Value::Number(n))),
        ".{0,40}".prop_map(|s| (Type::String, Value::String(s))),
        Just((Type::String, Value::Null)),
        Just((
            Type::Number,
            if unknown { Value::Unknown } else { Value::Null }
        )),
        Just((
            Type::Bool,
            if unknown { Value::Unknown } else { Value::Null }
        )),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            (inner.clone(), 0_usize..40)
                .prop_map(|((ty, one), count)| { (Type::list(ty), Value::List(vec![one; count])) }),
            inner
                .clone()
                .prop_map(|(ty, one)| (Type::set(ty), Value::List(vec![one]))),
            (inner.clone(), "[a-z]{1,40}")
                .prop_map(|((ty, one), name)| { (Type::map(ty), Value::object([(name, one)])) }),
            proptest::collection::btree_map("[a-z_]{1,8}", inner.clone(), 0..20).prop_map(|all| {
                let ty = all.iter().map(|(name, (ty, _))| (name.clone(), ty.clone()));
                let ty = Type::Object(ty.collect());
                (
                    ty,
                    Value::Map(
                        all.into_iter()
                            .map(|(name, (_, one))| (name, one))
                            .collect(),
                    ),
                )
            }),
            proptest::collection::vec(inner.clone(), 0..5).prop_map(|all| {
                let (ty, all) = all.into_iter().unzip();
                (Type::Tuple(ty), Value::List(all))
            }),
            inner
                .prop_filter("null has no type", |(_, one)| !one.is_null()
                    && !one.is_unknown())
                .prop_map(|(ty, one)| (Type::Dynamic, Value::Typed(ty, Box::new(one)))),
        ]
    })
}

proptest! {
    #[test]
    fn msgpack_reads_what_it_writes((ty, value) in typed(true)) {
        let bytes = encode(&value, &ty).unwrap();
        prop_assert_eq!(decode(&bytes, &ty).unwrap(), value);
    }

    #[test]
    fn json_reads_what_it_writes((ty, value) in typed(false)) {
        // A float in JSON may be written as a whole number; numbers have one form.
        let json = to_json(&value).unwrap();
        let text: serde_json::Value = serde_json::from_str(&json.to_string()).unwrap();
        prop_assert_eq!(to_json(&from_json(&text, &ty).unwrap()).unwrap(), json);
    }

    #[test]
    fn types_read_what_they_write((ty, _) in typed(true)) {
        prop_assert_eq!(Type::from_json(&ty.to_json()).unwrap(), ty);
    }

    #[test]
    fn any_bytes_are_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..60), (ty, _) in typed(true)) {
        let _ = decode(&bytes, &ty);
    }
}

/// Bytes as Terraform's own encoder (go-cty over vmihailenco's msgpack) makes them.
#[test]
fn what_terraform_writes_is_read() {
    let object = Type::object([
        ("a", Type::String),
        ("b", Type::Number),
        ("c", Type::Dynamic),
    ]);
    let bytes = b"\x83\xa1a\xa2hi\xa1b\xcd\x03\xe8\xa1c\x92\xc4\x08\"string\"\xa1x";
    let value = decode(bytes, &object).unwrap();
    assert_eq!(value.get("a"), &Value::from("hi"));
    assert_eq!(value.get("b"), &Value::from(1000));
    let typed = Value::Typed(Type::String, Box::new("x".into()));
    assert_eq!(value.get("c"), &typed);
    // Unknown, plain and refined (not null, with a prefix).
    assert_eq!(
        decode(b"\xd4\x00\x00", &Type::String).unwrap(),
        Value::Unknown
    );
    let refined = b"\xc7\x08\x0c\x82\x01\xc2\x02\xa3ab-";
    assert_eq!(decode(refined, &Type::String).unwrap(), Value::Unknown);
    // A number too large for a float.
    let large = decode(b"\xb61234567890123456789.25", &Type::Number).unwrap();
    assert_eq!(
        large,
        Value::Number(Number::Text("1234567890123456789.25".into()))
    );
    assert_eq!(
        encode(&large, &Type::Number).unwrap(),
        b"\xb61234567890123456789.25"
    );
    // A whole number may come as a float.
    let float = decode(b"\xcb\x40\x14\x00\x00\x00\x00\x00\x00", &Type::Number).unwrap();
    assert_eq!(float, Value::from(5));
}

#[test]
fn what_is_wrong_is_named_by_its_place() {
    let ty = Type::object([("rules", Type::list(Type::object([("name", Type::String)])))]);
    let rules = Value::List(vec![Value::object([("name", Value::Bool(true))])]);
    let error = encode(&Value::object([("rules", rules)]), &ty).unwrap_err();
    assert_eq!(error.to_string(), "rules.0.name: it is not a string");
    let error = encode(&Value::object([("rulez", Value::Null)]), &ty).unwrap_err();
    assert_eq!(error.to_string(), "there is no attribute `rulez`");
    let error = from_json(&json!({"rules": [{"name": 1}]}), &ty).unwrap_err();
    assert_eq!(error.to_string(), "rules.0.name: a number is not a string");
}

#[test]
fn what_is_nested_without_end_is_refused() {
    let mut ty = Type::String;
    for _ in 0..200 {
        ty = Type::list(ty);
    }
    let mut bytes = vec![0x91; 200];
    bytes.push(0xa0);
    assert!(decode(&bytes, &ty).is_err());
    assert!(Type::from_json(&ty.to_json()).is_err());
    // A list that says it is longer than all memory.
    assert!(decode(b"\xdd\xff\xff\xff\xff", &Type::list(Type::String)).is_err());
}
