//! Values as Terraform has them: known, null, or not known yet.

use std::collections::BTreeMap;

use crate::Type;

/// A value. What kind of collection it is, its type says.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// It was not written.
    #[default]
    Null,
    /// It is known only when something else has been made.
    Unknown,
    /// A bool.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    String(String),
    /// A list, set or tuple.
    List(Vec<Value>),
    /// A map or object.
    Map(BTreeMap<String, Value>),
    /// A value of the type [`Type::Dynamic`], with the type that it has.
    Typed(Type, Box<Value>),
}

/// A number. Terraform's have no limit; what neither integer nor float holds
/// exactly is kept as it was written.
#[derive(Clone, Debug, PartialEq)]
pub enum Number {
    /// A whole number.
    Int(i64),
    /// Any other that a float holds; never a whole number of [`Self::Int`].
    Float(f64),
    /// As it was written.
    Text(String),
}

impl Number {
    /// The number in its one form.
    pub fn of(number: f64) -> Self {
        // Beyond 2^53 a float does not tell one whole number from the next.
        match number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
            true => Self::Int(number as i64),
            false => Self::Float(number),
        }
    }

    /// Reads a number in decimal.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(whole) = text.parse() {
            return Some(Self::Int(whole));
        }
        let float: f64 = text.parse().ok()?;
        if !float.is_finite() || !text.contains(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let one = Self::of(float);
        match one.to_string() == text {
            true => Some(one),
            false => Some(Self::Text(text.to_owned())),
        }
    }

    /// As a float, the nearest.
    pub fn as_f64(&self) -> f64 {
        match self {
            Self::Int(whole) => *whole as f64,
            Self::Float(float) => *float,
            Self::Text(text) => text.parse().unwrap_or(f64::NAN),
        }
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int(whole) => write!(f, "{whole}"),
            Self::Float(float) => write!(f, "{float}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl Value {
    /// An object of these attributes.
    pub fn object<N: Into<String>>(of: impl IntoIterator<Item = (N, Self)>) -> Self {
        Self::Map(of.into_iter().map(|(name, of)| (name.into(), of)).collect())
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        *self == Self::Null
    }

    /// Whether the whole of it is not known yet.
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::Unknown => true,
            Self::Typed(_, value) => value.is_unknown(),
            _ => false,
        }
    }

    /// Whether nothing in it is unknown.
    pub fn is_known(&self) -> bool {
        match self {
            Self::Unknown => false,
            Self::List(of) => of.iter().all(Self::is_known),
            Self::Map(of) => of.values().all(Self::is_known),
            Self::Typed(_, value) => value.is_known(),
            _ => true,
        }
    }

    /// The attribute or element of that name; null where there is none, and
    /// unknown in what is unknown.
    pub fn get(&self, name: &str) -> &Self {
        match self {
            Self::Map(of) => of.get(name).unwrap_or(&Self::Null),
            Self::Unknown => &Self::Unknown,
            Self::Typed(_, value) => value.get(name),
            _ => &Self::Null,
        }
    }

    /// Sets an attribute of an object; what is none becomes one.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Self>) {
        if !matches!(self, Self::Map(_)) {
            *self = Self::Map(BTreeMap::new());
        }
        if let Self::Map(of) = self {
            of.insert(name.into(), value.into());
        }
    }

    /// A known text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// A known bool.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// A known number.
    pub fn as_number(&self) -> Option<&Number> {
        match self {
            Self::Number(number) => Some(number),
            _ => None,
        }
    }

    /// A known whole number.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Number(Number::Int(whole)) => Some(*whole),
            _ => None,
        }
    }

    /// The elements of a known list, set or tuple; none of all else.
    pub fn elements(&self) -> &[Self] {
        match self {
            Self::List(of) => of,
            _ => &[],
        }
    }

    /// Whether two sets have the same elements: in whichever order Terraform has
    /// them, it is the same set.
    pub(crate) fn is_same_set(&self, other: &Self) -> bool {
        let (Self::List(all), Self::List(others)) = (self, other) else {
            return false;
        };
        let has = |all: &[Self], one: &Self| all.contains(one);
        all.len() == others.len()
            && all.iter().all(|one| has(others, one))
            && others.iter().all(|one| has(all, one))
    }

    /// The entries of a known map or object.
    pub fn entries(&self) -> Option<&BTreeMap<String, Self>> {
        match self {
            Self::Map(of) => Some(of),
            _ => None,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(whole: i64) -> Self {
        Self::Number(Number::Int(whole))
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(Number::of(number))
    }
}

impl<T: Into<Self>> From<Vec<T>> for Value {
    fn from(of: Vec<T>) -> Self {
        Self::List(of.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}
