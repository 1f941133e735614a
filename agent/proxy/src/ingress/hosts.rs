//! Which service is asked for, by the host of a request.

use std::collections::HashMap;

use http::uri::Authority;

/// What stands behind hosts; the most exact one counts.
pub(super) struct Hosts<T> {
    exact: HashMap<String, T>,
    /// `*.example.com`, with the point; the longest first.
    ends: Vec<(String, T)>,
    /// `web.ingress.*`, with the point; the longest first.
    begins: Vec<(String, T)>,
    any: Option<T>,
}

impl<T: Clone> Hosts<T> {
    pub(super) fn new<'h>(all: impl IntoIterator<Item = (&'h str, T)>) -> Self {
        let mut hosts = Self {
            exact: HashMap::new(),
            ends: Vec::new(),
            begins: Vec::new(),
            any: None,
        };
        for (host, what) in all {
            let host = host.to_ascii_lowercase();
            if host == "*" {
                hosts.any = Some(what);
            } else if let Some(end) = host.strip_prefix('*') {
                hosts.ends.push((end.to_owned(), what));
            } else if let Some(begin) = host.strip_suffix('*') {
                hosts.begins.push((begin.to_owned(), what));
            } else {
                hosts.exact.insert(host, what);
            }
        }
        for patterns in [&mut hosts.ends, &mut hosts.begins] {
            patterns.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.len()));
        }
        hosts
    }

    /// What a request for `authority` is for. A port in it says nothing, and
    /// neither does a point at its end.
    pub(super) fn find(&self, authority: Option<&Authority>) -> Option<&T> {
        let host = authority.map_or("", Authority::host).to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        // A pattern is for at least one character more.
        let end = |(end, _): &&(String, T)| host.len() > end.len() && host.ends_with(&**end);
        let begin =
            |(begin, _): &&(String, T)| host.len() > begin.len() && host.starts_with(&**begin);
        self.exact
            .get(host)
            .or_else(|| self.ends.iter().find(end).map(|(_, what)| what))
            .or_else(|| self.begins.iter().find(begin).map(|(_, what)| what))
            .or(self.any.as_ref())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_most_exact_host_counts() {
        let all = [
            ("Shop.example.com", 1),
            ("*.example.com", 2),
            ("*.eu.example.com", 3),
            ("web.ingress.*", 4),
            ("10.0.0.1", 5),
        ];
        let hosts = Hosts::new(all);
        let with_any = Hosts::new(all.into_iter().chain([("*", 9)]));
        for (host, expected) in [
            ("shop.example.com", Some(1)),
            ("SHOP.example.com:8080", Some(1)),
            ("shop.example.com.", Some(1)),
            ("a.example.com", Some(2)),
            ("a.b.example.com", Some(2)),
            ("a.eu.example.com", Some(3)),
            ("example.com", None),
            (".example.com", None),
            ("web.ingress.dc1.consul", Some(4)),
            ("web.ingress.", None),
            ("web.ingress", None),
            ("10.0.0.1:80", Some(5)),
            ("other", None),
        ] {
            let authority: Option<Authority> = host.parse().ok();
            assert_eq!(hosts.find(authority.as_ref()), expected.as_ref(), "{host}");
            let expected = expected.or(Some(9));
            assert_eq!(
                with_any.find(authority.as_ref()),
                expected.as_ref(),
                "{host}"
            );
        }
        assert_eq!(hosts.find(None), None);
        assert_eq!(with_any.find(None), Some(&9));
    }
}
