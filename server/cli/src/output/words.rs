//! Times and paragraphs.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How wide a terminal is taken to be, in columns.
pub(crate) const WIDTH: usize = 80;

/// A time in seconds since 1970, as RFC 3339 in UTC.
pub(crate) fn when(unix: i64) -> String {
    let text = OffsetDateTime::from_unix_timestamp(unix).map(|time| time.format(&Rfc3339));
    match text {
        Ok(Ok(text)) => text,
        _ => "-".to_owned(),
    }
}

/// How long it is from `now` to `then`, in one unit: `23h`, `5d`, `expired`.
pub(crate) fn remaining(then: i64, now: i64) -> String {
    match then.saturating_sub(now) {
        ..=0 => "expired".to_owned(),
        left @ 1..120 => format!("{left}s"),
        left @ 120..7200 => format!("{}m", left / 60),
        left @ 7200..172_800 => format!("{}h", left / 3600),
        left => format!("{}d", left / 86_400),
    }
}

/// `text` in lines of at most [`WIDTH`], each with `indent` spaces before it.
pub(crate) fn wrapped(text: &str, indent: usize) -> String {
    let mut out = String::new();
    for paragraph in text.lines() {
        let mut line = " ".repeat(indent);
        let mut empty = true;
        for word in paragraph.split_whitespace() {
            let long = line.chars().count() + 1 + word.chars().count() > WIDTH;
            if !empty && long {
                out.push_str(&line);
                out.push('\n');
                line = " ".repeat(indent);
                empty = true;
            }
            if !empty {
                line.push(' ');
            }
            line.push_str(word);
            empty = false;
        }
        out.push_str(&line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read() {
        assert_eq!(when(0), "1970-01-01T00:00:00Z");
        assert_eq!(when(i64::MAX), "-");
        for (left, text) in [
            (-1, "expired"),
            (0, "expired"),
            (59, "59s"),
            (3600, "60m"),
            (86_000, "23h"),
            (864_000, "10d"),
        ] {
            assert_eq!(remaining(1000 + left, 1000), text);
        }
    }

    #[test]
    fn paragraphs_are_broken() {
        let text = wrapped(&"word ".repeat(40), 4);
        assert!(
            text.lines()
                .all(|line| line.len() <= WIDTH && line.starts_with("    word"))
        );
        assert_eq!(wrapped("a b\nc", 2), "  a b\n  c\n");
    }
}
