//! With what the handshakes between sidecars are made: the least version of TLS, the ciphers and
//! the key exchanges.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::is_default;
use crate::words::{listed, suggest};

/// The `tls` block of `mesh`: it holds on both sides of every connection between sidecars. What it
/// does not say has its default.
///
/// A name that a reader does not know is refused, so that a stricter policy of tomorrow is never
/// taken for a weaker one of today; a new version, suite or key exchange is a new name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsPolicy {
    /// The least version. `None`: 1.3.
    #[serde(default, skip_serializing_if = "is_default")]
    pub min_version: Option<TlsVersion>,
    /// What may encrypt, the first that both sides have counts. Empty: [`CipherSuite::ALL`].
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "some_and_distinct"
    )]
    pub cipher_suites: Vec<CipherSuite>,
    /// How keys may be agreed on, the best first. Empty: [`KeyExchange::DEFAULT`].
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "some_and_distinct"
    )]
    pub key_exchange: Vec<KeyExchange>,
}

impl TlsPolicy {
    /// Whether it says nothing.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The suites that hold, in order.
    pub fn suites(&self) -> &[CipherSuite] {
        match self.cipher_suites.as_slice() {
            [] => &CipherSuite::ALL,
            some => some,
        }
    }

    /// The key exchanges that hold, in order.
    pub fn exchanges(&self) -> &[KeyExchange] {
        match self.key_exchange.as_slice() {
            [] => &KeyExchange::DEFAULT,
            some => some,
        }
    }

    /// The same with all that holds written out.
    pub fn effective(&self) -> Self {
        Self {
            min_version: Some(self.min_version.unwrap_or_default()),
            cipher_suites: self.suites().to_vec(),
            key_exchange: self.exchanges().to_vec(),
        }
    }

    /// Why two sidecars could not speak of which one has this policy and the other that before it,
    /// as they are for a moment after each change; `None`: they can.
    pub fn nothing_in_common(&self, before: &Self) -> Option<String> {
        let apart = |what: &str, before: Vec<&str>| {
            format!(
                "tls: {what} has nothing in common with what is in force ({}): for as long as some \
                 sidecars have this policy and some the one before, they could not call each \
                 other. Write one that has both first, wait until it is live everywhere \
                 (`meshctl proxy status`), and then this one",
                before.join(", ")
            )
        };
        let suites = before.suites();
        if !self.suites().iter().any(|one| suites.contains(one)) {
            let names = suites.iter().map(CipherSuite::as_str).collect();
            return Some(apart("cipher_suites", names));
        }
        let exchanges = before.exchanges();
        if !self.exchanges().iter().any(|one| exchanges.contains(one)) {
            let names = exchanges.iter().map(KeyExchange::as_str).collect();
            return Some(apart("key_exchange", names));
        }
        None
    }
}

/// Names that stand in files, JSON and on the wire in one form.
macro_rules! named {
    ($name:ident, $what:literal, $all:ident: [$($variant:ident = $text:literal),+ $(,)?]) => {
        impl $name {
            /// As it is written.
            pub fn as_str(&self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// Reads what [`Self::as_str`] writes.
            pub fn parse(text: &str) -> Option<Self> {
                Self::$all.into_iter().find(|one| one.as_str() == text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl From<$name> for String {
            fn from(one: $name) -> Self {
                one.as_str().to_owned()
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                Self::parse(&text).ok_or_else(|| unknown($what, &text, &Self::$all.map(|one| one.as_str())))
            }
        }
    };
}

/// A version of TLS that may be the least. Sidecars speak no older one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TlsVersion {
    /// 1.3.
    #[default]
    V1_3,
}

impl TlsVersion {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::V1_3];
}

named!(TlsVersion, "version", ALL: [V1_3 = "1.3"]);

/// A cipher suite of TLS 1.3, by its registered name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CipherSuite {
    /// The cheapest where the processor has AES.
    Aes128Gcm,
    /// AES with keys of 256 bits.
    Aes256Gcm,
    /// The cheapest where it has not.
    Chacha20Poly1305,
}

impl CipherSuite {
    /// All of them, in the order that is the default.
    pub const ALL: [Self; 3] = [Self::Aes128Gcm, Self::Aes256Gcm, Self::Chacha20Poly1305];
}

named!(CipherSuite, "cipher suite", ALL: [
    Aes128Gcm = "TLS_AES_128_GCM_SHA256",
    Aes256Gcm = "TLS_AES_256_GCM_SHA384",
    Chacha20Poly1305 = "TLS_CHACHA20_POLY1305_SHA256",
]);

/// How two sides agree on a key (TLS's named groups).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum KeyExchange {
    /// X25519 and ML-KEM-768 together: what is recorded today stays secret from a quantum computer
    /// of tomorrow.
    X25519MlKem768,
    /// P-256 and ML-KEM-768 together.
    Secp256r1MlKem768,
    /// X25519 alone.
    X25519,
    /// The curve P-256.
    P256,
    /// The curve P-384.
    P384,
}

