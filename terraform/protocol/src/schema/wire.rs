//! A schema as Terraform is told it.

use super::{Attribute, Kind, Nesting, Schema};
use crate::proto::tfplugin6 as wire;

impl Schema {
    pub(crate) fn to_wire(&self) -> wire::Schema {
        wire::Schema {
            version: self.version,
            block: Some(wire::schema::Block {
                version: self.version,
                attributes: self.attributes.iter().map(Attribute::to_wire).collect(),
                block_types: Vec::new(),
                description: self.description.clone(),
                description_kind: wire::StringKind::Markdown.into(),
                deprecated: self.deprecated.is_some(),
                deprecation_message: self.deprecated.clone().unwrap_or_default(),
            }),
        }
    }

    pub(crate) fn identity_to_wire(&self) -> Option<wire::ResourceIdentitySchema> {
        use wire::resource_identity_schema::IdentityAttribute;
        if self.identity.is_empty() {
            return None;
        }
        let attributes = self.identity.iter().filter_map(|name| {
            let attribute = self.attribute(name)?;
            let may_miss = attribute.optional;
            Some(IdentityAttribute {
                name: name.clone(),
                r#type: attribute.ty().to_bytes(),
                required_for_import: !may_miss,
                optional_for_import: may_miss,
                description: attribute.description.clone(),
            })
        });
        Some(wire::ResourceIdentitySchema {
            version: 0,
            identity_attributes: attributes.collect(),
        })
    }
}

impl Attribute {
    fn to_wire(&self) -> wire::schema::Attribute {
        let nested = match &self.kind {
            Kind::Type(_) => None,
            Kind::Nested(nesting, attributes) => Some(nested(*nesting, attributes)),
        };
        wire::schema::Attribute {
            name: self.name.clone(),
            r#type: match &self.kind {
                Kind::Type(ty) => ty.to_bytes(),
                Kind::Nested(..) => Vec::new(),
            },
            nested_type: nested,
            description: self.description.clone(),
            required: self.required,
            optional: self.optional,
            computed: self.computed,
            sensitive: self.sensitive,
            description_kind: wire::StringKind::Markdown.into(),
            deprecated: self.deprecated.is_some(),
            write_only: self.write_only,
            deprecation_message: self.deprecated.clone().unwrap_or_default(),
        }
    }
}

fn nested(nesting: Nesting, attributes: &[Attribute]) -> wire::schema::Object {
    use wire::schema::object::NestingMode;
    let nesting = match nesting {
        Nesting::Single => NestingMode::Single,
        Nesting::List => NestingMode::List,
        Nesting::Set => NestingMode::Set,
        Nesting::Map => NestingMode::Map,
    };
    wire::schema::Object {
        attributes: attributes.iter().map(Attribute::to_wire).collect(),
        nesting: nesting.into(),
        ..Default::default()
    }
}
