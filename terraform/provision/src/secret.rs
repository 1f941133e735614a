//! A text that is never printed.

use std::fmt;

use zeroize::Zeroizing;

/// What stands for a secret in a message.
const HIDDEN: &str = "(secret)";
/// A shorter part of a secret is not looked for in messages, in characters: it would be found in words.
const MIN_PART: usize = 8;

/// A secret: a key, a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The secret itself, for where it is needed.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// Takes secrets out of texts that come from elsewhere: a task's log, an answer of Nomad's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redactor(Vec<Secret>);

impl Redactor {
    pub(crate) fn new<'a>(secrets: impl Iterator<Item = &'a Secret>) -> Self {
        // A key in PEM is shown line by line, so each line counts.
        let parts = secrets.flat_map(|secret| {
            let lines = secret.expose().lines().map(str::trim);
            lines.filter(|line| line.len() >= MIN_PART && !line.starts_with("-----"))
        });
        Self(parts.map(Secret::new).collect())
    }

    pub(crate) fn clean(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| {
            text.replace(secret.expose(), HIDDEN)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_a_secret_is_shown() {
        let key = Secret::new("-----BEGIN KEY-----\nMIGHAgEAMBMGByqG\n-----END KEY-----\n");
        assert_eq!(format!("{key:?}"), "(secret)");
        let redactor = Redactor::new([&key, &Secret::new("hvs.token-1234")].into_iter());
        let text = "said: hvs.token-1234 and\nMIGHAgEAMBMGByqG\n";
        assert_eq!(redactor.clean(text), "said: (secret) and\n(secret)\n");
    }
}
