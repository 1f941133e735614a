//! Reading an object's fields as Consul does.
//!
//! Consul's decoder matches a key whatever its case, and takes the snake case of its files too;
//! so keys are compared without case and underscores. An exact key comes first. `null`, and for
//! text the empty one, is as good as nothing.

use std::collections::BTreeMap;

use mesh_model::Duration;
use mesh_model::instance::check_host;
use serde_json::{Map, Value};

use crate::ConsulError;

pub(crate) struct Fields<'a> {
    path: String,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(crate) fn root(value: &'a Value) -> Result<Self, ConsulError> {
        Self::of("body", value).map(|fields| Self {
            path: String::new(),
            ..fields
        })
    }

    fn of(path: impl Into<String>, value: &'a Value) -> Result<Self, ConsulError> {
        let path = path.into();
        match value {
            Value::Object(map) => Ok(Self { path, map }),
            other => Err(ConsulError::expected(path, "an object", other)),
        }
    }

    /// The path of a field, for errors.
    pub(crate) fn place(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    pub(crate) fn error(&self, key: &str, reason: impl Into<String>) -> ConsulError {
        ConsulError::new(self.place(key), reason)
    }

    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        let found = self.map.get(key).or_else(|| {
            let mut entries = self.map.iter();
            entries.find(|(other, _)| same(other, key)).map(|it| it.1)
        });
        found.filter(|value| !value.is_null())
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<String>, ConsulError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(other) => Err(ConsulError::expected(self.place(key), "a string", other)),
        }
    }

    /// An IP address or a DNS name: what others will be told to connect to, or where to listen.
    pub(crate) fn host(&self, key: &str) -> Result<Option<String>, ConsulError> {
        let host = self.text(key)?;
        if let Some(host) = &host {
            check_host(host).map_err(|e| self.error(key, e))?;
        }
        Ok(host)
    }

    pub(crate) fn flag(&self, key: &str) -> Result<bool, ConsulError> {
        match self.value(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(ConsulError::expected(
                self.place(key),
                "true or false",
                other,
            )),
        }
    }

    pub(crate) fn count(&self, key: &str) -> Result<u32, ConsulError> {
        self.number(key, "a number from 0 to 4294967295")
            .map(|number| number.unwrap_or(0))
    }

    pub(crate) fn weight(&self, key: &str) -> Result<Option<u32>, ConsulError> {
        self.number(key, "a number from 0 to 4294967295")
    }

    /// A port; 0 is as good as nothing.
    pub(crate) fn port(&self, key: &str) -> Result<Option<u16>, ConsulError> {
        let port = self.number(key, "a port from 0 to 65535")?;
        Ok(port.filter(|port| *port != 0))
    }

    fn number<T: TryFrom<u64>>(&self, key: &str, what: &str) -> Result<Option<T>, ConsulError> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => value
                .as_u64()
                .and_then(|number| T::try_from(number).ok())
                .map(Some)
                .ok_or_else(|| ConsulError::expected(self.place(key), what, value)),
        }
    }

    /// A Go duration, or a number of nanoseconds; zero is as good as nothing.
    pub(crate) fn duration(&self, key: &str) -> Result<Option<Duration>, ConsulError> {
        let what = "a duration such as \"10s\"";
        let duration = match self.value(key) {
            None => return Ok(None),
            Some(Value::String(text)) if text.is_empty() => return Ok(None),
            Some(Value::String(text)) => text
                .parse()
                .map_err(|e: mesh_model::DurationError| self.error(key, e.to_string()))?,
            Some(value) => {
                let nanos = value
                    .as_u64()
                    .ok_or_else(|| ConsulError::expected(self.place(key), what, value))?;
                format!("{nanos}ns")
                    .parse()
                    .map_err(|_| ConsulError::expected(self.place(key), what, value))?
            }
        };
        Ok(Some(duration).filter(|duration: &Duration| !duration.is_zero()))
    }

    pub(crate) fn object(&self, key: &str) -> Result<Option<Self>, ConsulError> {
        self.value(key)
            .map(|value| Self::of(self.place(key), value))
            .transpose()
    }

    pub(crate) fn objects(&self, key: &str) -> Result<Vec<Self>, ConsulError> {
        let mut out = Vec::new();
        for (index, value) in self.list(key)?.iter().enumerate() {
            out.push(Self::of(format!("{}[{index}]", self.place(key)), value)?);
        }
        Ok(out)
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Vec<String>, ConsulError> {
        let mut out = Vec::new();
        for (index, value) in self.list(key)?.iter().enumerate() {
            match value {
                Value::String(text) => out.push(text.clone()),
                other => {
                    let place = format!("{}[{index}]", self.place(key));
                    return Err(ConsulError::expected(place, "a string", other));
                }
            }
        }
        Ok(out)
    }

    /// A map whose keys are the user's own: they stay as written.
    pub(crate) fn text_map(&self, key: &str) -> Result<BTreeMap<String, String>, ConsulError> {
        let mut out = BTreeMap::new();
        let Some(fields) = self.object(key)? else {
            return Ok(out);
        };
        for (name, value) in fields.map {
            match value {
                Value::String(text) => out.insert(name.clone(), text.clone()),
                Value::Null => None,
                other => {
                    return Err(ConsulError::expected(fields.place(name), "a string", other));
                }
            };
        }
        Ok(out)
    }

    /// The same with values of any kind.
    pub(crate) fn value_map(&self, key: &str) -> Result<BTreeMap<String, Value>, ConsulError> {
        let fields = self.object(key)?;
        Ok(fields
            .iter()
            .flat_map(|fields| fields.map)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect())
    }

    /// The objects of a map whose keys are the user's own.
    pub(crate) fn object_map(&self, key: &str) -> Result<Vec<(String, Self)>, ConsulError> {
        let mut out = Vec::new();
        if let Some(fields) = self.object(key)? {
            for (name, value) in fields.map {
                out.push((name.clone(), Self::of(fields.place(name), value)?));
            }
        }
        Ok(out)
    }

    /// The keys as written.
    pub(crate) fn names(&self) -> Vec<String> {
        self.map.keys().cloned().collect()
    }

    /// Every field, with the known keys in Consul's own spelling and `null`s left out.
    pub(crate) fn canonical(&self, known: &[&str]) -> Map<String, Value> {
        let mut out = Map::new();
        for (key, value) in self.map.iter().filter(|(_, value)| !value.is_null()) {
            let name = known.iter().find(|name| same(name, key));
            out.insert(
                name.map_or(key.clone(), |name| (*name).to_owned()),
                value.clone(),
            );
        }
        out
    }

    fn list(&self, key: &str) -> Result<&'a [Value], ConsulError> {
        match self.value(key) {
            None => Ok(&[]),
            Some(Value::Array(values)) => Ok(values),
            Some(other) => Err(ConsulError::expected(self.place(key), "a list", other)),
        }
    }
}

