//! What a block of the provider says, or else a variable; and certificates, which are files or texts.

use mesh_tfprotocol::Value;

/// What is written, or the variable; empty is as not there.
pub(crate) fn given(
    block: &Value,
    name: &str,
    variable: &str,
    var: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let written = block.get(name).as_str().map(str::to_owned);
    let found = written.or_else(|| var(variable));
    found.filter(|text| !text.is_empty())
}

/// Variables of the environment.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The text itself where it is PEM, else what is in the file that it names.
///
/// # Errors
/// In words that follow the attribute's name.
pub(crate) fn pem(text: &str) -> Result<Vec<u8>, String> {
    if text.trim_start().starts_with("-----BEGIN") {
        return Ok(text.as_bytes().to_vec());
    }
    std::fs::read(text)
        .map_err(|error| format!("names a file that cannot be read: {text}: {error}"))
}

/// A certificate with its key, or neither.
///
/// # Errors
/// The attribute that is missing, and why it should not be.
pub(crate) fn pair<T>(
    certificate: Option<T>,
    key: Option<T>,
) -> Result<Option<(T, T)>, (&'static str, &'static str)> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(("client_key", "is missing: it belongs to `client_cert`")),
        (None, Some(_)) => Err(("client_cert", "is missing: it belongs to `client_key`")),
    }
}
