//! One form for each path, so that a permission or a route cannot be walked
//! around by writing the same path in another way.
//!
//! Consul shipped path rules long before it normalised, and each way to write
//! a path was a way past a rule. Here everything that looks at a path looks at
//! this form, and the application gets this form, so both ends agree on what
//! was asked for. What has no form that every server understands alike (an
//! encoded slash, a backslash) is refused.

use std::borrow::Cow;

/// Why a request's path was refused. The right answer to it is 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with `/`.
    #[error("path does not begin with `/`")]
    Relative,
    /// `%2F`, `%5C`: servers differ on whether it ends a segment.
    #[error("path has an encoded slash or backslash, which servers understand differently")]
    EncodedSlash,
    /// Some servers take it for a slash.
    #[error("path has a backslash, which servers understand differently")]
    Backslash,
    /// NUL or `%00`, where some servers end the path.
    #[error("path has a NUL")]
    Nul,
    /// A `%` that two hexadecimal digits do not follow.
    #[error("path has a `%` that two hexadecimal digits do not follow")]
    BadEscape,
    /// `..;x`: servers that know path parameters take it for `..`.
    #[error("path has a parameter on a `.` or `..` segment")]
    DotParameter,
    /// A control character, a space, `?` or `#`.
    #[error("path has a character that none can have: {0:?}")]
    Character(char),
}

/// The normal form of a request's path (without its query).
///
/// By RFC 3986, 6.2.2: escapes of unreserved characters are decoded, the hex
/// digits of others turned to upper case, `.` and `..` segments removed (`..`
/// at the root is dropped). Beyond it: what a path must have escaped is escaped
/// (`é` is `%C3%A9`), and empty segments are merged (`//` is `/`) before `..`
/// takes its segment away, as file systems do. Normalising twice changes
/// nothing more. A path that is normal already is not copied.
pub fn normalize_path(path: &str) -> Result<Cow<'_, str>, PathError> {
    if !path.starts_with('/') {
        return Err(PathError::Relative);
    }
    if is_plain(path) {
        return Ok(Cow::Borrowed(path));
    }
    let normal = join(&unescape(path)?)?;
    Ok(match normal == path {
        true => Cow::Borrowed(path),
        false => Cow::Owned(normal),
    })
}

/// Whether there is nothing to look at closely: the common case, one pass.
fn is_plain(path: &str) -> bool {
    let mut before = 0;
    path.bytes().all(|byte| {
        let fine = match byte {
            b'/' | b'.' => before != b'/',
            b';' => false,
            byte => is_unescaped(byte),
        };
        before = byte;
        fine
    })
}

/// RFC 3986, 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What a segment may have without an escape (RFC 3986, 3.3: pchar), or `/`.
fn is_unescaped(byte: u8) -> bool {
    is_unreserved(byte) || b"/!$&'()*+,;=:@".contains(&byte)
}

/// Each character in its one form; segments are not looked at yet.
fn unescape(path: &str) -> Result<String, PathError> {
    let mut out = String::with_capacity(path.len() + 8);
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let (high, low) = (hex(bytes.next())?, hex(bytes.next())?);
                match high * 16 + low {
                    0 => return Err(PathError::Nul),
                    b'/' | b'\\' => return Err(PathError::EncodedSlash),
                    byte if is_unreserved(byte) => out.push(char::from(byte)),
                    byte => escape(&mut out, byte),
                }
            }
            0 => return Err(PathError::Nul),
            b'\\' => return Err(PathError::Backslash),
            byte @ (1..=b' ' | b'?' | b'#' | 0x7f) => {
                return Err(PathError::Character(char::from(byte)));
            }
            byte if is_unescaped(byte) => out.push(char::from(byte)),
            byte => escape(&mut out, byte),
        }
    }
    Ok(out)
}

fn hex(byte: Option<u8>) -> Result<u8, PathError> {
    byte.and_then(|byte| char::from(byte).to_digit(16))
        .and_then(|digit| u8::try_from(digit).ok())
        .ok_or(PathError::BadEscape)
}

fn escape(out: &mut String, byte: u8) {
    out.push('%');
    for digit in [byte >> 4, byte & 15] {
        let digit = char::from_digit(u32::from(digit), 16).unwrap_or('0');
        out.push(digit.to_ascii_uppercase());
    }
}