impl KeyExchange {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::X25519MlKem768,
        Self::Secp256r1MlKem768,
        Self::X25519,
        Self::P256,
        Self::P384,
    ];
    /// What holds when nothing is said, in order.
    pub const DEFAULT: [Self; 4] = [Self::X25519MlKem768, Self::X25519, Self::P256, Self::P384];

    /// Whether it withstands a quantum computer.
    pub fn is_post_quantum(self) -> bool {
        matches!(self, Self::X25519MlKem768 | Self::Secp256r1MlKem768)
    }
}

named!(KeyExchange, "key exchange", ALL: [
    X25519MlKem768 = "X25519MLKEM768",
    Secp256r1MlKem768 = "SecP256r1MLKEM768",
    X25519 = "X25519",
    P256 = "P-256",
    P384 = "P-384",
]);

fn unknown(what: &str, text: &str, known: &[&str]) -> String {
    let shown: String = text.chars().take(64).collect();
    match suggest(text, known.iter().copied()) {
        Some(near) => format!("{what} `{shown}` is not known: did you mean `{near}`?"),
        None => format!(
            "{what} `{shown}` is not known: use one of {}",
            listed(known)
        ),
    }
}

/// A list that says something, and nothing twice. One that is left out has the default; an empty
/// one would leave nothing to speak with.
fn some_and_distinct<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + PartialEq + fmt::Display,
{
    use serde::de::Error;
    let list = Vec::<T>::deserialize(deserializer)?;
    if list.is_empty() {
        return Err(D::Error::custom(EMPTY));
    }
    for (index, one) in list.iter().enumerate() {
        if list.iter().take(index).any(|before| before == one) {
            return Err(D::Error::custom(format!("`{one}` stands there twice")));
        }
    }
    Ok(list)
}

/// What is wrong with an empty list.
pub(crate) const EMPTY: &str =
    "is empty, which would leave nothing to speak with; leave it out for the default";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> Result<TlsPolicy, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for one in KeyExchange::ALL {
            assert_eq!(KeyExchange::parse(one.as_str()), Some(one));
        }
        for one in CipherSuite::ALL {
            assert_eq!(CipherSuite::parse(one.as_str()), Some(one));
        }
        let text = r#"{"min_version":"1.3","cipher_suites":["TLS_AES_256_GCM_SHA384"],"key_exchange":["SecP256r1MLKEM768","P-384"]}"#;
        let policy = read(text).unwrap();
        assert_eq!(serde_json::to_string(&policy).unwrap(), text);
        assert_eq!(
            serde_json::to_string(&TlsPolicy::default()).unwrap(),
            "{}",
            "a default is not written"
        );
        assert!(KeyExchange::DEFAULT[0].is_post_quantum());
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_is_near() {
        for (text, words) in [
            (
                r#"{"key_exchange":["x25519mlkem768"]}"#,
                "key exchange `x25519mlkem768` is not known: did you mean `X25519MLKEM768`?",
            ),
            (r#"{"key_exchange":["p256"]}"#, "did you mean `P-256`?"),
            (
                r#"{"key_exchange":["frodo640"]}"#,
                "use one of `X25519MLKEM768`",
            ),
            (
                r#"{"cipher_suites":["TLS_AES_128_GCM_SHA384"]}"#,
                "did you mean `TLS_AES_128_GCM_SHA256`?",
            ),
            (
                r#"{"min_version":"1.2"}"#,
                "version `1.2` is not known: did you mean `1.3`?",
            ),
            (r#"{"cipher_suites":[]}"#, "is empty"),
            (
                r#"{"key_exchange":["X25519","X25519"]}"#,
                "`X25519` stands there twice",
            ),
            (r#"{"max_version":"1.3"}"#, "unknown field `max_version`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_change_must_leave_something_in_common() {
        let policy = |suites: &[CipherSuite], exchanges: &[KeyExchange]| TlsPolicy {
            min_version: None,
            cipher_suites: suites.to_vec(),
            key_exchange: exchanges.to_vec(),
        };
        let default = TlsPolicy::default();
        let p384 = policy(&[], &[KeyExchange::P384]);
        let hybrid = policy(&[], &[KeyExchange::Secp256r1MlKem768]);
        let both = policy(&[], &[KeyExchange::Secp256r1MlKem768, KeyExchange::P384]);
        assert_eq!(p384.nothing_in_common(&default), None);
        let why = hybrid.nothing_in_common(&default).unwrap();
        assert!(
            why.contains("key_exchange") && why.contains("X25519MLKEM768, X25519"),
            "{why}"
        );
        assert!(default.nothing_in_common(&hybrid).is_some(), "and back");
        assert_eq!(both.nothing_in_common(&default), None);
        assert_eq!(hybrid.nothing_in_common(&both), None);
        let aes256 = policy(&[CipherSuite::Aes256Gcm], &[]);
        let chacha = policy(&[CipherSuite::Chacha20Poly1305], &[]);
        let why = chacha.nothing_in_common(&aes256).unwrap();
        assert!(
            why.contains("cipher_suites") && why.contains("(TLS_AES_256_GCM_SHA384)"),
            "{why}"
        );
    }
}
