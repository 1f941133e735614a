//! What a resource, a data source or the provider's own block may say.

mod check;
mod defaults;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::{Type, Value};

/// A value's own check: what is wrong with it, without a full stop.
pub type Check = Arc<dyn Fn(&Value) -> Result<(), String> + Send + Sync>;

/// A value in the one form in which two that mean the same are equal.
pub type Normal = Arc<dyn Fn(&Value) -> Value + Send + Sync>;

/// The attributes of a resource, data source or provider.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// Raised when a state of before is no longer one; then
    /// [`crate::Resource::upgrade`] turns it into one.
    pub version: i64,
    /// For the documentation, in Markdown.
    pub description: String,
    /// Why it should not be used any more.
    pub deprecated: Option<String>,
    /// What it has.
    pub attributes: Vec<Attribute>,
    /// How long its operations may take, where the user does not say otherwise.
    pub timeouts: BTreeMap<Operation, Duration>,
    /// The attributes by which what was made is known again, in any state.
    pub identity: Vec<String>,
}

/// One attribute.
#[derive(Clone)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// What its value is.
    pub kind: Kind,
    /// For the documentation, in Markdown.
    pub description: String,
    /// It must be written.
    pub required: bool,
    /// It may be written.
    pub optional: bool,
    /// The provider may give it.
    pub computed: bool,
    /// It is not shown.
    pub sensitive: bool,
    /// It is in the configuration only, never in a plan or state.
    pub write_only: bool,
    /// Why it should not be used any more.
    pub deprecated: Option<String>,
    /// What it is where nothing is written.
    pub default: Option<Value>,
    /// A change of it makes the resource anew.
    pub replaces: bool,
    /// What the provider gave stays when something else changes.
    pub stable: bool,
    checks: Vec<Check>,
    each: Vec<Check>,
    normal: Option<Normal>,
}

/// What an attribute's value is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A value of a type.
    Type(Type),
    /// Objects with attributes of their own.
    Nested(Nesting, Vec<Attribute>),
}

/// How objects stand in an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nesting {
    /// One.
    Single,
    /// In order.
    List,
    /// Without order, none twice.
    Set,
    /// By name.
    Map,
}

/// What may take its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Making it.
    Create,
    /// Looking at it.
    Read,
    /// Changing it.
    Update,
    /// Deleting it.
    Delete,
}

impl Operation {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Read => "read",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

impl Schema {
    /// A schema of these attributes.
    pub fn new(description: impl Into<String>, attributes: Vec<Attribute>) -> Self {
        Self {
            description: description.into(),
            attributes,
            ..Self::default()
        }
    }

    /// How long an operation may take. There is then an attribute `timeouts`
    /// with which the user says otherwise.
    pub fn timeout(mut self, operation: Operation, default: Duration) -> Self {
        self.timeouts.insert(operation, default);
        let attributes = self.timeouts.iter().map(|(operation, default)| {
            let text = format!(
                "How long to {} it may take, such as `90s` or `10m`; `{}` when it is not written.",
                operation.as_str(),
                written(*default)
            );
            Attribute::string(operation.as_str())
                .optional()
                .describe(text)
                .check(|value| match value.as_str().map(read_duration) {
                    Some(None) => Err("must be a duration, such as `90s` or `10m`".to_owned()),
                    _ => Ok(()),
                })
        });
        let attribute = Attribute::single("timeouts", attributes.collect())
            .optional()
            .describe("How long operations may take.");
        self.attributes.retain(|one| one.name != "timeouts");
        self.attributes.push(attribute);
        self
    }

    /// The attributes that name what was made.
    pub fn identified_by(mut self, names: &[&str]) -> Self {
        self.identity = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    /// The same with a version.
    pub fn version(mut self, version: i64) -> Self {
        self.version = version;
        self
    }

    /// The attribute of that name.
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|one| one.name == name)
    }

    /// The type of its values.
    pub fn ty(&self) -> Type {
        object_type(&self.attributes)
    }

    /// The type of its identity.
    pub fn identity_type(&self) -> Type {
        let of = |name: &String| Some((name.clone(), self.attribute(name)?.ty()));
        Type::Object(self.identity.iter().filter_map(of).collect())
    }

    /// A value with nothing in it.
    pub fn nothing(&self) -> Value {
        let names = self.attributes.iter().map(|one| one.name.clone());
        Value::object(names.map(|name| (name, Value::Null)))
    }

    /// How long `operation` may take by what is written in `value`.
    pub(crate) fn time_for(&self, operation: Operation, value: &Value) -> Option<Duration> {
        let default = self.timeouts.get(&operation)?;
        let written = value.get("timeouts").get(operation.as_str()).as_str();
        Some(written.and_then(read_duration).unwrap_or(*default))
    }
}

impl Attribute {
    /// An attribute of a type.
    pub fn new(name: impl Into<String>, ty: Type) -> Self {
        Self::of(name, Kind::Type(ty))
    }

