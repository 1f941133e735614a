//! What the description of the API does not say: texts for people, and defaults.

use mesh_tfprotocol::Value;

/// A field, by the object that it is of and its name; `*` is any object.
pub(crate) struct Word {
    pub(crate) of: &'static str,
    pub(crate) field: &'static str,
    pub(crate) text: &'static str,
}

const fn word(of: &'static str, field: &'static str, text: &'static str) -> Word {
    Word { of, field, text }
}

/// Fields that are no attributes of what they are in, since the resource says them otherwise.
pub(crate) const ARE_NOT_ATTRIBUTES: [(&str, &str); 6] = [
    ("Service", "namespace"),
    ("Service", "name"),
    ("Route", "namespace"),
    ("Route", "name"),
    ("Intention", "source"),
    ("Intention", "destination"),
];

/// What each field is for. The first that fits counts.
pub(crate) const WORDS: &[Word] = &[
    // service
    word(
        "Service",
        "protocol",
        "What its instances speak. Routes and permissions need one of HTTP.",
    ),
    word(
        "Service",
        "load_balancer",
        "How an instance is chosen for a request, or for a TCP connection.",
    ),
    word(
        "Service",
        "connect_timeout",
        "How long to wait for a connection to an instance; `5s` when it is not written.",
    ),
    word(
        "Service",
        "request_timeout",
        "The whole of a request, retries included, where no rule of a route says otherwise; `0s` is no limit. `15s` when it is not written, and none for gRPC.",
    ),
    word(
        "Service",
        "outlier_detection",
        "When an instance that fails is left alone for a while.",
    ),
    word("Service", "subsets", "Named parts of its instances."),
    word(
        "Service",
        "default_subset",
        "The subset that the whole service means.",
    ),
    word(
        "outlier_detection",
        "consecutive_5xx",
        "So many answers of 5xx in a row eject an instance.",
    ),
    word(
        "outlier_detection",
        "base_ejection_time",
        "How long the first ejection lasts, and by how much each further one is longer; `30s` when it is not written.",
    ),
    word(
        "outlier_detection",
        "max_ejection_percent",
        "At most this part of the instances is ejected at once; 50 when it is not written.",
    ),
    word(
        "subsets",
        "meta",
        "Each of these is in the instance's meta, with this value.",
    ),
    word("subsets", "tags", "Each of these is a tag of the instance."),
    word(
        "subsets",
        "only_passing",
        "Only instances whose checks all pass.",
    ),
    // route
    word(
        "Route",
        "rules",
        "The rules, in order: the first that matches decides. What no rule matches goes to the whole service.",
    ),
    word(
        "Rule",
        "name",
        "Its name, unique in the route: it stands in errors, logs and metrics.",
    ),
    word(
        "Rule",
        "match",
        "Alternatives, of which one must match. Without any, every request matches.",
    ),
    word(
        "Rule",
        "to",
        "Where the request goes; weights sum to 100. Without any, to the whole service.",
    ),
    word(
        "Rule",
        "timeout",
        "The whole of a request, retries included; `0s` is no limit. The service's `request_timeout` when it is not written.",
    ),
    word(
        "Rule",
        "retries",
        "When a request is tried again; never when it is not written.",
    ),
    word(
        "to",
        "service",
        "The service; the route's own when it is not written.",
    ),
    word(
        "to",
        "subset",
        "A subset of that service; the whole of it when it is not written.",
    ),
    word(
        "to",
        "weight",
        "Its part of the requests, in steps of 0.01.",
    ),
    word(
        "retries",
        "attempts",
        "How often at most, beyond the first try.",
    ),
    word(
        "retries",
        "per_try_timeout",
        "How long one try may take; as long as the whole when it is not written.",
    ),
    word(
        "retries",
        "on",
        "What is tried again: `5xx`, `gateway-error`, `reset`, `connect-failure`, `refused-stream`, `retriable-4xx`, and for gRPC `cancelled`, `deadline-exceeded`, `resource-exhausted`, `internal` and `unavailable`. `connect-failure` and `refused-stream` when neither this nor `status_codes` is written.",
    ),
    word(
        "retries",
        "status_codes",
        "Answers with these codes are tried again.",
    ),
    // requests
    word(
        "*",
        "path_exact",
        "The path, normalised, is exactly this. At most one of the three `path_…` may be written.",
    ),
    word(
        "*",
        "path_prefix",
        "The path, normalised, begins with this: `/v1/` for the folder, since `/v1` covers `/v10`, too.",
    ),
    word(
        "*",
        "path_regex",
        "The whole of the path, normalised, matches this regular expression.",
    ),
    word(
        "*",
        "methods",
        "The method is one of these; any when none is written.",
    ),
    word(
        "*",
        "headers",
        "Every one of these conditions on headers holds.",
    ),
    word(
        "*",
        "query",
        "Every one of these conditions on parameters of the query holds.",
    ),
    word("Condition", "name", "Its name."),
    word(
        "Condition",
        "present",
        "`true`: it is there, whatever it is. Exactly one of `present`, `exact`, `prefix`, `suffix`, `contains` and `regex` must be written.",
    ),
    word("Condition", "exact", "It is exactly this."),
    word("Condition", "prefix", "It begins with this."),
    word("Condition", "suffix", "It ends with this."),
    word("Condition", "contains", "This is in it."),
    word(
        "Condition",
        "regex",
        "The whole of it matches this regular expression.",
    ),
    word(
        "Condition",
        "invert",
        "The condition is turned around; what is absent then matches.",
    ),
    // intention
    word(
        "Intention",
        "action",
        "`allow` or `deny`, of every connection. Either this or `permissions` must be written.",
    ),
    word(
        "Intention",
        "permissions",
        "Ordered rules for requests: the first that matches decides, and the mesh's default where none does.",
    ),
    word("Intention", "description", "Free text for people."),
    word(
        "Permission",
        "action",
        "What holds for a request that matches.",
    ),
    // mesh
    word(
        "Mesh",
        "default_intention",
        "What holds where no intention does. What the servers were started with, when it is not written.",
    ),
    word(
        "Mesh",
        "outbound",
        "Where intercepted connections may go: `any`, or services of the mesh only.",
    ),
    word(
        "Mesh",
        "tls",
        "With what handshakes between sidecars are made.",
    ),
    word(
        "TlsPolicy",
        "min_version",
        "The least version of TLS; sidecars speak none older than 1.3.",
    ),
    word(
        "TlsPolicy",
        "cipher_suites",
        "What may encrypt, in order; all that there are when it is not written.",
    ),
    word(
        "TlsPolicy",
        "key_exchange",
        "How keys may be agreed on, the best first.",
    ),
    // the CA
    word(
        "CaConfig",
        "provider",
        "Where the CA is: in the servers, in HashiCorp Vault, or in AWS Private CA. Another one begins a change of the root.",
    ),
    word(
        "CaConfig",
        "leaf_ttl",
        "How long a sidecar's certificate lives.",
    ),
    word(
        "CaConfig",
        "intermediate_ttl",
        "How long the intermediate lives.",
    ),
    word("CaConfig", "root_ttl", "How long the root lives."),
    word("CaConfig", "key_type", "What keys the CA makes for itself."),
    word(
        "CaConfig",
        "vault",
        "Where in Vault it is. The servers' own files say how Vault is reached.",
    ),
    word("CaConfig", "aws_pca", "Which CA in AWS it hangs on."),
    word(
        "vault",
        "root_pki_path",
        "Where the root is. Another one begins a change of the root.",
    ),
    word(
        "vault",
        "intermediate_pki_path",
        "Where the intermediate is.",
    ),
    word(
        "vault",
        "leaf_signing",
        "Who signs the sidecars' certificates: Vault itself, or the cluster.",
    ),
    word(
        "aws_pca",
        "existing_arn",
        "The ARN of the CA in AWS. Another one begins a change of the root.",
    ),
    // of all
    word("*", "meta", "Free keys, for people and programs."),
];

