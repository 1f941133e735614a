//! The `tls` block of `mesh`.

use crate::fields::Fields;
use crate::tls::EMPTY;
use crate::{CipherSuite, KeyExchange, TlsPolicy, TlsVersion};

pub(super) fn policy(mut fields: Fields<'_>) -> TlsPolicy {
    let policy = TlsPolicy {
        min_version: min_version(&mut fields),
        cipher_suites: names(
            &mut fields,
            "cipher_suites",
            &CipherSuite::ALL.map(|one| one.as_str()),
            CipherSuite::parse,
        ),
        key_exchange: names(
            &mut fields,
            "key_exchange",
            &KeyExchange::ALL.map(|one| one.as_str()),
            KeyExchange::parse,
        ),
    };
    fields.finish();
    policy
}

fn min_version(fields: &mut Fields<'_>) -> Option<TlsVersion> {
    const KEY: &str = "min_version";
    let (text, at) = fields.text(KEY)?;
    let version = TlsVersion::parse(text);
    if version.is_none() {
        match text {
            "1.0" | "1.1" | "1.2" => {
                let hint = Some("leave it out: nothing older is ever spoken".to_owned());
                fields.wrong_with(at, KEY, "sidecars speak TLS 1.3 only", hint);
            }
            _ => fields.bad_word(at, KEY, text, &TlsVersion::ALL.map(|one| one.as_str())),
        }
    }
    version
}

/// A list of names in order, none twice; where it is there it says something.
fn names<T: PartialEq>(
    fields: &mut Fields<'_>,
    key: &'static str,
    choices: &[&'static str],
    parse: impl Fn(&str) -> Option<T>,
) -> Vec<T> {
    let mut found = Vec::new();
    if let Some(at) = fields.empty_list(key) {
        fields.wrong(at, key, EMPTY);
    }
    for (text, at) in fields.texts(key) {
        match parse(text) {
            None => fields.bad_word(at, key, text, choices),
            Some(one) if found.contains(&one) => {
                fields.wrong(at, key, format!("`{text}` stands there twice"));
            }
            Some(one) => found.push(one),
        }
    }
    found
}