    fn of(name: impl Into<String>, kind: Kind) -> Self {
        Self {
            name: name.into(),
            kind,
            description: String::new(),
            required: false,
            optional: false,
            computed: false,
            sensitive: false,
            write_only: false,
            deprecated: None,
            default: None,
            replaces: false,
            stable: false,
            checks: Vec::new(),
            each: Vec::new(),
            normal: None,
        }
    }

    /// A text.
    pub fn string(name: impl Into<String>) -> Self {
        Self::new(name, Type::String)
    }

    /// A bool.
    pub fn bool(name: impl Into<String>) -> Self {
        Self::new(name, Type::Bool)
    }

    /// A number.
    pub fn number(name: impl Into<String>) -> Self {
        Self::new(name, Type::Number)
    }

    /// One object.
    pub fn single(name: impl Into<String>, attributes: Vec<Self>) -> Self {
        Self::nested(name, Nesting::Single, attributes)
    }

    /// Objects.
    pub fn nested(name: impl Into<String>, nesting: Nesting, attributes: Vec<Self>) -> Self {
        Self::of(name, Kind::Nested(nesting, attributes))
    }

    /// What it is for.
    pub fn describe(mut self, text: impl Into<String>) -> Self {
        self.description = text.into();
        self
    }

    /// It must be written.
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// It may be written.
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// The provider gives it; with [`Self::optional`], where nothing is written.
    pub fn computed(mut self) -> Self {
        self.computed = true;
        self
    }

    /// What it is where nothing is written; it is then in the plan and state.
    pub fn default(mut self, value: impl Into<Value>) -> Self {
        self.default = Some(value.into());
        self.optional = true;
        self.computed = true;
        self
    }

    /// It is not shown. It is in the state all the same.
    pub fn sensitive(mut self) -> Self {
        self.sensitive = true;
        self
    }

    /// It is in the configuration only: what is planned and kept has null in its
    /// place, and create and update read it from [`crate::Wanted::config`].
    pub fn write_only(mut self) -> Self {
        self.write_only = true;
        self
    }

    /// A change of it makes the resource anew.
    pub fn replaces(mut self) -> Self {
        self.replaces = true;
        self
    }

    /// What the provider gave stays as it is when something else changes;
    /// without this it is unknown in the plan of each change.
    pub fn stable(mut self) -> Self {
        self.stable = true;
        self
    }

    /// It should not be used any more, and why.
    pub fn deprecate(mut self, why: impl Into<String>) -> Self {
        self.deprecated = Some(why.into());
        self
    }

    /// A check of what is written, asked only of what is known and not null.
    pub fn check(
        mut self,
        check: impl Fn(&Value) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.checks.push(Arc::new(check));
        self
    }

    /// A check of each object of a nested attribute, asked when nothing is wrong
    /// with the attributes in it.
    pub fn each(
        mut self,
        check: impl Fn(&Value) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.each.push(Arc::new(check));
        self
    }

    /// It must be one of these.
    pub fn one_of<T: Into<String>>(self, words: impl IntoIterator<Item = T>) -> Self {
        let words: Vec<String> = words.into_iter().map(Into::into).collect();
        self.check(move |value| match value.as_str() {
            Some(text) if !words.iter().any(|word| word == text) => {
                Err(format!("must be one of {}, not `{text}`", words.join(", ")))
            }
            _ => Ok(()),
        })
    }

    /// Two values whose normal forms are equal are the same: what was written
    /// then stays in the state, whichever of them was read.
    pub fn normal(mut self, normal: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        self.normal = Some(Arc::new(normal));
        self
    }

    pub(crate) fn is_set(&self) -> bool {
        matches!(
            self.kind,
            Kind::Type(Type::Set(_)) | Kind::Nested(Nesting::Set, _)
        )
    }

    /// The type of its values.
    pub fn ty(&self) -> Type {
        match &self.kind {
            Kind::Type(ty) => ty.clone(),
            Kind::Nested(nesting, attributes) => {
                let of = object_type(attributes);
                match nesting {
                    Nesting::Single => of,
                    Nesting::List => Type::list(of),
                    Nesting::Set => Type::set(of),
                    Nesting::Map => Type::map(of),
                }
            }
        }
    }
}

impl std::fmt::Debug for Attribute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attribute")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

fn object_type(attributes: &[Attribute]) -> Type {
    Type::object(attributes.iter().map(|one| (one.name.clone(), one.ty())))
}

/// A duration of whole numbers with the units h, m, s and ms: `1h30m`.
fn read_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut all = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(end);
        let number: u64 = number.parse().ok()?;
        let end = tail.find(|c: char| c.is_ascii_digit());
        let (unit, tail) = tail.split_at(end.unwrap_or(tail.len()));
        let one = match unit {
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return None,
        };
        all = all.checked_add(one)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(all)
}

/// A duration in whole minutes or seconds.
pub(crate) fn written(duration: Duration) -> String {
    // What is left of a time is a little less than it was.
    match duration.as_secs_f64().round() as u64 {
        secs if secs > 0 && secs % 60 == 0 => format!("{}m", secs / 60),
        secs => format!("{secs}s"),
    }
}

#[cfg(test)]
mod tests;
