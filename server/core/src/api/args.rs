//! What stands in a request's path and query, read once and strictly: a parameter that the route
//! does not have is an error, since a mistyped `?cas` must not become a write in any case.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_model::Key;

use super::error::ApiError;

/// Longest value of a parameter, in bytes.
const MAX_VALUE: usize = 2048;

/// Path and query of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Args {
    path: BTreeMap<String, String>,
    query: BTreeMap<String, String>,
}

impl Args {
    /// Reads them; `known` are the query's parameters.
    pub(crate) fn read(
        path: impl IntoIterator<Item = (String, String)>,
        query: &str,
        known: &[&str],
    ) -> Result<Self, ApiError> {
        let mut args = Self {
            path: path.into_iter().collect(),
            ..Self::default()
        };
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(
            &format!("/?{query}")
                .parse()
                .map_err(|_| ApiError::request("the query cannot be read"))?,
        );
        let pairs = pairs.map_err(|_| ApiError::request("the query cannot be read"))?;
        for (name, value) in pairs.0 {
            if !known.contains(&name.as_str()) {
                let name: String = name.chars().take(64).collect();
                let known = match known.is_empty() {
                    true => "it has none".to_owned(),
                    false => format!("it has {}", known.join(", ")),
                };
                let message = format!("parameter `{name}` is not known here; {known}");
                return Err(ApiError::request(message));
            }
            if value.len() > MAX_VALUE {
                return Err(ApiError::request(format!("{name}: is too long")));
            }
            if args.query.insert(name.clone(), value).is_some() {
                return Err(ApiError::request(format!("{name}: stands twice")));
            }
        }
        Ok(args)
    }

    /// A part of the path, as it is.
    pub(crate) fn segment(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    /// A part of the path that is the key of one service.
    pub(crate) fn key(&self, name: &str) -> Result<Key, ApiError> {
        let key = self.pattern(name)?;
        let checked = key.check();
        checked.map_err(|error| ApiError::request(format!("{name}: {error}")))?;
        Ok(key)
    }

    /// A part of the path that is a side of an intention.
    pub(crate) fn pattern(&self, name: &str) -> Result<Key, ApiError> {
        parse(name, self.segment(name))
    }

    /// A parameter, as it is.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// A parameter that is a key, a pattern or not.
    pub(crate) fn query_key(&self, name: &str) -> Result<Option<Key>, ApiError> {
        self.text(name).map(|text| parse(name, text)).transpose()
    }

    /// Whether a parameter stands, with nothing or `true`.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(_) => Err(ApiError::request(format!("{name}: write true or false"))),
        }
    }

    /// A parameter that is a whole number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let number = text.parse();
        let number = number
            .map_err(|_| ApiError::request(format!("{name}: `{text}` is not a whole number")))?;
        Ok(Some(number))
    }

    /// A parameter that is a duration; `limit` is the longest.
    pub(crate) fn duration(
        &self,
        name: &str,
        default: Duration,
        limit: Duration,
    ) -> Result<Duration, ApiError> {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        let duration: Result<mesh_model::Duration, _> = text.parse();
        let duration = duration.map_err(|error| ApiError::request(format!("{name}: {error}")))?;
        Ok(duration.std().min(limit))
    }
}

fn parse(name: &str, text: &str) -> Result<Key, ApiError> {
    let key = text.parse();
    key.map_err(|error: mesh_model::NameError| ApiError::request(format!("{name}: {error}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(query: &str) -> Result<Args, ApiError> {
        let path = [("name".to_owned(), "team/web".to_owned())];
        Args::read(path, query, &["cas", "force", "wait", "destination"])
    }

    #[test]
    fn reads_what_is_there() {
        let args = read("cas=3&force&wait=1m30s&destination=team%2F*").unwrap();
        assert_eq!(args.key("name").unwrap(), Key::new("team", "web"));
        assert_eq!(args.number("cas").unwrap(), Some(3));
        assert!(args.flag("force").unwrap());
        let minute = Duration::from_secs(60);
        assert_eq!(args.duration("wait", minute, minute).unwrap(), minute);
        let pattern = args.query_key("destination").unwrap();
        assert_eq!(pattern, Some(Key::new("team", "*")));
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        for query in [
            "cass=3",
            "cas=3&cas=4",
            &format!("cas={}", "1".repeat(3000)),
        ] {
            assert!(read(query).is_err(), "{query}");
        }
        assert!(read("cas=-1").unwrap().number("cas").is_err());
        assert!(read("force=yes").unwrap().flag("force").is_err());
        let minute = Duration::from_secs(60);
        assert!(
            read("wait=5")
                .unwrap()
                .duration("wait", minute, minute)
                .is_err()
        );
        assert!(
            read("destination=a%2Fb%2Fc")
                .unwrap()
                .query_key("destination")
                .is_err()
        );
        let star = Args::read([("name".to_owned(), "*".to_owned())], "", &[]).unwrap();
        assert!(star.key("name").is_err());
        assert!(star.pattern("name").is_ok());
    }
}
