//! What a block of the provider says, or else a variable; and certificates, which are files or texts.

use mesh_tfprotocol::Value;

/// How the variables begin that meshctl reads.
const OF_MESHCTL: &str = "MESHCTL_";
/// How those begin that are read before them, so that what is applied need not be what the shell's
/// `meshctl` speaks to.
const OURS: &str = "MESH_";

/// What is written, or the variable; empty is as not there. One of meshctl's has one before it, see
/// [`ours`].
pub(crate) fn given(
    block: &Value,
    name: &str,
    variable: &str,
    var: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let written = block.get(name).as_str().map(str::to_owned);
    let is_there = |text: &String| !text.is_empty();
    let before = || ours(variable).and_then(|name| var(&name)).filter(is_there);
    let found = written.or_else(before).or_else(|| var(variable));
    found.filter(is_there)
}

/// The variable that is read before one of meshctl's: `MESH_CACERT` before `MESHCTL_CACERT`.
pub(crate) fn ours(variable: &str) -> Option<String> {
    let rest = variable.strip_prefix(OF_MESHCTL)?;
    Some(format!("{OURS}{rest}"))
}

/// An attribute's description, with the variables that stand for it.
pub(crate) fn described(what: &str, variable: &str) -> String {
    match ours(variable) {
        Some(ours) => format!("{what} Or `{ours}`, or meshctl's `{variable}`."),
        None => format!("{what} Or `{variable}`."),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_then_our_variable_then_that_of_meshctl() {
        let block = |address: Option<&str>| {
            let address = address.map_or(Value::Null, |text| Value::String(text.to_owned()));
            Value::object([("address", address)])
        };
        let read = |written: Option<&str>, there: &[(&str, &str)]| {
            let var = |name: &str| {
                let found = there.iter().find(|(known, _)| *known == name);
                found.map(|(_, text)| (*text).to_owned())
            };
            given(&block(written), "address", "MESHCTL_HTTP_ADDR", var)
        };
        let (ours, theirs) = (("MESH_HTTP_ADDR", "b"), ("MESHCTL_HTTP_ADDR", "c"));
        assert_eq!(read(Some("a"), &[ours, theirs]).as_deref(), Some("a"));
        assert_eq!(read(None, &[ours, theirs]).as_deref(), Some("b"));
        assert_eq!(read(None, &[theirs]).as_deref(), Some("c"));
        let empty = ("MESH_HTTP_ADDR", "");
        assert_eq!(read(None, &[empty, theirs]).as_deref(), Some("c"));
        assert_eq!(read(None, &[empty]), None);
    }
}
