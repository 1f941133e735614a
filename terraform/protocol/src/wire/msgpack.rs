//! MessagePack, with Terraform's two additions: an extension that stands for
//! what is not known yet, and a pair of type and value where any type may be.

use std::collections::BTreeMap;

use super::WireError;
use crate::{Number, Type, Value};

/// Deepest value that is read, in levels.
const DEEPEST: usize = 128;

/// How the length of something is written: by its low bits, or in 1, 2 or 4 bytes.
struct Lengths {
    fixed: Option<(u8, usize)>,
    one: Option<u8>,
    two: u8,
    four: u8,
}

const STRINGS: Lengths = Lengths {
    fixed: Some((0xa0, 31)),
    one: Some(0xd9),
    two: 0xda,
    four: 0xdb,
};
const BYTES: Lengths = Lengths {
    fixed: None,
    one: Some(0xc4),
    two: 0xc5,
    four: 0xc6,
};
const ARRAYS: Lengths = Lengths {
    fixed: Some((0x90, 15)),
    one: None,
    two: 0xdc,
    four: 0xdd,
};
const MAPS: Lengths = Lengths {
    fixed: Some((0x80, 15)),
    one: None,
    two: 0xde,
    four: 0xdf,
};

/// Writes a value of a type. The value must be one: a provider's own mistake is
/// found here, before Terraform finds it.
pub fn encode(value: &Value, ty: &Type) -> Result<Vec<u8>, WireError> {
    let mut out = Vec::new();
    put(&mut out, value, ty)?;
    Ok(out)
}

fn put(out: &mut Vec<u8>, value: &Value, ty: &Type) -> Result<(), WireError> {
    match (ty, value) {
        (_, Value::Null) => out.push(0xc0),
        (_, Value::Unknown) => out.extend([0xd4, 0, 0]),
        (Type::Dynamic, Value::Typed(ty, value)) => {
            head(out, &ARRAYS, 2);
            let name = ty.to_bytes();
            head(out, &BYTES, name.len());
            out.extend(name);
            put(out, value, ty)?;
        }
        (Type::Bool, Value::Bool(value)) => out.push(if *value { 0xc3 } else { 0xc2 }),
        (Type::Number, Value::Number(number)) => put_number(out, number),
        (Type::String, Value::String(text)) => put_text(out, text),
        (Type::List(of) | Type::Set(of), Value::List(all)) => {
            head(out, &ARRAYS, all.len());
            for (at, one) in all.iter().enumerate() {
                put(out, one, of).map_err(|e| e.within(&at.to_string()))?;
            }
        }
        (Type::Tuple(of), Value::List(all)) if of.len() == all.len() => {
            head(out, &ARRAYS, all.len());
            for (one, of) in all.iter().zip(of) {
                put(out, one, of)?;
            }
        }
        (Type::Map(of), Value::Map(all)) => {
            head(out, &MAPS, all.len());
            for (name, one) in all {
                put_text(out, name);
                put(out, one, of).map_err(|e| e.within(name))?;
            }
        }
        (Type::Object(of), Value::Map(all)) => {
            if let Some(name) = all.keys().find(|name| !of.contains_key(*name)) {
                return Err(WireError::new(format!("there is no attribute `{name}`")));
            }
            head(out, &MAPS, of.len());
            for (name, of) in of {
                put_text(out, name);
                let one = all.get(name).unwrap_or(&Value::Null);
                put(out, one, of).map_err(|e| e.within(name))?;
            }
        }
        _ => return Err(WireError::new(format!("it is not a {ty}"))),
    }
    Ok(())
}