/// Puts the segments together, without empty and dot segments.
fn join(path: &str) -> Result<String, PathError> {
    let mut kept: Vec<&str> = Vec::new();
    let mut folder = true; // whether the path so far ends with a slash
    for segment in path.split('/') {
        folder = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            segment if has_dot_parameter(segment) => return Err(PathError::DotParameter),
            segment => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if folder {
        out.push('/');
    }
    Ok(out)
}

fn has_dot_parameter(segment: &str) -> bool {
    let rest = segment.trim_start_matches('.');
    segment.len() - rest.len() <= 2
        && segment.starts_with('.')
        && (rest.starts_with(';') || rest.starts_with("%3B"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn normal_forms() {
        for (path, normal) in [
            ("/", "/"),
            ("//", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//a///b//", "/a/b/"),
            ("/a/./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/./a", "/a"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../", "/a/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a//../b", "/b"),
            ("/%2e%2E/a", "/a"),
            ("/public/%2e%2e/admin", "/admin"),
            ("/public/.%2e/admin", "/admin"),
            ("/%61dmin", "/admin"),
            ("/%7euser", "/~user"),
            ("/a%3ab", "/a%3Ab"),
            ("/a%252Fb", "/a%252Fb"),
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/{id}", "/%7Bid%7D"),
            ("/%7bid%7d", "/%7Bid%7D"),
            ("/a|b", "/a%7Cb"),
            ("/...", "/..."),
            ("/.well-known/x", "/.well-known/x"),
            ("/a..b/.c/d.", "/a..b/.c/d."),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/...;x", "/...;x"),
            ("/;x", "/;x"),
            ("/a:b@c,d=e+f!$&'()*", "/a:b@c,d=e+f!$&'()*"),
            ("/%0a", "/%0A"),
        ] {
            assert_eq!(normalize_path(path).unwrap(), normal, "{path}");
        }
    }

    #[test]
    fn refused_forms() {
        use PathError::*;
        for (path, error) in [
            ("", Relative),
            ("a", Relative),
            ("*", Relative),
            ("http://x/", Relative),
            ("/a%2fb", EncodedSlash),
            ("/a%2Fb", EncodedSlash),
            ("/a%5cb", EncodedSlash),
            ("/a\\b", Backslash),
            ("/a\0", Nul),
            ("/a%00", Nul),
            ("/%", BadEscape),
            ("/%4", BadEscape),
            ("/%zz", BadEscape),
            ("/%+1", BadEscape),
            ("/%\u{e9}1", BadEscape),
            ("/a b", Character(' ')),
            ("/a\n", Character('\n')),
            ("/a\x7f", Character('\x7f')),
            ("/a?b", Character('?')),
            ("/a#b", Character('#')),
            ("/a/..;/b", DotParameter),
            ("/a/.;x", DotParameter),
            ("/a/%2e.;x=1/b", DotParameter),
            ("/a/..%3b/b", DotParameter),
        ] {
            assert_eq!(normalize_path(path), Err(error), "{path}");
        }
    }

    #[test]
    fn a_normal_path_is_not_copied() {
        for path in ["/", "/a/b/", "/a;v=1", "/.well-known", "/caf%C3%A9"] {
            assert!(
                matches!(normalize_path(path), Ok(Cow::Borrowed(_))),
                "{path}"
            );
        }
    }

    /// Paths made of what is interesting, so that most are taken.
    fn path() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            Just("/".to_owned()),
            Just(".".to_owned()),
            Just("..".to_owned()),
            Just(";".to_owned()),
            Just("%2e".to_owned()),
            "[a-c~{é]",
            "%[0-9a-fA-F]{2}",
        ];
        prop::collection::vec(part, 0..16).prop_map(|parts| format!("/{}", parts.concat()))
    }

    proptest! {
        #[test]
        fn twice_is_once(path in path()) {
            if let Ok(once) = normalize_path(&path) {
                prop_assert_eq!(normalize_path(&once), Ok(Cow::Borrowed(&*once)));
                prop_assert!(once.starts_with('/'));
                prop_assert!(!once.contains("//"));
                prop_assert!(once.split('/').all(|segment| segment != "." && segment != ".."));
            }
        }

        #[test]
        fn the_quick_way_is_the_long_way(path in path()) {
            if is_plain(&path) {
                prop_assert_eq!(unescape(&path).and_then(|path| join(&path)), Ok(path));
            }
        }

        #[test]
        fn an_escaped_letter_changes_nothing(path in "/[a-z./]{0,20}") {
            let escaped: String = path
                .chars()
                .map(|c| match c {
                    '/' => "/".to_owned(),
                    c => format!("%{:02x}", u32::from(c)),
                })
                .collect();
            prop_assert_eq!(normalize_path(&escaped), normalize_path(&path));
        }

        #[test]
        fn never_panics(path in any::<String>()) {
            let _ = normalize_path(&path);
            let _ = normalize_path(&format!("/{path}"));
        }
    }
}