/// The text of a field.
pub(super) fn text(of: &str, field: &str) -> &'static str {
    let mut all = WORDS.iter();
    let found = all.find(|one| (one.of == of || one.of == "*") && one.field == field);
    found.map_or("", |one| one.text)
}

/// What a field is when it is not written, where the server does not write that either: it is
/// then in the state, so that a change elsewhere shows.
pub(super) fn default(of: &str, field: &str) -> Option<Value> {
    Some(match (of, field) {
        ("Service", "protocol") => "tcp".into(),
        ("Service", "load_balancer") => "least_request".into(),
        ("outlier_detection", "consecutive_5xx") => 5.into(),
        ("subsets", "only_passing") | ("Condition", "invert") => false.into(),
        ("to", "weight") => 100.into(),
        ("Mesh", "outbound") => "any".into(),
        ("CaConfig", "provider") => "built_in".into(),
        ("CaConfig", "key_type") => "ec-p256".into(),
        _ => return None,
    })
}

/// Whether the server has a value of its own for what is not written, and tells it.
pub(super) fn is_given(of: &str, field: &str) -> bool {
    matches!(
        (of, field),
        ("CaConfig", "leaf_ttl" | "intermediate_ttl" | "root_ttl") | ("vault", "leaf_signing")
    )
}
