//! A certificate's serial number, as people and programs write it.

/// A serial number at most, in hex digits (RFC 5280, section 4.1.2.2).
const MAX_SERIAL: usize = 40;

/// A serial number as it is compared: lower-case hex, two digits a byte, no
/// colons and no zeros before it. `None`: it is none.
pub fn serial_number(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|char| *char != ':').collect();
    if !digits.chars().all(|char| char.is_ascii_hexdigit()) {
        return None;
    }
    let digits = digits.to_ascii_lowercase();
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() || digits.len() > MAX_SERIAL {
        return None;
    }
    Some(match digits.len() % 2 {
        0 => digits.to_owned(),
        _ => format!("0{digits}"),
    })
}

#[cfg(test)]
mod tests {
    use super::serial_number;

    #[test]
    fn a_serial_number_is_one_however_it_is_written() {
        for text in ["0a:1B:00", "A1B00", "000a1b00", "0a1b00"] {
            assert_eq!(serial_number(text).as_deref(), Some("0a1b00"), "{text}");
        }
        let long = "f".repeat(41);
        for text in ["", "0", "::", "0x12", "web", long.as_str()] {
            assert_eq!(serial_number(text), None, "{text}");
        }
    }
}