fn head(out: &mut Vec<u8>, lengths: &Lengths, len: usize) {
    match (lengths.fixed, lengths.one) {
        (Some((base, most)), _) if len <= most => out.push(base | len as u8),
        (_, Some(one)) if len <= 0xff => out.extend([one, len as u8]),
        _ if len <= 0xffff => {
            out.push(lengths.two);
            out.extend((len as u16).to_be_bytes());
        }
        // Nothing beyond 4 GiB fits a message anyway.
        _ => {
            out.push(lengths.four);
            out.extend((len as u32).to_be_bytes());
        }
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    head(out, &STRINGS, text.len());
    out.extend(text.as_bytes());
}

fn put_number(out: &mut Vec<u8>, number: &Number) {
    match number {
        Number::Int(whole @ 0..=0x7f) => out.push(*whole as u8),
        Number::Int(whole @ -32..=-1) => out.push(*whole as i8 as u8),
        Number::Int(whole) => {
            out.push(0xd3);
            out.extend(whole.to_be_bytes());
        }
        Number::Float(float) => {
            out.push(0xcb);
            out.extend(float.to_be_bytes());
        }
        Number::Text(text) => put_text(out, text),
    }
}

/// Reads a value of a type, to the last byte.
pub fn decode(bytes: &[u8], ty: &Type) -> Result<Value, WireError> {
    let mut input = Input { rest: bytes };
    let value = input.value(ty, 0)?;
    match input.rest.is_empty() {
        true => Ok(value),
        false => Err(WireError::new("something follows the value")),
    }
}

struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, WireError> {
        self.take(1)?.first().copied().ok_or_else(short)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.take(N)?.try_into().map_err(|_| short())
    }

    fn peek(&self) -> Result<u8, WireError> {
        self.rest.first().copied().ok_or_else(short)
    }

    /// The length of what is written so, or `None` where something else stands.
    fn len(&mut self, lengths: &Lengths) -> Result<Option<usize>, WireError> {
        let first = self.peek()?;
        let len = match lengths.fixed {
            Some((base, most)) if first & !(most as u8) == base => {
                self.byte()?;
                return Ok(Some(usize::from(first) & most));
            }
            _ if lengths.one == Some(first) => 1,
            _ if lengths.two == first => 2,
            _ if lengths.four == first => 4,
            _ => return Ok(None),
        };
        self.byte()?;
        let bytes = self.take(len)?;
        Ok(Some(
            bytes.iter().fold(0, |sum, b| sum << 8 | usize::from(*b)),
        ))
    }

    fn text(&mut self) -> Result<Option<&'a str>, WireError> {
        let Some(len) = self.len(&STRINGS)? else {
            return Ok(None);
        };
        let text = std::str::from_utf8(self.take(len)?);
        Ok(Some(
            text.map_err(|_| WireError::new("a text is not UTF-8"))?,
        ))
    }

    fn value(&mut self, ty: &Type, depth: usize) -> Result<Value, WireError> {
        if depth > DEEPEST {
            return Err(WireError::new("the value is nested too deeply"));
        }
        let wrong = || WireError::new(format!("it is not a {ty}"));
        match self.peek()? {
            0xc0 => {
                self.byte()?;
                return Ok(Value::Null);
            }
            0xc7..=0xc9 | 0xd4..=0xd8 => {
                self.extension()?;
                return Ok(Value::Unknown);
            }
            _ => {}
        }
        Ok(match ty {
            Type::Dynamic => {
                if self.len(&ARRAYS)? != Some(2) {
                    return Err(wrong());
                }
                let len = match self.len(&BYTES)? {
                    Some(len) => len,
                    None => self.len(&STRINGS)?.ok_or_else(wrong)?,
                };
                let json = serde_json::from_slice(self.take(len)?).map_err(|_| wrong())?;
                let ty = Type::from_json(&json).map_err(|e| WireError::new(e.to_string()))?;
                let value = self.value(&ty, depth + 1)?;
                Value::Typed(ty, Box::new(value))
            }
            Type::Bool => match self.byte()? {
                0xc2 => Value::Bool(false),
                0xc3 => Value::Bool(true),
                _ => return Err(wrong()),
            },
            Type::Number => Value::Number(self.read_number()?),
            Type::String => Value::String(self.text()?.ok_or_else(wrong)?.to_owned()),
            Type::List(of) | Type::Set(of) => {
                let len = self.len(&ARRAYS)?.ok_or_else(wrong)?;
                // What is announced is not believed: each element is a byte at least.
                let mut all = Vec::with_capacity(len.min(self.rest.len()));
                for at in 0..len {
                    let one = self.value(of, depth + 1);
                    all.push(one.map_err(|e| e.within(&at.to_string()))?);
                }
                Value::List(all)
            }
            Type::Tuple(of) => {
                if self.len(&ARRAYS)? != Some(of.len()) {
                    return Err(wrong());
                }
                let read = of.iter().map(|of| self.value(of, depth + 1));
                Value::List(read.collect::<Result<_, _>>()?)
            }
            Type::Map(of) => {
                let mut all = BTreeMap::new();
                for _ in 0..self.len(&MAPS)?.ok_or_else(wrong)? {
                    let name = self.text()?.ok_or_else(wrong)?;
                    let one = self.value(of, depth + 1).map_err(|e| e.within(name))?;
                    all.insert(name.to_owned(), one);
                }
                Value::Map(all)
            }
            Type::Object(of) => {
                let mut all = BTreeMap::new();
                for _ in 0..self.len(&MAPS)?.ok_or_else(wrong)? {
                    let name = self.text()?.ok_or_else(wrong)?;
                    let Some(of) = of.get(name) else {
                        return Err(WireError::new(format!("there is no attribute `{name}`")));
                    };
                    let one = self.value(of, depth + 1).map_err(|e| e.within(name))?;
                    all.insert(name.to_owned(), one);
                }
                for name in of.keys() {
                    all.entry(name.clone()).or_insert(Value::Null);
                }
                Value::Map(all)
            }
        })
    }

    /// Every extension is what is not known yet. What more Terraform says of it
    /// (not null, a prefix) would be of use to nobody here.
    fn extension(&mut self) -> Result<(), WireError> {
        let len = match self.byte()? {
            0xd4 => 1,
            0xd5 => 2,
            0xd6 => 4,
            0xd7 => 8,
            0xd8 => 16,
            0xc7 => usize::from(self.byte()?),
            0xc8 => usize::from(u16::from_be_bytes(self.number()?)),
            _ => u32::from_be_bytes(self.number()?) as usize,
        };
        self.take(len + 1).map(drop)
    }

    fn read_number(&mut self) -> Result<Number, WireError> {
        if let Some(text) = self.text()? {
            return Number::parse(text).ok_or_else(|| WireError::new("a text is not a number"));
        }
        Ok(match self.byte()? {
            small @ 0..=0x7f => Number::Int(small.into()),
            small @ 0xe0..=0xff => Number::Int((small as i8).into()),
            0xcc => Number::Int(self.byte()?.into()),
            0xcd => Number::Int(u16::from_be_bytes(self.number()?).into()),
            0xce => Number::Int(u32::from_be_bytes(self.number()?).into()),
            0xcf => {
                let whole = u64::from_be_bytes(self.number()?);
                match i64::try_from(whole) {
                    Ok(whole) => Number::Int(whole),
                    Err(_) => Number::Text(whole.to_string()),
                }
            }
            0xd0 => Number::Int((self.byte()? as i8).into()),
            0xd1 => Number::Int(i16::from_be_bytes(self.number()?).into()),
            0xd2 => Number::Int(i32::from_be_bytes(self.number()?).into()),
            0xd3 => Number::Int(i64::from_be_bytes(self.number()?)),
            0xca => Number::of(f32::from_be_bytes(self.number()?).into()),
            0xcb => Number::of(f64::from_be_bytes(self.number()?)),
            _ => return Err(WireError::new("it is not a number")),
        })
    }
}

fn short() -> WireError {
    WireError::new("it ends too early")
}
