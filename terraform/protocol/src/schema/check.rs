//! Checks of what is written, and of a schema itself.

use super::{Attribute, Kind, Nesting, Schema};
use crate::{Diagnostic, Diagnostics, Path, Value};

impl Schema {
    /// What is wrong with a configuration, attribute by attribute.
    /// `has_write_only`: whether Terraform knows attributes that are only written.
    pub fn validate(&self, config: &Value, has_write_only: bool) -> Diagnostics {
        let mut said = Diagnostics::new();
        let mut all = Validation {
            has_write_only,
            said: &mut said,
        };
        all.object(&self.attributes, &self.with_defaults(config), &Path::root());
        said
    }

    /// The mistakes of whoever wrote the schema: what Terraform would refuse
    /// when the provider starts, or only in some plan. For a test.
    pub fn mistakes(&self) -> Vec<String> {
        let mut all = Vec::new();
        mistakes(&self.attributes, &Path::root(), false, &mut all);
        for name in &self.identity {
            if self.attribute(name).is_none() {
                all.push(format!("{name}: is in the identity and not an attribute"));
            }
        }
        all
    }
}

struct Validation<'a> {
    has_write_only: bool,
    said: &'a mut Diagnostics,
}

impl Validation<'_> {
    fn object(&mut self, attributes: &[Attribute], value: &Value, path: &Path) {
        for attribute in attributes {
            let at = path.attribute(&attribute.name);
            self.attribute(attribute, value.get(&attribute.name), &at);
        }
    }

    fn attribute(&mut self, attribute: &Attribute, value: &Value, path: &Path) {
        if value.is_null() || value.is_unknown() {
            return;
        }
        if attribute.write_only && !self.has_write_only {
            let detail = format!(
                "`{path}` is only written and never kept, which Terraform can do from version 1.11 \
                 on. Use a newer one, or leave the attribute out."
            );
            let one = Diagnostic::error("Terraform is too old for this attribute", detail);
            self.said.push(one.at(path.clone()));
        }
        for check in &attribute.checks {
            if let Err(wrong) = check(value) {
                let summary = format!("Invalid value of `{}`", attribute.name);
                let one = Diagnostic::error(summary, format!("`{path}` {wrong}."));
                self.said.push(one.at(path.clone()));
            }
        }
        let Kind::Nested(nesting, _) = &attribute.kind else {
            return;
        };
        match (nesting, value) {
            (Nesting::Single, value) => self.each(attribute, value, path),
            (Nesting::List, Value::List(all)) => {
                for (at, one) in all.iter().enumerate() {
                    self.each(attribute, one, &path.index(at));
                }
            }
            // What is in a set has no path of its own: it is said of the set.
            (Nesting::Set, Value::List(all)) => {
                for one in all {
                    let mut within = Diagnostics::new();
                    let mut inner = Validation {
                        has_write_only: self.has_write_only,
                        said: &mut within,
                    };
                    inner.each(attribute, one, path);
                    let within = within.into_iter();
                    self.said.extend(within.map(|one| one.at(path.clone())));
                }
            }
            (Nesting::Map, Value::Map(all)) => {
                for (name, one) in all {
                    self.each(attribute, one, &path.key(name));
                }
            }
            _ => {}
        }
    }

    /// One object of a nested attribute.
    fn each(&mut self, attribute: &Attribute, value: &Value, path: &Path) {
        let Kind::Nested(_, inner) = &attribute.kind else {
            return;
        };
        if value.is_null() || value.is_unknown() {
            return;
        }
        let before = self.said.iter().count();
        self.object(inner, value, path);
        if self.said.iter().count() > before {
            return;
        }
        for check in &attribute.each {
            if let Err(wrong) = check(value) {
                let summary = format!("Invalid value in `{}`", attribute.name);
                let one = Diagnostic::error(summary, format!("`{path}` {wrong}."));
                self.said.push(one.at(path.clone()));
            }
        }
    }
}

fn mistakes(attributes: &[Attribute], path: &Path, in_set: bool, all: &mut Vec<String>) {
    for one in attributes {
        let at = path.attribute(&one.name);
        let name_is_good = one.name.starts_with(|c: char| c.is_ascii_lowercase())
            && (one.name.chars()).all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        let wrong = [
            (!name_is_good, "its name is not of a-z, 0-9 and _"),
            (
                one.required && (one.optional || one.computed),
                "is required, and something else",
            ),
            (
                !(one.required || one.optional || one.computed),
                "is neither required, optional nor computed",
            ),
            (
                one.write_only && one.computed,
                "is only written, and computed",
            ),
            (
                one.write_only && in_set,
                "is only written, and within a set",
            ),
            (
                in_set && one.computed && one.default.is_none(),
                "is computed within a set",
            ),
            (one.description.is_empty(), "has no description"),
        ];
        for (is, what) in wrong {
            if is {
                all.push(format!("{at}: {what}"));
            }
        }
        if let Some(default) = &one.default
            && crate::encode(default, &one.ty()).is_err()
        {
            all.push(format!("{at}: its default is not of its type"));
        }
        if let Kind::Nested(nesting, inner) = &one.kind {
            mistakes(inner, &at, in_set || *nesting == Nesting::Set, all);
        }
    }
}