/// Whether two keys are one for Consul.
fn same(a: &str, b: &str) -> bool {
    let letters = |text: &'_ str| -> Vec<u8> {
        text.bytes()
            .filter(|byte| *byte != b'_')
            .map(|byte| byte.to_ascii_lowercase())
            .collect()
    };
    letters(a) == letters(b)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_taken_in_any_of_consuls_spellings() {
        for key in ["ServiceID", "service_id", "serviceId", "serviceid"] {
            let body = json!({ key: "a" });
            let fields = Fields::root(&body).unwrap();
            assert_eq!(fields.text("ServiceID").unwrap().as_deref(), Some("a"));
        }
        let body = json!({ "id": "other", "ID": "exact" });
        let fields = Fields::root(&body).unwrap();
        assert_eq!(fields.text("ID").unwrap().as_deref(), Some("exact"));
    }

    #[test]
    fn errors_name_the_place_and_the_value() {
        let body = json!({ "A": { "Port": 70000, "Wait": "5 days", "Tags": ["x", 1] } });
        let a = Fields::root(&body).unwrap().object("A").unwrap().unwrap();
        assert_eq!(
            a.port("Port").unwrap_err().to_string(),
            "A.Port: expected a port from 0 to 65535, found 70000"
        );
        assert!(
            a.duration("Wait")
                .unwrap_err()
                .to_string()
                .starts_with("A.Wait: `5 days`")
        );
        assert_eq!(
            a.texts("Tags").unwrap_err().to_string(),
            "A.Tags[1]: expected a string, found 1"
        );
        assert_eq!(
            Fields::root(&json!([])).err().unwrap().to_string(),
            "body: expected an object, found a list"
        );
    }

    #[test]
    fn durations_are_text_or_nanoseconds() {
        let body = json!({ "A": "1m", "B": 1_500_000_000u64, "C": "", "D": "0s", "E": -1 });
        let fields = Fields::root(&body).unwrap();
        assert_eq!(fields.duration("A").unwrap(), Some(Duration::from_secs(60)));
        assert_eq!(
            fields.duration("B").unwrap(),
            Some(Duration::from_millis(1500))
        );
        assert_eq!(fields.duration("C").unwrap(), None);
        assert_eq!(fields.duration("D").unwrap(), None);
        assert!(fields.duration("E").is_err());
    }
}
