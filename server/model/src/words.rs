//! Misspelt words, and words that are known but mean something that is not
//! there yet.

/// Keys and words of our files that the field knows and that we will have:
/// refused by name, so that nobody looks for the mistake in their spelling.
const LATER: [&str; 39] = [
    "access_logs",
    "case_insensitive",
    "circuit_breaker",
    "circuit_breaking",
    "datacenter",
    "destination_partition",
    "destination_peer",
    "destination_type",
    "enable_tag_override",
    "failover",
    "fault",
    "hash_policy",
    "idle_timeout",
    "ignore_case",
    "jwt",
    "locality",
    "maglev",
    "mesh_gateway",
    "mirror",
    "mode",
    "namespaces",
    "native",
    "peak_ewma",
    "permissive",
    "prefix_rewrite",
    "rate_limit",
    "redirect",
    "request_headers",
    "response_headers",
    "retry_budget",
    "rewrite",
    "ring_hash",
    "script",
    "shadow",
    "slow_start",
    "transparent_proxy",
    "udp",
    "warmup",
    "zone_aware",
];

/// Whether `word` is one that is not supported yet.
pub(crate) fn is_later(word: &str) -> bool {
    LATER.contains(&word)
}

/// The one of `known` that `word` was probably meant to be.
pub(crate) fn suggest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if word.len() > 64 {
        return None;
    }
    let folded = fold(word);
    known
        .into_iter()
        .map(|known| (distance(&folded, &fold(known)), known))
        .filter(|(distance, known)| *distance <= (known.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// The form in which `PathPrefix`, `path_prefix` and `pathprefix` are one.
pub(crate) fn fold(word: &str) -> String {
    word.chars()
        .filter(|c| !matches!(c, '_' | '-'))
        .flat_map(char::to_lowercase)
        .collect()
}

/// How many characters must be put in, taken out, replaced or swapped with
/// their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX / 2);
            let mut cost = (at(&row, j) + 1)
                .min(at(&last, j + 1) + 1)
                .min(at(&last, j) + usize::from(x != y));
            if i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x) {
                cost = cost.min(at(&before, j - 1) + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(a.len())
}

/// `a`, `b` and `c`, each as code.
pub(crate) fn listed(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("abc", "abc", 0),
            ("abc", "abd", 1),
            ("acb", "abc", 1),
            ("path_prefx", "path_prefix", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn suggestions() {
        let known = ["path_prefix", "path_exact", "methods", "to"];
        assert_eq!(suggest("path_prefx", known), Some("path_prefix"));
        assert_eq!(suggest("PathPrefix", known), Some("path_prefix"));
        assert_eq!(suggest("method", known), Some("methods"));
        assert_eq!(suggest("zebra", known), None);
    }

    #[test]
    fn later_words_are_sorted() {
        assert!(LATER.is_sorted());
    }
}
